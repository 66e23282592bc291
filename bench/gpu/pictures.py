"""The preprocessing of pictures: what decoding costs, and what scaling costs on the CPU and on a GPU."""

import importlib.util
import io
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from tests.integration.conftest import ROOT

SIZES = ((600, 400), (1920, 1280), (4032, 2688))
REPEATS = 15


def photograph(size: tuple[int, int] | None = None) -> bytes:
    """A cup of coffee as JPEG, enlarged where a size is given."""
    image, file = Image.fromarray(skimage.data.coffee()), io.BytesIO()  # type: ignore[no-untyped-call]
    (image.resize(size, Image.Resampling.BICUBIC) if size else image).save(file, "JPEG", quality=90)
    return file.getvalue()


@cache
def preprocessing() -> Any:
    """The module of the demo's preprocessing model; what it needs of Triton to run there is not used."""
    name = "triton_python_backend_utils"
    sys.modules.setdefault(name, ModuleType(name))
    spec = importlib.util.spec_from_file_location(
        "imagenet_preprocess", ROOT / "model_repository/imagenet-preprocess/1/model.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bicubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pillow's kernel, which is that of a = -0.5."""
    x = np.abs(distance)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def weights(size: int, start: float, length: float, out: int) -> NDArray[np.float32]:
    """The matrix that scales `length` of `size` points, from `start`, to `out`, as Pillow does."""
    scale = length / out
    centres = start + (np.arange(out) + 0.5) * scale
    matrix = bicubic((np.arange(size) + 0.5 - centres[:, np.newaxis]) / max(scale, 1))
    scaled: NDArray[np.float32] = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def to_pixels(image: Image.Image, xp: Any) -> Any:
    """The demo's `to_pixels` as two products of matrices, for numpy or cupy; the answer stays there."""
    prepare = preprocessing()
    crop = min(image.size) * prepare.SIDE / prepare.SCALED
    across, down = (xp.asarray(weights(size, (size - crop) / 2, crop, prepare.SIDE)) for size in image.size)
    planes = xp.asarray(np.asarray(image)).transpose(2, 0, 1).astype(np.float32)
    scaled = xp.rint(xp.clip(down @ planes @ across.T, 0, 255))
    return (scaled - 127) / 128


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that `work` takes, the median after a warm-up."""
    taken = []
    for _ in range(REPEATS + 2):
        begin = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begin) * 1000)
    return statistics.median(taken[2:])


def measure(_folder: Path, kinds: tuple[str, ...], _draws: int) -> list[dict[str, Any]]:
    """Decoding, then scaling by Pillow and on the GPU, uploads and the download of the tensor included."""
    return [compare(size, "GPU" in kinds) for size in SIZES]


def compare(size: tuple[int, int], gpu: bool) -> dict[str, Any]:
    """One size of picture: milliseconds, and how far the other way's tensor is from Pillow's on the mean."""
    prepare, jpeg = preprocessing(), photograph(size)
    image = prepare.read_image(jpeg)
    expected = prepare.to_pixels(image)
    row: dict[str, Any] = {
        "size": list(size),
        "decode": timed(lambda: prepare.read_image(jpeg)),
        "pillow": timed(lambda: prepare.to_pixels(image)),
        "difference": float(np.abs(to_pixels(image, np) - expected).mean()),
    }
    if gpu:
        import cupy

        row["gpu"] = timed(lambda: to_pixels(image, cupy).get())
        row["difference"] = float(np.abs(to_pixels(image, cupy).get() - expected).mean())
    return row
