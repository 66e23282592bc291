"""What `models add` and `models deprecate` write into a repository, and what they refuse to."""

import os
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from adapter.core.types import TensorMetadata
from adapter.models.adding import Options, add
from adapter.models.deprecation import ALL, deprecate, undo
from adapter.models.errors import ModelError
from adapter.models.repository import Entry
from adapter.models.source import Source, variable_first_axes
from adapter.triton.description import describe
from tests.models.onnx_models import double, write

X, Y = TensorMetadata("x", "FP32", (-1, 4)), TensorMetadata("y", "FP32", (-1, 3))
TODAY = date(2026, 11, 21)


def source(
    *tensors: TensorMetadata,
    content: str = "one",
    features: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
) -> Source:
    """A model with one input, the others its outputs."""
    first, *others = tensors or (X, Y)

    def save(folder: Path) -> None:
        (folder / "model.onnx").write_text(content)

    batches = variable_first_axes(first, *others)
    return Source("onnxruntime", (first,), tuple(others), save, batches, features, labels)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refused(
    repository: Path, model: Source, options: Options | None = None, name: str = "m", **how: Any
) -> str:
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    with pytest.raises(ModelError) as caught:
        add(repository, name, model, options or Options(), **how)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
    assert list(repository.rglob(".*")) == []
    return str(caught.value).replace(f"{repository}/", "")


def test_a_new_model(tmp_path: Path) -> None:
    repository = tmp_path / "deep" / "models"
    options = Options(feature_names=("a", "b", "c", "d"), labels=("red", "green", "blue"), warmup=True)
    entry, version = add(repository, "m", source(), options)
    assert (entry.name, version) == ("m", "1")
    assert tree(repository) == ["m/1/model.onnx", "m/config.pbtxt", "m/labels.txt"]
    assert (entry.folder / "labels.txt").read_text() == "red\ngreen\nblue\n"
    assert entry.config_path.read_text() == (
        'backend: "onnxruntime"\n'
        "version_policy { all { } }\n"
        "max_batch_size: 64\n"
        'input { name: "x" data_type: TYPE_FP32 dims: [4] }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: [3] label_filename: "labels.txt" }\n'
        "instance_group { count: 1 }\n"
        "dynamic_batching { }\n"
        'parameters { key: "miaas.feature_names" value '
        '{ string_value: "[\\"a\\", \\"b\\", \\"c\\", \\"d\\"]" } }\n'
        'model_warmup { name: "zeros" batch_size: 1 inputs { key: "x" value '
        "{ data_type: TYPE_FP32 dims: [4] zero_data: true } } }\n"
    )


def test_what_others_may_read_they_still_may(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        entry, _ = add(tmp_path, "m", source(), Options())
    finally:
        os.umask(old)
    modes = {path.stat().st_mode & 0o777 for path in (entry.folder, *entry.folder.rglob("*"))}
    assert modes == {0o755, 0o644}


def test_a_model_that_does_not_batch(tmp_path: Path) -> None:
    x, n = TensorMetadata("x", "BYTES", (1, 2)), TensorMetadata("n", "INT64", (1,))
    entry, _ = add(tmp_path, "m", source(x, n), Options())
    assert entry.config_path.read_text() == (
        'backend: "onnxruntime"\n'
        "version_policy { all { } }\n"
        'input { name: "x" data_type: TYPE_STRING dims: [1, 2] }\n'
        'output { name: "n" data_type: TYPE_INT64 dims: [1] }\n'
        "instance_group { count: 1 }\n"
    )


def test_a_tensor_without_axes_that_no_triton_would_load(tmp_path: Path) -> None:
    scalar = TensorMetadata("s", "FP32", ())
    for tensors in ((scalar, Y), (X, scalar)):
        message = refused(tmp_path, source(*tensors))
        assert message.startswith("'s' is a tensor without axes, which Triton takes of no model ")


def test_batching_can_be_said(tmp_path: Path) -> None:
    assert (
        Entry(add(tmp_path, "a", source(), Options(max_batch_size=0))[0].folder).config().max_batch_size == 0
    )
    config = add(tmp_path, "b", source(), Options(max_batch_size=1))[0].config()
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (1, False)
    fixed = source(X, TensorMetadata("y", "FP32", (1, 3)))
    assert refused(tmp_path, fixed, Options(max_batch_size=8)) == (
        "the model does not batch: the first axis of 'y' is not of any size, its shape is [1, 3]; export it "
        "with a dynamic first axis, or leave out --max-batch-size"
    )


def test_the_next_version_stands_beside_the_others(tmp_path: Path) -> None:
    add(tmp_path, "m", source(), Options())
    before = (tmp_path / "m" / "config.pbtxt").read_text()
    assert add(tmp_path, "m", source(content="two"), Options())[1] == "2"
    assert add(tmp_path, "m", source(content="ten"), Options(), 10)[1] == "10"
    entry, version = add(tmp_path, "m", source(content="eleven"), Options())
    assert version == "11"
    assert entry.versions() == entry.served() == ["1", "2", "10", "11"]
    assert [(entry.folder / v / "model.onnx").read_text() for v in entry.versions()] == [
        "one",
        "two",
        "ten",
        "eleven",
    ]
    assert entry.config_path.read_text() == before


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    add(tmp_path, "m", source(), Options())
    add(tmp_path, "m", source(), Options())
    assert refused(tmp_path, source(content="new"), version=1) == (
        "m@1 is there: --force replaces it, another --version stands beside it"
    )
    _, version = add(tmp_path, "m", source(content="forced"), Options(), 1, force=True)
    assert (version, (tmp_path / "m/1/model.onnx").read_text()) == ("1", "forced")
    # Without a version it is the latest.
    _, version = add(tmp_path, "m", source(content="latest"), Options(warmup=True), force=True)
    assert (version, (tmp_path / "m/2/model.onnx").read_text()) == ("2", "latest")
    assert tree(tmp_path) == ["m/1/model.onnx", "m/2/model.onnx", "m/config.pbtxt"]
    assert "model_warmup" in (tmp_path / "m/config.pbtxt").read_text()


def test_what_is_said_of_versions_outlives_force(tmp_path: Path) -> None:
    entry, _ = add(tmp_path, "m", source(), Options(feature_names=("a", "b", "c", "d")))
    deprecate(entry, "1", TODAY, None)
    wider = TensorMetadata("x", "FP32", (-1, 5))
    add(tmp_path, "m", source(wider, Y), Options(), force=True)
    metadata, ignored = describe(entry.config(), "1", ("1",))
    assert (metadata.deprecated_since, metadata.feature_names, ignored) == ({"1": TODAY}, (), {})


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (
            source(TensorMetadata("x", "FP32", (-1, 5)), Y),
            "input 'x': shape [-1, 4], and the model has [-1, 5]",
        ),
        (
            source(TensorMetadata("x", "FP64", (-1, 4)), Y),
            "input 'x': TYPE_FP32, and the model has TYPE_FP64",
        ),
        (
            source(TensorMetadata("z", "FP32", (-1, 4)), Y),
            "the model has no input 'x', it has z; the model's input 'z' is missing",
        ),
        (source(X, TensorMetadata("z", "FP32", (-1, 3))), "the model has no output 'y', it has z"),
        (
            source(X, TensorMetadata("y", "FP32", (1, 3))),
            "output 'y': shape [-1, 3], and the model has [1, 3]",
        ),
        (source(X, TensorMetadata("y", "FP32", (-1,))), "output 'y': shape [-1, 3], and the model has [-1]"),
        (source(features=("b", "a", "c", "d")), "its features are b, a, c, d"),
        (
            Source("pytorch_libtorch", (X,), (Y,), lambda _: None, True),
            "it runs on pytorch_libtorch, and the others on onnxruntime",
        ),
    ],
)
def test_a_version_has_to_fit_the_configuration(tmp_path: Path, other: Source, why: str) -> None:
    add(tmp_path, "m", source(), Options(feature_names=("a", "b", "c", "d")))
    assert refused(tmp_path, other) == (
        f"it does not fit m/config.pbtxt: {why}; "
        "give it another --name, or --force writes the configuration anew"
    )


def test_a_version_may_give_more_than_is_wanted(tmp_path: Path) -> None:
    add(tmp_path, "m", source(), Options())
    more = source(TensorMetadata("x", "FP32", (-1, -1)), Y, TensorMetadata("z", "FP32", (-1, 1)))
    assert add(tmp_path, "m", more, Options())[1] == "2"


def test_options_are_for_the_configuration_that_is_written(tmp_path: Path) -> None:
    add(tmp_path, "m", source(), Options())
    assert refused(tmp_path, source(), Options(warmup=True)) == (
        "m/config.pbtxt is there and holds for every version: change it by hand, or --force writes it anew"
    )


def test_a_folder_without_a_configuration_gets_one(tmp_path: Path) -> None:
    (tmp_path / "m" / "3").mkdir(parents=True)
    (tmp_path / "m" / "3" / "model.onnx").touch()
    entry, version = add(tmp_path, "m", source(), Options())
    assert (version, entry.served()) == ("4", ["3", "4"])


@pytest.mark.parametrize("configured", [True, False])
def test_versions_that_stay_are_not_broken(tmp_path: Path, configured: bool) -> None:
    write(tmp_path / "m" / "1" / "model.onnx", double("n", 2))
    other = source(TensorMetadata("x", "FP32", (-1, 3)), TensorMetadata("y", "FP32", (-1, 2)))
    if configured:
        x, y = TensorMetadata("x", "FP32", (-1, 2)), TensorMetadata("y", "FP32", (-1, 2))
        add(tmp_path, "m", source(x, y), Options(), 2)
    assert refused(tmp_path, other, force=configured) == (
        "its configuration does not hold for versions that are there: version 1: input 'x': shape [-1, 3], "
        "and the model has [-1, 2]; give it another --name, or remove these versions from m"
    )
    elsewhere = refused(tmp_path, replace(other, platform="pytorch_libtorch"), force=True, version=9)
    assert "it runs on pytorch, and they on onnxruntime; " in elsewhere
    # What is replaced does not stay.
    (tmp_path / "m" / "1" / "model.onnx").write_text("broken")
    add(tmp_path, "m", other, Options(), force=True)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * 129])
def test_names_that_no_model_can_have(tmp_path: Path, name: str) -> None:
    message = refused(tmp_path, source(), name=name)
    assert message.endswith("is no name for a model: its name must be of letters, digits, '.', '_' and '-'")


def test_a_name_that_would_be_passed_over(tmp_path: Path) -> None:
    assert refused(tmp_path, source(), name=".hidden") == (
        "'.hidden' is no name for a model: folders that begin with a dot are passed over"
    )


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    assert refused(tmp_path, source()) == "m: is no folder"
    assert refused(tmp_path / "m", source()) == f"{tmp_path / 'm'}: is no folder"


def test_a_repository_that_cannot_be_written() -> None:
    with pytest.raises(ModelError, match=r"^/proc/none/m: cannot be written: No such file or directory$"):
        add(Path("/proc/none"), "m", source(), Options())


def test_a_version_that_came_meanwhile_stays(tmp_path: Path) -> None:
    add(tmp_path, "m", source(), Options())
    late = source(content="late")

    def save(folder: Path) -> None:
        add(tmp_path, "m", source(content="first"), Options())
        late.save(folder)

    with pytest.raises(ModelError, match="cannot be written: Directory not empty"):
        add(tmp_path, "m", replace(late, save=save), Options())
    assert tree(tmp_path) == ["m/1/model.onnx", "m/2/model.onnx", "m/config.pbtxt"]
    assert (tmp_path / "m" / "2" / "model.onnx").read_text() == "first"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            Options(feature_names=("a", "b")),
            "the feature names do not fit: 2 names for the input 'x' of shape [-1, 4]",
        ),
        (
            Options(feature_names=("a", "a", "b", "c")),
            "the feature names do not fit: expected strings that differ",
        ),
        (
            Options(labels=("a", "b")),
            "2 labels, and not one output with so many values (y [3])",
        ),
    ],
)
def test_names_that_do_not_fit(tmp_path: Path, options: Options, message: str) -> None:
    assert refused(tmp_path, source(), options) == message


def test_labels_of_the_file_are_left_out_where_no_output_has_them(tmp_path: Path) -> None:
    add(tmp_path, "m", source(labels=("a", "b")), Options())
    assert tree(tmp_path) == ["m/1/model.onnx", "m/config.pbtxt"]


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path) -> None:
    def save(folder: Path) -> None:
        (folder / "model.onnx").touch()
        raise OSError(28, "No space left on device")

    broken = Source("onnxruntime", (X,), (Y,), save, batches=True)
    assert refused(tmp_path, broken).endswith(": No space left on device")
    add(tmp_path, "m", source(), Options())
    assert refused(tmp_path, broken).endswith(": No space left on device")
    assert refused(tmp_path, broken, version=1, force=True).endswith(": No space left on device")


def test_a_configuration_that_cannot_be_read_is_told_with_its_place(tmp_path: Path) -> None:
    entry, _ = add(tmp_path, "m", source(), Options())
    entry.config_path.write_text('backend: "onnxruntime"\nmax_batch_size: many\n')
    assert refused(tmp_path, source()).startswith("m/config.pbtxt:2:17: ")
    entry.config_path.write_text('name: "other"')
    assert refused(tmp_path, source()) == "m/config.pbtxt: the name is 'other', and the folder's is 'm'"


def declared(entry: Entry) -> tuple[dict[str, date], dict[str, date]]:
    metadata, ignored = describe(entry.config(), "1", ("1",))
    assert ignored == {}
    return dict(metadata.deprecated_since), dict(metadata.sunset)


def test_deprecation_is_written_beside_what_an_author_wrote(tmp_path: Path) -> None:
    entry, _ = add(tmp_path, "m", source(), Options())
    add(tmp_path, "m", source(), Options())
    config = entry.config_path
    config.write_text(
        config.read_text()
        + """# Ours, by hand.
parameters [
  { key: "miaas.sunset", value: { string_value: '{"1":"2027-01-01"}' } },  # old
  { key: "other" value: { string_value: "kept" } }
]"""
    )
    deprecate(entry, "1", TODAY, date(2027, 6, 30))
    assert declared(entry) == ({"1": TODAY}, {"1": date(2027, 6, 30)})
    text = config.read_text()
    assert "# Ours, by hand." in text
    assert """{ key: "miaas.sunset", value: { string_value: '{"1": "2027-06-30"}' } },  # old""" in text
    assert text.endswith(
        "]\n"
        'parameters { key: "miaas.deprecated_versions" value '
        """{ string_value: '{"1": "2026-11-21"}' } }\n"""
    )
    deprecate(entry, ALL, TODAY, None)
    assert declared(entry) == ({"1": TODAY, "*": TODAY}, {"1": date(2027, 6, 30)})
    undo(entry, "1")
    assert declared(entry) == ({"*": TODAY}, {})
    with pytest.raises(ModelError, match=r"^m@1 is not deprecated, the whole model is$"):
        undo(entry, "1")
    undo(entry, ALL)
    assert declared(entry) == ({}, {})
    assert re.findall(r"# .*", config.read_text()) == ["# Ours, by hand.", "# old"]
    with pytest.raises(ModelError, match=r"^m is not deprecated$"):
        undo(entry, ALL)


def test_deprecation_in_a_form_that_nobody_foresaw(tmp_path: Path) -> None:
    entry, _ = add(tmp_path, "m", source(), Options())
    with entry.config_path.open("a") as file:
        file.write("parameters <key:'miaas.sunset' value <string_value: '{\"1\"' ':\"2027-01-01\"}'>>\n")
    deprecate(entry, "1", TODAY, date(2027, 6, 30))
    assert declared(entry) == ({"1": TODAY}, {"1": date(2027, 6, 30)})


def test_deprecation_without_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    deprecate(Entry(tmp_path / "m"), "1", TODAY, None)
    assert (tmp_path / "m" / "config.pbtxt").read_text() == (
        """parameters { key: "miaas.deprecated_versions" value { string_value: '{"1": "2026-11-21"}' } }\n"""
    )


def test_deprecation_that_makes_no_sense(tmp_path: Path) -> None:
    entry, _ = add(tmp_path, "m", source(), Options())
    before = entry.config_path.read_text()
    with pytest.raises(ModelError, match=r"m: there is no version 2$"):
        deprecate(entry, "2", TODAY, None)
    with pytest.raises(
        ModelError, match=r"^the sunset, 2026-11-20, is over: the model is deprecated as of 2026-11-21$"
    ):
        deprecate(entry, "1", TODAY, date(2026, 11, 20))
    assert entry.config_path.read_text() == before
