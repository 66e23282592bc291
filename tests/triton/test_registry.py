"""Triton's repository as the model registry, on answers as Triton gives them."""

import asyncio
import json
from collections.abc import Awaitable
from datetime import date
from typing import Any, TypeVar, cast

import pytest
from structlog.testing import capture_logs
from tritonclient.grpc import model_config_pb2, service_pb2

from adapter.core.errors import EngineUnavailable, ModelNotFound, ModelNotReady
from adapter.core.types import ModelVersion, TensorMetadata
from adapter.triton.registry import Registry
from adapter.triton.transport import GrpcTransport

T = TypeVar("T")


class FakeTransport:
    """What the registry asks of a GrpcTransport."""

    def __init__(self) -> None:
        self.lines = [("m", "1", "READY", ""), ("m", "2", "READY", ""), ("m", "10", "READY", "")]
        self.config: dict[str, Any] = {"max_batch_size": 8, "backend": "onnxruntime"}
        self.inputs = [("x", "TYPE_FP32", [4])]
        self.parameters: dict[str, Any] = {}
        self.fault: Exception | None = None
        self.asked: list[str] = []

    async def repository_index(self) -> Any:
        self.asked.append("index")
        await asyncio.sleep(0)
        if self.fault:
            raise self.fault
        index = service_pb2.RepositoryIndexResponse()
        for name, version, state, reason in self.lines:
            index.models.add(name=name, version=version, state=state, reason=reason)
        return index

    async def model_config(self, name: str, version: str) -> Any:
        self.asked.append(f"{name}@{version}")
        await asyncio.sleep(0)
        if self.fault:
            raise self.fault
        config = model_config_pb2.ModelConfig(name=name, **self.config)
        for tensor, datatype, dims in self.inputs:
            config.input.add(name=tensor, data_type=datatype, dims=dims)
        config.output.add(name="y", data_type="TYPE_STRING", dims=[1])
        for key, value in self.parameters.items():
            text = value if isinstance(value, str) else json.dumps(value)
            config.parameters[f"miaas.{key}"].string_value = text
        return config


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


def registry(transport: FakeTransport, ttl_s: float = 60) -> Registry:
    return Registry(cast(GrpcTransport, transport), ttl_s)


def described(transport: FakeTransport, name: str = "m", version: str = "") -> Any:
    async def scenario() -> Any:
        return await registry(transport).metadata(name, version)

    return asyncio.run(scenario())


def test_a_model_is_described_from_its_configuration(transport: FakeTransport) -> None:
    transport.parameters = {
        "feature_names": ["a", "b", "c", "d"],
        "labels": {"stable": 2, "canary": "10"},
        "deprecated_versions": {"1": "2026-06-30", "2": "2026-07-01"},
        "sunset": {"1": "2027-01-31"},
    }
    metadata = described(transport)
    assert (metadata.name, metadata.version, metadata.versions) == ("m", "10", ("1", "2", "10"))
    assert (metadata.platform, metadata.framework, metadata.max_batch_size) == ("onnxruntime", "onnx", 8)
    assert metadata.inputs == (TensorMetadata("x", "FP32", (-1, 4)),)
    assert metadata.outputs == (TensorMetadata("y", "BYTES", (-1, 1)),)
    assert metadata.feature_names == ("a", "b", "c", "d")
    assert metadata.labels == {"stable": "2", "canary": "10"}
    assert metadata.deprecated_since == {"1": date(2026, 6, 30), "2": date(2026, 7, 1)}
    assert metadata.sunset == {"1": date(2027, 1, 31)}
    assert not metadata.deprecated
    assert described(transport, version="2").deprecated


def test_deprecated_versions_may_come_without_their_day(transport: FakeTransport) -> None:
    transport.parameters = {"deprecated_versions": [1, "2"]}
    assert described(transport).deprecated_since == {"1": date(1970, 1, 1), "2": date(1970, 1, 1)}


def test_without_batching_there_is_no_batch_axis(transport: FakeTransport) -> None:
    transport.config["max_batch_size"] = 0
    assert described(transport).inputs == (TensorMetadata("x", "FP32", (4,)),)


@pytest.mark.parametrize(
    ("config", "framework"),
    [
        ({"backend": "python"}, "python"),
        ({"platform": "tensorflow_savedmodel"}, "tensorflow"),
        ({"platform": "tensorrt_plan", "backend": "tensorrt"}, "tensorrt"),
        ({"backend": "my_own"}, "my_own"),
        ({"ensemble_scheduling": model_config_pb2.ModelEnsembling(), "platform": "ensemble"}, "ensemble"),
    ],
)
def test_the_framework_is_told_by_the_backend(
    transport: FakeTransport, config: dict[str, Any], framework: str
) -> None:
    transport.config = config
    assert described(transport).framework == framework


@pytest.mark.parametrize(
    ("names", "inputs"),
    [
        (["a", "b", "c"], [("x", "TYPE_FP32", [4])]),
        (["a", "b", "c", "c"], [("x", "TYPE_FP32", [4])]),
        (["a", "b", "c", 4], [("x", "TYPE_FP32", [4])]),
        (["a", "b", "c", ["d"]], [("x", "TYPE_FP32", [4])]),
        (["x", "b", "c", "d"], [("x", "TYPE_FP32", [4])]),
        (["a", "b", "c", "d"], [("x", "TYPE_FP32", [4]), ("z", "TYPE_FP32", [4])]),
        (["a"], [("x", "TYPE_FP32", [])]),
        ({"a": 1}, [("x", "TYPE_FP32", [4])]),
        ("not JSON", [("x", "TYPE_FP32", [4])]),
    ],
)
def test_feature_names_that_cannot_be_are_passed_over_with_a_warning(
    transport: FakeTransport, names: Any, inputs: list[tuple[str, str, list[int]]]
) -> None:
    transport.parameters, transport.inputs = {"feature_names": names}, inputs
    with capture_logs() as logs:
        assert described(transport).feature_names == ()
    assert [(log["event"], log["parameter"]) for log in logs] == [
        ("model parameter ignored", "miaas.feature_names")
    ]


def test_feature_names_may_be_as_many_as_there_are(transport: FakeTransport) -> None:
    transport.parameters, transport.inputs = {"feature_names": ["a", "b"]}, [("x", "TYPE_STRING", [3, -1])]
    assert described(transport).feature_names == ("a", "b")


@pytest.mark.parametrize(
    "parameters",
    [
        {"labels": [1], "deprecated_versions": {"1": True}, "sunset": [], "batch_calls": True},
        {"labels": "{", "deprecated_versions": "nonsense", "sunset": {"1": "soon", "2": 3, "3": None}},
    ],
)
def test_other_parameters_that_cannot_be_are_passed_over(
    transport: FakeTransport, parameters: dict[str, Any]
) -> None:
    transport.parameters = parameters
    metadata = described(transport)
    assert (metadata.labels, metadata.deprecated_since, metadata.sunset) == ({}, {}, {})
    assert metadata.batch_calls is None


def test_only_what_is_loaded_is_served(transport: FakeTransport) -> None:
    transport.lines = [
        ("m", "1", "READY", ""),
        ("m", "2", "UNAVAILABLE", "unloaded"),
        ("never", "", "", ""),
        ("broken", "1", "UNAVAILABLE", "the file is bad"),
        ("coming", "1", "LOADING", ""),
    ]
    assert asyncio.run(registry(transport).models()) == [
        ModelVersion("m", "1", True),
        ModelVersion("broken", "1", False, "the file is bad"),
        ModelVersion("coming", "1", False),
    ]
    assert described(transport).versions == ("1",)
    for name, version in (("m", "2"), ("never", ""), ("none", ""), ("broken", "2")):
        with pytest.raises(ModelNotFound, match=f"^Model not found: {name}"):
            described(transport, name, version)
    with pytest.raises(
        ModelNotReady, match=r"^Model broken is not ready: it failed to load, and the server's log says why$"
    ):
        described(transport, "broken")
    with pytest.raises(ModelNotReady, match=r"^Model coming is not ready$"):
        described(transport, "coming", "1")


def gathered(*calls: Awaitable[T]) -> Awaitable[list[T]]:
    return asyncio.gather(*calls)


def test_one_look_up_is_for_all_who_wait(transport: FakeTransport) -> None:
    async def scenario() -> None:
        models = registry(transport)
        await gathered(*(models.metadata("m", "") for _ in range(50)))
        await gathered(*(models.metadata("m", "2") for _ in range(50)))

    asyncio.run(scenario())
    assert transport.asked == ["index", "m@10", "m@2"]


def test_what_triton_said_is_believed_for_a_time(transport: FakeTransport) -> None:
    async def scenario() -> None:
        models = registry(transport, ttl_s=0.5)
        assert (await models.metadata("m", "")).max_batch_size == 8
        transport.config["max_batch_size"] = 4
        transport.lines.pop()
        assert (await models.metadata("m", "")).max_batch_size == 8
        await asyncio.sleep(0.51)
        metadata = await models.metadata("m", "")
        assert (metadata.max_batch_size, metadata.version) == (4, "2")

    asyncio.run(scenario())


def test_what_was_said_is_known_until_something_else_is_said(transport: FakeTransport) -> None:
    """A request is on its way when others ask again: it must not lose its neighbours by that."""

    async def scenario() -> None:
        models = registry(transport, ttl_s=0)
        assert models.known("m", "") is None
        said = await models.metadata("m", "")
        await models.models()
        assert models.known("m", "") is said
        models.forget()
        assert models.known("m", "") is said
        transport.config["max_batch_size"] = 4
        said = await models.metadata("m", "")
        assert models.known("m", "") is said
        assert said.max_batch_size == 4
        transport.lines = [("other", "1", "READY", "")]
        await models.models()
        assert models.known("m", "") is None

    asyncio.run(scenario())


def test_after_forget_triton_is_asked_at_once(transport: FakeTransport) -> None:
    async def scenario() -> None:
        models = registry(transport)
        await models.metadata("m", "")
        models.forget()
        await models.metadata("m", "")

    asyncio.run(scenario())
    assert transport.asked == ["index", "m@10"] * 2


@pytest.mark.parametrize("known", [False, True])
def test_a_failure_is_not_believed(transport: FakeTransport, known: bool) -> None:
    async def scenario() -> None:
        models = registry(transport)
        if known:
            await models.models()
        transport.fault = EngineUnavailable("down")
        results = await asyncio.gather(*(models.metadata("m", "") for _ in range(3)), return_exceptions=True)
        assert results == [transport.fault] * 3
        transport.fault = None
        assert (await models.metadata("m", "")).version == "10"

    asyncio.run(scenario())


def test_a_waiter_that_gives_up_does_not_take_the_look_up_from_the_others(transport: FakeTransport) -> None:
    async def scenario() -> None:
        models = registry(transport)
        first, second = (asyncio.create_task(models.metadata("m", "")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).version == "10"
        assert first.cancelled()

    asyncio.run(scenario())
    assert transport.asked == ["index", "m@10"]
