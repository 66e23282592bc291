"""ONNX files: what is read from them, what is lowered, and what is refused."""

import stat
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from adapter.core.types import TensorMetadata
from adapter.models import onnx_file
from adapter.models.errors import ModelError
from adapter.models.source import Source
from tests.integration.disk import small_disk
from tests.models.onnx_models import FLOAT, double, model, value, weight, write


def read(folder: Path, proto: Any, *keep: str) -> Source:
    return onnx_file.read(write(folder / "in.onnx", proto), keep)


def saved(source: Source, folder: Path) -> Any:
    """The `ModelProto` that the source writes, and that runs."""
    version = folder / "version"
    version.mkdir()
    source.save(version)
    onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    return onnx.load(version / "model.onnx")


def versions(proto: Any) -> tuple[int, dict[str, int]]:
    return proto.ir_version, {used.domain: used.version for used in proto.opset_import}


def test_tensors_and_batch_are_told_by_the_file(tmp_path: Path) -> None:
    source = read(tmp_path, double("batch", 3))
    assert source.platform == "onnxruntime"
    assert source.inputs == (TensorMetadata("x", "FP32", (-1, 3)),)
    assert source.outputs == (TensorMetadata("y", "FP32", (-1, 3)),)
    assert (source.batches, source.notes) == (True, ())
    assert versions(saved(source, tmp_path)) == (8, {"": 17})


def test_newer_versions_are_lowered(tmp_path: Path) -> None:
    source = read(tmp_path, double("batch", 3, opset=21, ir_version=10))
    assert source.notes == (
        "opset 21 (at most 17), IR version 10 (at most 8): lowered, so that older Tritons take it, too",
    )
    assert versions(saved(source, tmp_path)) == (8, {"": 17})


def test_what_cannot_be_lowered_stays_as_it_is(tmp_path: Path) -> None:
    source = read(tmp_path, double("batch", 3, op="Gelu", opset=20, ir_version=9))
    (note,) = source.notes
    told, _, why = note.partition(", and it cannot be lowered: ")
    assert told == "opset 20 (at most 17), IR version 9 (at most 8): older Tritons may refuse it"
    assert "Gelu" in why
    assert versions(saved(source, tmp_path)) == (9, {"": 20})


def test_other_domains_than_the_main_one_are_not_lowered(tmp_path: Path) -> None:
    node = helper.make_node("Binarizer", ["x"], ["y"], domain="ai.onnx.ml")
    proto = model([node], [value("x", None, 2)], [value("y", None, 2)], ai_onnx_ml=4)
    source = read(tmp_path, proto)
    assert source.notes == (
        "opset 4 of ai.onnx.ml (at most 3): older Tritons may refuse it, and it cannot be lowered: "
        "opset 4 of ai.onnx.ml (at most 3) stays",
    )
    assert versions(saved(source, tmp_path)) == (8, {"": 17, "ai.onnx.ml": 4})


def test_a_lowered_model_that_answers_otherwise_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = double("batch", 3, op="Relu")
    monkeypatch.setattr("onnx.version_converter.convert_version", lambda *_: wrong)
    source = read(tmp_path, double("batch", 3, opset=18))
    assert source.notes[0].endswith("it cannot be lowered: lowered, it answers otherwise")
    assert versions(saved(source, tmp_path)) == (8, {"": 18})


def reduced(*shape: int | str | None) -> Any:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    return model([node], [value("x", "n", 3)], [value("y", *shape)])


def fixed() -> Any:
    """Declared with a first axis of any size, which its Reshape does not take."""
    shape = onnx.numpy_helper.from_array(np.array([1, 3]), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    return model([node], [value("x", "n", 3)], [value("y", "n", 3)], weights=[shape])


@pytest.mark.parametrize(
    ("proto", "note"),
    [
        (
            double(1, 3),
            "it does not batch, as the first axis of its tensors is 1: export it with one of any ",
        ),
        (double(), None),
        (reduced(None, 1), "it is taken not to batch, as it answers two rows with 1; "),
        (fixed(), "it is taken not to batch, as it fails on two rows ("),
        (
            model(
                [helper.make_node("MatMul", ["a", "b"], ["y"])],
                [value("a", "batch", 3), value("b", "other", 3, 1)],
                [value("y", "other", "batch", 1)],
            ),
            "it is taken not to batch, as the first axes of its inputs have different names (batch, other); ",
        ),
    ],
)
def test_not_every_first_axis_is_a_batch(tmp_path: Path, proto: Any, note: str | None) -> None:
    source = read(tmp_path, proto)
    assert not source.batches
    if note is None:
        assert source.notes == ()
    else:
        (told,) = source.notes
        assert told.startswith(note)
        assert told.endswith("--max-batch-size says otherwise" if "taken" in note else "requests are joined")


def test_an_output_that_keeps_the_others_from_batching_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=1),
    ]
    proto = model(nodes, [value("x", "n", 2)], [value("y", "n", 2), value("sum", 1, 1)])
    source = read(tmp_path, proto)
    assert (source.batches, source.notes) == (
        False,
        (
            "it does not batch, as 'sum' has another first axis, its shape is [1, 1]: "
            "--output names the outputs to keep",
        ),
    )
    kept = read(tmp_path, proto, "y")
    assert (kept.batches, kept.notes) == (True, ())


def test_only_the_outputs_that_are_wanted_are_kept(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    proto = model(nodes, [value("x", None, 2)], [value("y", None, 2), value("z", None, 2)])
    source = read(tmp_path, proto, "z")
    assert [output.name for output in source.outputs] == ["z"]
    assert [output.name for output in saved(source, tmp_path).graph.output] == ["z"]
    with pytest.raises(ModelError, match=r"^the model has no output 'w', it has y, z$"):
        read(tmp_path, proto, "w")


def test_weights_beside_the_file_come_along(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    proto = model([node], [value("x", None, 2048)], [value("y", None, 2048)], weights=[weight("w", 2048)])
    path = tmp_path / "in.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="elsewhere.bin")
    source = onnx_file.read(path)
    (tmp_path / "elsewhere.bin").unlink()
    saved(source, tmp_path)
    written = sorted((tmp_path / "version").iterdir())
    assert [file.name for file in written] == ["model.onnx", "model.onnx.data"]
    # Triton may run as another user than the one who added the model.
    assert {stat.S_IMODE(file.stat().st_mode) for file in written} == {stat.S_IMODE(path.stat().st_mode)}


def test_small_weights_beside_the_file_are_taken_into_it(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    proto = model([node], [value("x", None, 2)], [value("y", None, 2)], weights=[weight("w", 2)])
    path = tmp_path / "in.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size == 8
    saved(onnx_file.read(path), tmp_path)
    assert [file.name for file in (tmp_path / "version").iterdir()] == ["model.onnx"]


def test_a_full_disk_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    proto = model(
        nodes, [value("x", "n", 1 << 18)], [value("y", "n", 1 << 18)], weights=[weight("w", 1 << 18)]
    )
    with small_disk(tmp_path / "disk", "256k") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        with pytest.raises(ModelError) as caught:
            read(tmp_path, proto)
        assert str(caught.value).startswith(f"{disk}: cannot be written, TMPDIR names another: No space left")
        assert list(disk.iterdir()) == []


def test_weights_outside_the_files_folder_are_not_read(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    proto = model([node], [value("x", None, 2048)], [value("y", None, 2048)], weights=[weight("w", 2048)])
    path = tmp_path / "deep" / "in.onnx"
    path.parent.mkdir()
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin")
    (path.parent / "weights.bin").rename(tmp_path / "secret")
    entry = onnx.load(path, load_external_data=False)
    entry.graph.initializer[0].external_data[0].value = "../secret"
    path.write_bytes(entry.SerializeToString())
    with pytest.raises(ModelError, match="is no ONNX model"):
        onnx_file.read(path)


def sequence() -> Any:
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    output = helper.make_tensor_sequence_value_info("y", FLOAT, None)
    return model([node], [value("x", None, 2)], [output])


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (
            sequence(),
            "the output 'y' is a sequence, and Triton carries tensors alone; export the model without it, or "
            "name the outputs to keep with --output",
        ),
        (
            model(
                [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)],
                [value("x", None, 2)],
                [value("y", None, 2, kind=TensorProto.BFLOAT16)],
            ),
            "the output 'y' is BFLOAT16, which Triton's ONNX backend cannot carry",
        ),
        (
            model([helper.make_node("Constant", [], ["y"], value_float=1.0)], [], [value("y")]),
            "the model has no inputs, and Triton serves none without",
        ),
    ],
)
def test_what_triton_cannot_carry_is_refused(tmp_path: Path, proto: Any, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(tmp_path, proto)
    assert str(caught.value) == message


def test_a_model_that_onnx_runtime_does_not_know_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Mystery", ["x"], ["y"], domain="my.own")
    proto = model([node], [value("x", None, 2)], [value("y", None, 2)], my_own=1)
    with pytest.raises(ModelError, match=r"^ONNX Runtime cannot run the model: .*my\.own"):
        read(tmp_path, proto)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08", b"PK\x03\x04"])
def test_another_file_is_told_from_a_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "in.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"^{path}: is no ONNX model: "):
        onnx_file.read(path)
