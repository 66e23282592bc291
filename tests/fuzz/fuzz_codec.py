"""Coverage-guided fuzzing of bytes → JSON → tensors → JSON: `make fuzz`.

Whatever the bytes are, the answer is tensors or an AdapterError; what was accepted survives a round trip.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["adapter"]):
    import orjson

    from adapter.contracts.body import parse_json
    from adapter.core.codec import decode_body, decode_input_data, encode_answer
    from adapter.core.errors import AdapterError
    from adapter.core.wire import decode_request, decode_response
    from tests.fakes import model, tensor

MODELS = [
    model(tensor("x", "FP32", -1, 4), max_batch_size=8, feature_names=("a", "b", "c", "d")),
    model(tensor("image_bytes", "BYTES", -1, 1), max_batch_size=8),
    model(tensor("a", "INT64", -1, 2), tensor("b", "BOOL", -1, -1, optional=True), max_batch_size=4),
    model(tensor("x", "UINT8", -1, -1)),
    model(tensor("h", "FP16", 2), tensor("i", "BF16", -1)),
]


SEEDS = [
    b'\x00{"instances":[[1,2,3,4.5]]}',
    b'\x00{"inputs":{"a":[1],"b":[2],"c":[1],"d":[NaN]}}',
    b'\x01{"instances":[{"b64":"aGk="},"x"]}',
    b'\x82{"a":[[1,-2]],"b":[[true]]}',
    b'\x03{"instances":[[1,2],[3,4]]}',
    b'\x04{"inputs":{"h":[1,2e3],"i":[-Infinity]}}',
]


def json_body(data: bytes) -> None:
    """A body of V1 or MIaaS."""
    metadata = MODELS[data[0] % len(MODELS)] if data else MODELS[0]
    decode = decode_input_data if data[:1] >= b"\x80" else decode_body
    try:
        tensors, form = decode(metadata, parse_json(data[1:]))
        answer = orjson.dumps(
            encode_answer(tensors, "names", batched=metadata.batched), option=orjson.OPT_SERIALIZE_NUMPY
        )
    except AdapterError:
        return
    if b"null" not in answer:
        again, _ = decode_input_data(metadata, orjson.loads(answer))
        if again != tensors:
            raise AssertionError(f"{tensors} came back as {again} ({form})")


def wire_bytes(data: bytes) -> None:
    """What the queue and Triton send."""
    for decode in (decode_request, decode_response):
        try:
            decode(data)
        except (ValueError, IndexError):
            continue


def one_input(data: bytes) -> None:
    """Both of them."""
    json_body(data)
    wire_bytes(data)


if __name__ == "__main__":
    with TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()
