"""`miaas-adapter models`, in processes of its own."""

import json
from datetime import UTC, datetime
from pathlib import Path

import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests.models.onnx_models import double, write
from tests.test_cli import run

ROOT = Path(__file__).parents[2]


def today() -> str:
    return datetime.now(UTC).date().isoformat()


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("estimator") / "iris.joblib"
    joblib.dump(LogisticRegression(max_iter=300).fit(*load_iris(return_X_y=True)), path)
    return path


def test_add_an_estimator_and_look_at_it(tmp_path: Path, estimator: Path) -> None:
    (tmp_path / "names.txt").write_text("setosa\nversicolor\nvirginica\n")
    command = ["models", "add", str(estimator), "--name", "iris", "--trust-pickle", "--warmup"]
    options = ["--feature-names", "sl, sw, pl, pw", "--labels", "names.txt", "--max-batch-size", "16"]
    done = run(*command, *options, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    shown = {
        "name": "iris",
        "versions": ["1"],
        "served": ["1"],
        "backend": "onnxruntime",
        "max_batch_size": 16,
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1, 1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        ],
        "feature_names": ["sl", "sw", "pl", "pw"],
        "version_labels": {},
        "deprecated_since": {},
        "sunset": {},
        "warmup": ["zeros"],
    }
    assert json.loads(done.stdout) == {"added": "iris@1", **shown, "notes": []}
    assert (tmp_path / "model_repository/iris/labels.txt").read_text() == "setosa\nversicolor\nvirginica\n"
    for listing in ("list", "show"):
        done = run("models", listing, "model_repository", "--json", cwd=tmp_path)
        assert json.loads(done.stdout) == [shown]
    table = run("models", "list", "model_repository", cwd=tmp_path).stdout
    assert "│ iris " in table
    assert "onnxruntime" in table
    text = run("models", "show", "model_repository", "iris", cwd=tmp_path).stdout
    assert "feature names  │ sl, sw, pl, pw" in text
    assert "sunset" not in text
    # Without a folder it is ./model_repository, where `add` has put it.
    assert run("models", "show", cwd=tmp_path).stdout == text

    done = run("models", "add", str(estimator), "--name", "iris", "--trust-pickle", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("added iris@2\n")


def test_labels_may_be_many(tmp_path: Path) -> None:
    write(tmp_path / "model.onnx", double("n", 1000))
    names = [f"class {number}" for number in range(1000)]
    done = run("models", "add", "model.onnx", "--name", "m", "--labels", ",".join(names), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "model_repository/m/labels.txt").read_text().splitlines() == names


def test_deprecate_and_take_it_back(tmp_path: Path) -> None:
    write(tmp_path / "model.onnx", double("n", 2))
    for _ in range(2):
        done = run("models", "add", "model.onnx", "--name", "m", "--repository", "r", cwd=tmp_path)
        assert done.returncode == 0
    place = ("--repository", "r", "--json")
    day = today()
    done = run("models", "deprecate", "m@1", "--sunset", "2999-06-30", *place, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert (shown["deprecated_since"].keys(), shown["sunset"]) == ({"1"}, {"1": "2999-06-30"})
    shown = json.loads(run("models", "deprecate", "m", *place, cwd=tmp_path).stdout)
    assert shown["deprecated_since"].keys() == {"1", "*"}
    # It may be midnight.
    assert set(shown["deprecated_since"].values()) <= {day, today()}
    shown = json.loads(run("models", "deprecate", "m", "--undo", *place, cwd=tmp_path).stdout)
    assert (shown["deprecated_since"], shown["sunset"]) == ({}, {})


def test_notes_are_for_people(tmp_path: Path) -> None:
    write(tmp_path / "model.onnx", double("n", 2, opset=18))
    done = run("models", "add", "model.onnx", "--name", "m", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "note: opset 18 (at most 17): lowered, so that older Tritons take it, too\n"
    config = tmp_path / "model_repository" / "m" / "config.pbtxt"
    config.write_text(config.read_text().replace("version_policy { all { } }\n", ""))
    done = run("models", "add", "model.onnx", "--name", "m", "--version", "9", cwd=tmp_path)
    assert "leaves version" not in done.stderr
    done = run("models", "add", "model.onnx", "--name", "m", "--version", "5", cwd=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last == "note: the version_policy in model_repository/m/config.pbtxt leaves version 5 out"


def test_a_model_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "1" / "model.onnx", double("n", 2))
    (tmp_path / "a" / "config.pbtxt").write_text("nonsense")
    first, second = json.loads(run("models", "list", ".", "--json", cwd=tmp_path).stdout)
    assert first == {
        "name": "a",
        "problem": 'a/config.pbtxt:1:1: Message type "inference.ModelConfig" has no field named "nonsense".',
    }
    assert (second["name"], second["served"], second["backend"]) == ("b", ["1"], "onnxruntime")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["list", "none"], 1, "none: No such file or directory"),
        (["show", ".", "none"], 1, ".: there is no model 'none'"),
        (["show", ".", "../x"], 1, ".: there is no model '../x'"),
        (["add", "none.onnx", "--name", "m"], 1, "none.onnx: there is no such file"),
        (["add", "model.onnx", "--name", "a b"], 1, "'a b' is no name for a model: its name must be of "),
        (
            ["add", "model.onnx", "--name", "m", "--labels", "none.txt"],
            2,
            "--labels: there is no file none.txt",
        ),
        (["add", "x.joblib", "--name", "m"], 1, "x.joblib is opened with pickle, which runs whatever code "),
        (["add", "model.onnx", "--name", "m", "--labels", "a,,b"], 2, "--labels: one of 'a,,b' is empty"),
        (
            ["add", "model.onnx", "--name", "m", "--feature-names", "a,"],
            2,
            "--feature-names: one of 'a,' is ",
        ),
        (["add", "model.onnx", "--name", "m", "--repository", "x.joblib"], 1, "x.joblib: is no folder"),
        (["deprecate", "m", "--repository", "."], 1, ".: there is no model 'm'"),
        (["deprecate", "m", "--sunset", "soon", "--repository", "."], 1, ".: there is no model 'm'"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    write(tmp_path / "model.onnx", double("n", 2))
    (tmp_path / "x.joblib").touch()
    done = run("models", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "x.joblib"]


@pytest.mark.parametrize("model", ["", "@1", "m@", "m@1@2"])
def test_what_names_no_model(tmp_path: Path, model: str) -> None:
    """A variable that is empty in `m@$VERSION` must not deprecate the whole model."""
    for command in (
        ["models", "deprecate", model, "--repository", "r"],
        ["predict", model],
        ["submit", model],
    ):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 2
        assert "expected a model's name, or name@version" in done.stderr


@pytest.mark.parametrize("version", ["0", "1000000000000000000"])
def test_what_is_no_version(tmp_path: Path, version: str) -> None:
    write(tmp_path / "model.onnx", double("n", 2))
    done = run("models", "add", "model.onnx", "--name", "m", "--version", version, cwd=tmp_path)
    assert done.returncode == 2
    assert not (tmp_path / "model_repository").exists()


def test_a_day_that_is_none(tmp_path: Path) -> None:
    write(tmp_path / "m" / "1" / "model.onnx", double("n", 2))
    done = run("models", "deprecate", "m", "--sunset", "soon", "--repository", ".", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "--sunset: 'soon' is no day like 2027-06-30\n")
    done = run("models", "deprecate", "m", "--sunset", "2999-01-01", "--undo", cwd=tmp_path)
    assert done.returncode == 2
    assert "--undo takes no --sunset" in done.stderr


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path / "model.onnx", double("n", 2))
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError('no onnx', name='onnx')")
    done = run("models", "add", "model.onnx", "--name", "m", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "this needs the package onnx: pip install 'miaas-adapter[models]'\n"


def test_nothing_is_told_to_others(tmp_path: Path) -> None:
    """ONNX Runtime keeps what it is about to send in the user's cache."""
    home = tmp_path / "home"
    home.mkdir()
    write(tmp_path / "model.onnx", double("n", 2))
    done = run("models", "add", "model.onnx", "--name", "m", cwd=tmp_path, HOME=str(home), XDG_CACHE_HOME="")
    assert (done.returncode, list(home.iterdir())) == (0, [])
