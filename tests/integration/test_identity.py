"""Any tensor of any datatype survives JSON → Triton → JSON, bit for bit, in rows and in columns."""

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.contracts.answers import json_response
from adapter.core.codec import decode_body
from adapter.core.datatypes import DATATYPES
from adapter.core.nested import to_json
from adapter.core.types import Tensor
from tests.fakes import model, tensor
from tests.integration.conftest import Up
from tests.strategies import values

BUDGET = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
SHAPES = st.tuples(st.integers(1, 4), st.integers(0, 4))


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize(("sent", "got"), [("instances", "predictions"), ("inputs", "outputs")])
def test_a_tensor_survives(up: Up, datatype: str, sent: str, got: str) -> None:
    @given(shape=SHAPES, data=st.data())
    @BUDGET
    def survives(shape: tuple[int, int], data: st.DataObject) -> None:
        before = Tensor("OUTPUT0", datatype, shape, data.draw(values(datatype, shape[0] * shape[1])))
        body = json_response({sent: to_json(before)}).body
        answer = up.client.post(f"/v1/models/identity-{datatype.lower()}:predict", content=bytes(body))
        assert answer.status_code == 200, answer.text
        declared = model(tensor("OUTPUT0", datatype, -1, -1))
        (after,), _ = decode_body(declared, {"inputs": orjson.loads(answer.content)[got]})
        assert after == before

    survives()
