"""What `models check` finds in configurations and files, with its place."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapter.models import inspection
from adapter.models.check import check
from adapter.models.repository import Entry
from tests.models.onnx_models import double, write

CONFIG = """backend: "onnxruntime"
max_batch_size: 8
version_policy { all {} }
input [{ name: "x" data_type: TYPE_FP32 dims: [2] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [2] }]
"""


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """A model that is right, in two versions."""
    for version in ("1", "2"):
        write(tmp_path / "m" / version / "model.onnx", double("n", 2))
    (tmp_path / "m" / "config.pbtxt").write_text(CONFIG)
    return Entry(tmp_path / "m")


def problems(entry: Entry) -> list[str]:
    found = inspection.problems(entry, [entry.name])
    return [line.replace(f"{entry.folder.parent}/", "") for line in found]


@contextmanager
def without_privileges() -> Iterator[None]:
    """As nobody, where the tests run as root, to whom all is open."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def with_parameter(key: str, value: str) -> str:
    return f"{CONFIG}parameters {{ key: \"miaas.{key}\" value {{ string_value: '{value}' }} }}\n"


def test_a_model_that_is_right(entry: Entry) -> None:
    assert problems(entry) == []
    assert list(inspection.notes(entry)) == []
    assert entry.backend() == "onnxruntime"


@pytest.mark.parametrize("closed", ["m", "m/1", "m/config.pbtxt", "m/1/model.onnx"])
def test_what_cannot_be_read_is_a_problem_of_that_model(
    tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    write(tmp_path / "other" / "1" / "model.onnx", double("n", 2))
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    there = Path(closed)
    before = there.stat().st_mode
    there.chmod(0)
    with without_privileges():
        report = check(Path(), [Entry(Path("m")), Entry(Path("other"))], trial=False)
    there.chmod(before)
    (problem,) = report.problems
    assert problem.startswith(closed)
    assert problem.endswith(": cannot be read: Permission denied")


def test_a_plain_folder_is_right_too(entry: Entry) -> None:
    entry.config_path.unlink()
    assert (problems(entry), entry.backend(), entry.served()) == ([], "onnxruntime", ["2"])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("max_batch_size: x", ["m/config.pbtxt:1:17: 'max_batch_size: x': Couldn't parse integer: x"]),
        (
            "\n  backends: 'a'",
            ['m/config.pbtxt:2:3: Message type "inference.ModelConfig" has no field named "backends".'],
        ),
        ('name: "n"', ["m/config.pbtxt: the name is 'n', and the folder's is 'm'"]),
        (
            CONFIG.replace("TYPE_FP32 dims: [2] }]\noutput", "TYPE_INT8 dims: [2] }]\noutput").replace(
                "all {}", "specific { versions: [1, 7] }"
            ),
            ["m/config.pbtxt: version 1: input 'x': TYPE_INT8, and the model has TYPE_FP32"],
        ),
        (
            CONFIG.replace('"y"', '"z"').replace("all {}", "latest { num_versions: 1 }"),
            ["m/config.pbtxt: version 2: the model has no output 'z', it has y"],
        ),
        (
            CONFIG.replace('"y" data_type: TYPE_FP32', '"y" data_type: TYPE_FP32 label_filename: "none.txt"'),
            ["m/none.txt: the labels of 'y' cannot be read: No such file or directory"],
        ),
        (
            CONFIG.replace('"y" data_type: TYPE_FP32', '"y" data_type: TYPE_FP32 label_filename: "l.txt"'),
            ["m/l.txt: holds 3 labels, and 'y' has 2 values"],
        ),
        (
            CONFIG + 'default_model_filename: "a.onnx"',
            ["m/1/a.onnx: is missing", "m/2/a.onnx: is missing"],
        ),
        (
            with_parameter("feature_names", '["a"]'),
            ["m/config.pbtxt: miaas.feature_names: 1 names for the input 'x' of shape [-1, 2]"],
        ),
        (
            with_parameter("sunset", "soon"),
            ["m/config.pbtxt: miaas.sunset: expected a JSON object as its string_value"],
        ),
        (
            with_parameter("sunset", '{"9": "2027-01-01", "1": "soon"}'),
            [
                "m/config.pbtxt: miaas.sunset: 'soon' of version 1 is no day like 2027-06-30",
                "m/config.pbtxt: miaas.sunset: there is no version 9",
            ],
        ),
        (
            with_parameter("deprecated_versions", '["*", "1", "4"]'),
            ["m/config.pbtxt: miaas.deprecated_versions: there is no version 4"],
        ),
        (
            with_parameter("labels", '{"stable": 3}'),
            ["m/config.pbtxt: miaas.labels: 'stable' is version 3, which is not served"],
        ),
        (
            with_parameter("sunsets", "{}"),
            [
                "m/config.pbtxt: miaas.sunsets: is none of miaas.batch_calls, miaas.deprecated_versions, "
                "miaas.feature_names, miaas.labels, miaas.sunset"
            ],
        ),
        (
            'ensemble_scheduling { step [{ model_name: "m" }, { model_name: "other" }] }',
            ["m/config.pbtxt: a step calls 'other', which is not in the repository"],
        ),
        ('platform: "pytorch_libtorch"', ["m/2/model.pt: is missing"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(entry: Entry, config: str, expected: list[str]) -> None:
    (entry.folder / "l.txt").write_text("a\nb\nc\n")
    entry.config_path.write_text(config)
    assert problems(entry) == expected


def test_files_that_are_wrong(entry: Entry) -> None:
    (entry.folder / "1" / "model.onnx").write_bytes(b"hello")
    (entry.folder / "2" / "model.onnx").unlink()
    first, second = problems(entry)
    assert first.startswith("m/1/model.onnx: is no ONNX model: ")
    assert second == "m/2/model.onnx: is missing"
    assert list(inspection.notes(entry)) == []


def test_a_folder_without_anything_in_it(tmp_path: Path) -> None:
    (tmp_path / "m" / "one").mkdir(parents=True)
    (tmp_path / "not a name").mkdir()
    assert problems(Entry(tmp_path / "m")) == [
        "m: has no version, which is a folder called 1, 2 or so",
        "m/config.pbtxt: names no backend, and no file tells one",
    ]
    assert problems(Entry(tmp_path / "not a name")) == [
        "not a name: no model can have this name: its name must be of letters, digits, '.', '_' and '-'"
    ]


def test_versions_that_other_tritons_refuse_are_noted(entry: Entry) -> None:
    path = write(entry.folder / "2" / "model.onnx", double("n", 2, opset=21, ir_version=10))
    assert problems(entry) == []
    assert list(inspection.notes(entry)) == [
        f"{path}: older Tritons may refuse its opset 21 (at most 17), IR version 10 (at most 8); "
        "`models add` lowers what it can"
    ]
