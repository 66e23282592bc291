"""Tensors to Triton and back: as bytes over gRPC, in system shared memory, in CUDA shared memory."""

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import shared_memory

from tests.integration.conftest import start_up
from tests.models.generate import Tensor, write_model

SIZES = (65_536, 1_048_576, 16_777_216, 104_857_600)
SECONDS = 1.5
RESIDENT = 'parameters [{ key: "FORCE_CPU_ONLY_INPUT_TENSORS" value: { string_value: "no" } }]\n'

Array = NDArray[np.float32]
Transfer = Callable[[Array], Array]


def write_identity(repository: Path, kind: str) -> None:
    """An identity whose tensors stay where they are: on a GPU instance, on the GPU."""
    target = repository / f"identity-{kind.lower()}"
    tensors = [Tensor("INPUT0", "FP32", (-1,))], [Tensor("OUTPUT0", "FP32", (-1,))]
    write_model(target, "echo.py", 0, *tensors, RESIDENT if kind == "GPU" else "")
    config = target / "config.pbtxt"
    config.write_text(config.read_text().replace("KIND_CPU", f"KIND_{kind}"))


def over_grpc(client: Any, model: str, elements: int) -> Transfer:
    """The tensor inside the messages."""

    def transfer(array: Array) -> Array:
        tensor = triton.InferInput("INPUT0", [elements], "FP32")
        tensor.set_data_from_numpy(array)
        answer: Array = client.infer(model, [tensor]).as_numpy("OUTPUT0")
        return answer

    return transfer


def regions(stack: ExitStack, client: Any, module: ModuleType, size: int) -> tuple[Any, Any]:
    """Two regions that Triton knows until it ends, to write into and to read from.

    They stay registered: Triton still holds a region for a moment after the answer that used it.
    """
    handles = []
    for name in (f"in-{module.__name__}-{size}", f"out-{module.__name__}-{size}"):
        if module is shared_memory:
            handle = module.create_shared_memory_region(name, f"/{name}", size)
            client.register_system_shared_memory(name, f"/{name}", size)
        else:
            handle = module.create_shared_memory_region(name, size, 0)
            client.register_cuda_shared_memory(name, module.get_raw_handle(handle), 0, size)
        stack.callback(module.destroy_shared_memory_region, handle)
        handles.append(handle)
    return handles[0], handles[1]


def over_regions(
    client: Any, model: str, elements: int, module: ModuleType, pair: tuple[Any, Any]
) -> Transfer:
    """The tensor written into one region by the client and read from the other, both copies counted."""

    def transfer(array: Array) -> Array:
        module.set_shared_memory_region(pair[0], [array])
        tensor = triton.InferInput("INPUT0", [elements], "FP32")
        tensor.set_shared_memory(f"in-{module.__name__}-{array.nbytes}", array.nbytes)
        wanted = triton.InferRequestedOutput("OUTPUT0")
        wanted.set_shared_memory(f"out-{module.__name__}-{array.nbytes}", array.nbytes)
        client.infer(model, [tensor], outputs=[wanted])
        return np.array(module.get_contents_as_numpy(pair[1], np.float32, [elements]))

    return transfer


def timed(transfer: Transfer, array: Array) -> dict[str, float]:
    """One draw in milliseconds, after a call whose answer is compared."""
    if not np.array_equal(transfer(array), array):
        raise RuntimeError("the identity answered something else")
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(taken) < 5:
        begin = time.perf_counter()
        transfer(array)
        taken.append((time.perf_counter() - begin) * 1000)
    return {"p50": float(np.percentile(taken, 50)), "p99": float(np.percentile(taken, 99))}


def measure(folder: Path, kinds: tuple[str, ...], draws: int) -> list[dict[str, Any]]:
    """Every way of every size by turns, on an identity of each kind; medians of the draws."""
    ways: dict[str, ModuleType | None] = {"gRPC": None, "system": shared_memory}
    if "GPU" in kinds:
        from tritonclient.utils import cuda_shared_memory

        ways["CUDA"] = cuda_shared_memory
    repository = folder / "models"
    for kind in kinds:
        write_identity(repository, kind)
    generator = np.random.default_rng(0)
    drawn: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    with ExitStack() as stack:
        up = stack.enter_context(start_up(folder, repository))
        client = stack.enter_context(triton.InferenceServerClient(up.facts["triton_grpc"]))
        pairs = {
            (size, way): regions(stack, client, module, size)
            for size, (way, module) in product(SIZES, ways.items())
            if module is not None
        }
        for _, kind, size in product(range(draws), kinds, SIZES):
            array, model = generator.random(size // 4, np.float32), f"identity-{kind.lower()}"
            for way, module in ways.items():
                if module is None:
                    transfer = over_grpc(client, model, array.size)
                else:
                    transfer = over_regions(client, model, array.size, module, pairs[size, way])
                drawn.setdefault((kind, size, way), []).append(timed(transfer, array))
    return [
        {"kind": kind, "size": size, "way": way}
        | {figure: statistics.median(seen[figure] for seen in each) for figure in each[0]}
        | {"p50s": [seen["p50"] for seen in each]}
        for (kind, size, way), each in drawn.items()
    ]
