"""Any model file → a Source, by the ending of its name. What reads it is imported when it is needed."""

from collections.abc import Sequence
from pathlib import Path

from adapter.models.errors import ModelError
from adapter.models.source import Source, read_spec

_KINDS = ".onnx, .joblib or .pkl (scikit-learn), .pt (TorchScript), .pt2 (torch.export)"


def read(
    path: Path, inputs: Sequence[str] = (), outputs: Sequence[str] = (), *, trust_pickle: bool = False
) -> Source:
    """The model in an ONNX, scikit-learn, TorchScript or PyTorch-exported file.

    `inputs` are `NAME:DATATYPE:SHAPE`; so are the `outputs` of TorchScript, for the others they name those to
    keep. Raises ModelError; ImportError when a package is missing.
    """
    if not path.is_file():
        what = "is no file" if path.exists() else "there is no such file"
        raise ModelError(f"{path}: {what}; expected one of {_KINDS}")
    specs = [read_spec(text) for text in inputs]
    match path.suffix.lower():
        case ".onnx":
            from adapter.models import onnx_file

            _no_inputs(path, inputs)
            return onnx_file.read(path, outputs)
        case ".joblib" | ".pkl" | ".pickle":
            _trusted(path, trust_pickle)
            from adapter.models import sklearn_file

            return sklearn_file.read(path, specs, outputs)
        case ".pt":
            from adapter.models import torch_file

            return torch_file.read_torchscript(path, specs, [read_spec(text) for text in outputs])
        case ".pt2":
            _trusted(path, trust_pickle)
            _no_inputs(path, inputs)
            from adapter.models import torch_file

            return torch_file.read_exported(path, outputs)
        case _:
            raise ModelError(f"{path}: expected one of {_KINDS}")


def _trusted(path: Path, trusted: bool) -> None:
    if not trusted:
        raise ModelError(
            f"{path} is opened with pickle, which runs whatever code the file holds; "
            "if you made it, or trust who did, say --trust-pickle"
        )


def _no_inputs(path: Path, inputs: Sequence[str]) -> None:
    if inputs:
        raise ModelError(f"{path}: the file itself tells its inputs; leave out --input")
