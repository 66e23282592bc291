"""Which file is read how, and what each needs to be told. torch is not there."""

import sys
import zipfile
from pathlib import Path

import pytest

from adapter.core.types import TensorMetadata
from adapter.models import files
from adapter.models.errors import ModelError
from tests.models.onnx_models import double, write

IMAGE, SCORES = "image:FP32:-1,3,224,224", "scores:FP32:-1,1000"


def torchscript(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names or ("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl"):
            archive.writestr(name, "")
    return path


def refusal(path: Path, *inputs: str, outputs: tuple[str, ...] = (), trust_pickle: bool = True) -> str:
    with pytest.raises(ModelError) as caught:
        files.read(path, inputs, outputs, trust_pickle=trust_pickle)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_torchscript_is_taken_as_it_is(tmp_path: Path) -> None:
    path = torchscript(tmp_path / "net.pt")
    source = files.read(path, [IMAGE], [SCORES])
    assert source.platform == "pytorch_libtorch"
    assert source.inputs == (TensorMetadata("image", "FP32", (-1, 3, 224, 224)),)
    assert source.outputs == (TensorMetadata("scores", "FP32", (-1, 1000)),)
    assert source.batches
    (tmp_path / "1").mkdir()
    source.save(tmp_path / "1")
    assert (tmp_path / "1" / "model.pt").read_bytes() == path.read_bytes()


def test_torchscript_has_to_be_told_its_tensors(tmp_path: Path) -> None:
    path = torchscript(tmp_path / "net.pt")
    message = (
        "a TorchScript file does not tell its tensors: name each with --input and --output, as in "
        "--input image:FP32:-1,3,224,224 --output scores:FP32:-1,1000, in the order of forward()"
    )
    assert refusal(path) == message
    assert refusal(path, IMAGE) == message


@pytest.mark.parametrize("names", [("net/data.pkl", "net/version"), ("net/archive_format",)])
def test_weights_are_no_program(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = torchscript(tmp_path / "net.pt", *names)
    assert refusal(path, IMAGE, outputs=(SCORES,)) == (
        "net.pt: is no TorchScript program; torch.save writes weights alone: write the model with "
        "torch.jit.save, or with torch.export.save as a .pt2 file"
    )


@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_what_pytorch_has_not_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"hello")
    assert refusal(tmp_path / name) == f"{name}: is no file of PyTorch: File is not a zip file"


@pytest.mark.parametrize("names", [("net/data.pkl", "net/code/__torch__.py"), ("net/data.pkl", "net/data/0")])
def test_what_torch_has_not_exported(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert refusal(torchscript(tmp_path / "net.pt2", *names)) == (
        "net.pt2: was written by torch.save or torch.jit.save, and not by torch.export.save"
    )


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl", "model.pickle", "model.pt2"])
def test_what_runs_code_is_not_opened_unasked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert refusal(tmp_path / name, trust_pickle=False) == (
        f"{name} is opened with pickle, which runs whatever code the file holds; "
        "if you made it, or trust who did, say --trust-pickle"
    )


def test_without_torch_an_exported_program_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    path = torchscript(tmp_path / "net.pt2", "net/archive_format", "net/models/model.json")
    assert refusal(path) == (
        "a .pt2 file is turned into ONNX by torch: pip install torch onnxscript "
        "(https://pytorch.org says how to get it without CUDA)"
    )


def test_what_tells_its_inputs_takes_no_others(tmp_path: Path) -> None:
    path = write(tmp_path / "x.onnx", double(None, 2))
    assert refusal(path, IMAGE) == "x.onnx: the file itself tells its inputs; leave out --input"


def test_other_files_are_refused(tmp_path: Path) -> None:
    known = "expected one of .onnx, .joblib or .pkl (scikit-learn), .pt (TorchScript), .pt2 (torch.export)"
    (tmp_path / "model.h5").touch()
    assert refusal(tmp_path / "model.h5") == f"model.h5: {known}"
    assert refusal(tmp_path / "none.onnx") == f"none.onnx: there is no such file; {known}"
    (tmp_path / "saved_model").mkdir()
    assert refusal(tmp_path / "saved_model") == f"saved_model: is no file; {known}"


@pytest.mark.parametrize(
    "text",
    ["x", "x:FP32", "x:float:1", "x:FP32:", "x:FP32:a", "x:FP32:0", "x:FP32:-2", ":FP32:1", "x:FP32:1,"],
)
def test_a_tensor_that_is_told_wrongly(tmp_path: Path, text: str) -> None:
    path = torchscript(tmp_path / "net.pt")
    assert refusal(path, text).startswith(f"{text!r}: expected NAME:DATATYPE:SHAPE as in image:FP32:-1,3,")


def test_a_name_may_hold_colons(tmp_path: Path) -> None:
    source = files.read(torchscript(tmp_path / "net.pt"), ["a:0:INT64:2"], ["b:0:BYTES:-1"])
    assert source.inputs == (TensorMetadata("a:0", "INT64", (2,)),)
    assert not source.batches
