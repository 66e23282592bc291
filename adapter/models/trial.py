"""Trying models: each served version, loaded by a Triton of its own, answers made-up inputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapter.core.errors import AdapterError, InferenceFailed
from adapter.core.types import InferRequest, InferResponse, ModelMetadata, Parameter
from adapter.core.wire import decode_response, request_parts
from adapter.models.samples import sample_tensor
from adapter.standalone.scratch import scratch_triton
from adapter.triton.description import describe
from adapter.triton.transport import GrpcTransport

TIMEOUT_S = 60.0
_SEQUENCE: dict[str, Parameter] = {"sequence_id": 1, "sequence_start": True, "sequence_end": True}


@dataclass(frozen=True)
class Trial:
    """What became of the models; a version's id is `name@version`."""

    answered: list[str] = field(default_factory=list)
    """Ids of the versions that answered as they are declared."""
    problems: dict[str, str] = field(default_factory=dict)
    """Name or id → what went wrong, one line."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Id → why it was loaded and not asked."""


async def try_models(repository: Path, names: Sequence[str]) -> Trial:
    """Load these models and ask each of their versions once. Raises `StartError` when no Triton runs here."""
    trial = Trial()
    async with scratch_triton(repository, names) as scratch:
        for name, reason in scratch.failed.items():
            trial.problems[name] = f"does not load: {reason}"
        transport = GrpcTransport(scratch.grpc_url)
        try:
            for model in (await transport.repository_index()).models:
                if model.name not in names:
                    continue
                if model.state == "READY":
                    await _try(transport, model.name, model.version, trial)
                else:
                    trial.problems.setdefault(model.name, f"does not load: {model.reason}")
        finally:
            await transport.close()
    return trial


async def _try(transport: GrpcTransport, name: str, version: str, trial: Trial) -> None:
    model_id = f"{name}@{version}"
    config = await transport.model_config(name, version)
    if config.model_transaction_policy.decoupled:
        trial.left_out[model_id] = "decoupled models answer as often as they like: not asked"
        return
    metadata, _ = describe(config, version, (version,))
    # Two rows tell whether the first axis is a batch.
    rows = min(2, metadata.max_batch_size) if metadata.batched else None
    inputs = tuple(sample_tensor(tensor, rows) for tensor in metadata.inputs)
    parameters = _SEQUENCE if config.HasField("sequence_batching") else {}
    request = InferRequest(name, version, inputs, parameters=parameters)
    try:
        answer = await transport.infer(request_parts(request), TIMEOUT_S)
        _check(metadata, decode_response(answer), rows)
    except AdapterError as error:
        asked = ", ".join(f"{tensor.name} {tensor.datatype} {list(tensor.shape)}" for tensor in inputs)
        trial.problems[model_id] = f"asked with {asked}: {error.message.splitlines()[0]}"
    else:
        trial.answered.append(model_id)


def _check(metadata: ModelMetadata, response: InferResponse, rows: int | None) -> None:
    """Raise InferenceFailed for an answer that is not as the model's outputs are declared."""
    given = {tensor.name: tensor for tensor in response.outputs}
    for output in metadata.outputs:
        shape = list(output.shape if rows is None else (rows, *output.shape[1:]))
        tensor = given.get(output.name)
        if tensor is None:
            raise InferenceFailed(f"output {output.name!r} is missing in its answer")
        fits = len(tensor.shape) == len(shape) and all(
            size in (-1, came) for size, came in zip(shape, tensor.shape, strict=True)
        )
        if not fits or tensor.datatype != output.datatype:
            raise InferenceFailed(
                f"output {output.name!r} should be {output.datatype} {shape}, and came as "
                f"{tensor.datatype} {list(tensor.shape)}"
            )
