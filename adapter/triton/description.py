"""A model's configuration as Triton has it → what the adapter says of the model.

The adapter's own parameters stand in the configuration as `miaas.<key>`, each a JSON document:

| `feature_names` | list | names along the last axis of the only input |
| `labels` | object | label → version |
| `deprecated_versions` | object, or list | version → the day since when; a list says no days |
| `sunset` | object | version → the day from which it may be gone |
| `batch_calls` | integer | see `ModelMetadata` |

Days are ISO 8601; the version "*" is all of them.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from tritonclient.grpc import model_config_pb2 as model_config

from adapter.core.types import ModelMetadata, TensorMetadata

PREFIX = "miaas."
PARAMETERS = frozenset({"feature_names", "labels", "deprecated_versions", "sunset", "batch_calls"})

_LONG_AGO = date(1970, 1, 1)
"""Since when a version is deprecated of which no day is known."""

_FRAMEWORKS = {
    "onnxruntime": "onnx",
    "tensorflow": "tensorflow",
    "pytorch": "pytorch",
    "tensorrt": "tensorrt",
    "openvino": "openvino",
    "python": "python",
    "fil": "forest",
    "dali": "dali",
    "vllm": "vllm",
    "tensorrtllm": "tensorrt-llm",
}


def describe(config: Any, version: str, versions: tuple[str, ...]) -> tuple[ModelMetadata, Mapping[str, str]]:
    """Triton's `ModelConfig` protobuf → one version of the model, and why which parameter counts for nothing.

    `versions` are all that are served, ascending.
    """
    inputs = tuple(_tensor(config, tensor, optional=tensor.optional) for tensor in config.input)
    parameters = _Parameters(config)
    metadata = ModelMetadata(
        name=config.name,
        version=version,
        versions=versions,
        platform=config.platform or config.backend,
        framework=_framework(config),
        max_batch_size=config.max_batch_size,
        inputs=inputs,
        outputs=tuple(_tensor(config, tensor) for tensor in config.output),
        feature_names=parameters.features(inputs),
        labels={label: str(target) for label, target in (parameters.json("labels", dict) or {}).items()},
        deprecated_since=parameters.deprecated_since(),
        sunset=parameters.days("sunset", parameters.json("sunset", dict) or {}),
        batch_calls=parameters.batch_calls(),
    )
    return metadata, parameters.ignored


def _tensor(config: Any, tensor: Any, *, optional: bool = False) -> TensorMetadata:
    datatype = model_config.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    batch = (-1,) if config.max_batch_size > 0 else ()
    shape = batch + tuple(tensor.dims)
    return TensorMetadata(tensor.name, "BYTES" if datatype == "STRING" else datatype, shape, optional)


def _framework(config: Any) -> str:
    """MIaaS's `framework`: what the model was made with, by the backend that runs it."""
    if config.HasField("ensemble_scheduling"):
        return "ensemble"
    backend = config.backend or config.platform.partition("_")[0]
    return str(_FRAMEWORKS.get(backend, backend))


class _Parameters:
    """The adapter's own parameters; `ignored` tells of those that cannot be meant, and why."""

    def __init__(self, config: Any) -> None:
        self._batch_axes = int(config.max_batch_size > 0)
        self._alone = config.HasField("sequence_batching") or config.model_transaction_policy.decoupled
        self._values: Mapping[str, Any] = config.parameters
        self.ignored: dict[str, str] = {}

    def json(self, key: str, *kinds: type[Any]) -> Any:
        """The parameter's value; None when it is missing or of no such kind."""
        full = PREFIX + key
        if full not in self._values:
            return None
        try:
            value = json.loads(self._values[full].string_value)
        except ValueError:
            value = None
        # To Python a bool is an integer.
        if isinstance(value, kinds) and not isinstance(value, bool):
            return value
        expected = " or ".join(_JSON_KINDS[kind] for kind in kinds)
        self.ignored[full] = f"expected a JSON {expected} as its string_value"
        return None

    def features(self, inputs: Sequence[TensorMetadata]) -> tuple[str, ...]:
        """Names for the places along the last axis of the only input, if they can be that."""
        names = self.json("feature_names", list)
        if not names:
            return ()
        dims = inputs[0].shape[self._batch_axes :] if len(inputs) == 1 else ()
        reason = ""
        if len(inputs) != 1:
            reason = f"names the features of one input, and the model has {len(inputs)}"
        elif dims[-1:] not in ((len(names),), (-1,)):
            reason = f"{len(names)} names for the input {inputs[0].name!r} of shape {list(inputs[0].shape)}"
        elif not all(type(name) is str for name in names) or len(set(names)) != len(names):
            reason = "expected strings that differ"
        elif inputs[0].name in names:
            reason = f"a feature has the name of the input, {inputs[0].name!r}"
        if reason:
            self.ignored[f"{PREFIX}feature_names"] = reason
            return ()
        return tuple(names)

    def batch_calls(self) -> int | None:
        """Calls in flight above which requests are joined; 0, never, where requests form a sequence."""
        if self._alone:
            return 0
        calls = self.json("batch_calls", int)
        return None if calls is None else max(0, calls)

    def deprecated_since(self) -> dict[str, date]:
        """Which versions are on their way out, and since when."""
        value = self.json("deprecated_versions", dict, list) or {}
        if isinstance(value, list):
            return dict.fromkeys(map(str, value), _LONG_AGO)
        return self.days("deprecated_versions", value)

    def days(self, key: str, value: Mapping[str, Any]) -> dict[str, date]:
        """A parameter that maps versions to days; what is no day is left out."""
        days: dict[str, date] = {}
        for version, day in value.items():
            try:
                days[version] = date.fromisoformat(day)
            except (TypeError, ValueError):
                self.ignored[PREFIX + key] = f"{day!r} of version {version} is no day like 2027-06-30"
        return days


_JSON_KINDS = {dict: "object", list: "array", int: "integer"}
