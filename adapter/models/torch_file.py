"""PyTorch's files: TorchScript, for Triton's PyTorch backend, and exported programs, by way of ONNX."""

import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from adapter.core.types import TensorMetadata
from adapter.models.errors import ModelError, first_line
from adapter.models.source import Source, variable_first_axes

INSTALL = "pip install torch onnxscript (https://pytorch.org says how to get it without CUDA)"


def read_torchscript(
    path: Path, inputs: Sequence[TensorMetadata], outputs: Sequence[TensorMetadata]
) -> Source:
    """A `torch.jit.save` archive, whose tensors the caller names. Raises ModelError."""
    if "code" not in _members(path):
        raise ModelError(
            f"{path}: is no TorchScript program; torch.save writes weights alone: write the model with "
            "torch.jit.save, or with torch.export.save as a .pt2 file"
        )
    if not inputs or not outputs:
        raise ModelError(
            "a TorchScript file does not tell its tensors: name each with --input and --output, "
            "as in --input image:FP32:-1,3,224,224 --output scores:FP32:-1,1000, in the order of forward()"
        )

    def save(folder: Path) -> None:
        shutil.copyfile(path, folder / "model.pt")

    return Source(
        "pytorch_libtorch",
        tuple(inputs),
        tuple(outputs),
        save,
        variable_first_axes(*inputs, *outputs),
        notes=("it runs on Triton's PyTorch backend, which NVIDIA's container has and `up` has not",),
    )


def read_exported(path: Path, keep: Sequence[str] = ()) -> Source:
    """A `torch.export.save` archive, which torch opens with pickle, and so runs whatever code it holds.

    Raises ModelError.
    """
    if "data.pkl" in _members(path):
        raise ModelError(f"{path}: was written by torch.save or torch.jit.save, and not by torch.export.save")
    try:
        import onnxscript  # noqa: F401 - what torch's exporter is made of
        import torch
    except ImportError as error:
        raise ModelError(f"a .pt2 file is turned into ONNX by torch: {INSTALL}") from error
    from adapter.models import onnx_file

    with tempfile.TemporaryDirectory(prefix="miaas-torch-") as folder:
        exported = Path(folder, onnx_file.MODEL_FILE)
        try:
            # Standard output is the command's own.
            with redirect_stdout(sys.stderr):
                torch.onnx.export(torch.export.load(path), f=exported, dynamo=True, verbose=False)
        except Exception as error:  # torch's errors have no base of their own
            raise ModelError(f"{path}: torch cannot turn it into ONNX: {first_line(error)}") from error
        return onnx_file.read(exported, keep)


def _members(path: Path) -> set[str]:
    """What the one folder of a torch archive, a zip file, holds. Raises ModelError."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {member for name in archive.namelist() for member in name.split("/")[1:2]}
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: is no file of PyTorch: {first_line(error)}") from error
