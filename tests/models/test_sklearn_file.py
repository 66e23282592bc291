"""Pickled estimators: what becomes of them as ONNX, and what is said of those that cannot be taken."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pytest
import sklearn
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeRegressor

from adapter.core.types import TensorMetadata
from adapter.models import sklearn_file
from adapter.models.errors import ModelError
from adapter.models.source import Source

X, Y = load_iris(return_X_y=True)
FLOWERS = np.array(["setosa", "versicolor", "virginica"])[Y]
INPUT = TensorMetadata("input", "FP32", (-1, 4))


def pickled(folder: Path, estimator: Any) -> Path:
    path = folder / "estimator.joblib"
    joblib.dump(estimator, path)
    return path


def answers(source: Source, folder: Path, name: str, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    version = folder / "version"
    version.mkdir()
    source.save(version)
    session = onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    outputs = [output.name for output in source.outputs]
    return dict(zip(outputs, session.run(outputs, {name: values}), strict=True))


def test_a_classifier_answers_label_and_probabilities_as_scikit_learn_does(tmp_path: Path) -> None:
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, FLOWERS)
    source = sklearn_file.read(pickled(tmp_path, estimator))
    assert source.inputs == (INPUT,)
    assert source.outputs == (
        TensorMetadata("label", "BYTES", (-1,)),
        TensorMetadata("probabilities", "FP32", (-1, 3)),
    )
    assert (source.labels, source.batches, source.notes) == (("setosa", "versicolor", "virginica"), True, ())
    found = answers(source, tmp_path, "input", X.astype(np.float32))
    assert list(found["label"]) == list(estimator.predict(X))
    np.testing.assert_allclose(found["probabilities"], estimator.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "target", "outputs", "labels"),
    [
        (LinearRegression(), Y, [("variable", (-1, 1))], ()),
        (LinearSVC(), Y, [("label", (-1,)), ("scores", (-1, 3))], ("0", "1", "2")),
        (RidgeClassifier(), Y == 1, [("label", (-1,)), ("scores", (-1, 1))], ("False", "True")),
        (KMeans(3, n_init=1), Y, [("label", (-1,)), ("scores", (-1, 3))], ()),
        (PCA(2), Y, [("variable", (-1, 2))], ()),
    ],
)
def test_other_kinds_of_estimators(
    tmp_path: Path, estimator: Any, target: Any, outputs: list[tuple[str, tuple[int, ...]]], labels: Any
) -> None:
    source = sklearn_file.read(pickled(tmp_path, estimator.fit(X, target)))
    assert [(output.name, output.shape) for output in source.outputs] == outputs
    assert source.labels == labels


@pytest.mark.parametrize("estimator", [SVC(), SGDClassifier(random_state=0), LinearSVC()])
def test_what_a_classifier_thinks_of_each_class_without_probabilities(tmp_path: Path, estimator: Any) -> None:
    source = sklearn_file.read(pickled(tmp_path, estimator.fit(X, FLOWERS)))
    found = answers(source, tmp_path, "input", X.astype(np.float32))
    assert (list(found), source.notes) == (["label", "scores"], ())
    assert list(found["label"]) == list(estimator.predict(X))
    np.testing.assert_allclose(found["scores"], estimator.decision_function(X), 1e-3, 1e-3)


@pytest.mark.parametrize(
    ("estimator", "target", "output"),
    [
        # Left to itself, skl2onnx says that they answer one value a row, …
        (DecisionTreeRegressor(random_state=0), X[:, :2], "variable"),
        # … lets this one answer two rows for one, …
        (MLPRegressor(hidden_layer_sizes=(5,), max_iter=5, random_state=0), X[:, :2], "variable"),
        # … and this one a row of labels.
        (QuadraticDiscriminantAnalysis(), FLOWERS, "label"),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, BaseEstimator) else "",
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_answers_come_in_the_shape_of_the_estimators(
    tmp_path: Path, estimator: Any, target: Any, output: str
) -> None:
    expected = estimator.fit(X, target).predict(X)
    source = sklearn_file.read(pickled(tmp_path, estimator))
    assert (source.batches, source.notes) == (True, ())
    declared = next(each for each in source.outputs if each.name == output)
    found = answers(source, tmp_path, "input", X.astype(np.float32))[output]
    assert declared.shape == (-1, *expected.shape[1:])
    assert found.shape == expected.shape
    if found.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, 1e-4, 1e-4)
    else:
        assert list(found) == list(expected)


def test_a_conversion_that_answers_otherwise_is_told(tmp_path: Path) -> None:
    # Of two classes skl2onnx takes the wrong one where their scores are between 0 and 1.
    estimator = OneVsRestClassifier(LinearSVC(random_state=0)).fit(X, Y == 1)
    (note,) = sklearn_file.read(pickled(tmp_path, estimator)).notes
    assert re.fullmatch(r"'label' is not what the estimator answers in \d+% of made-up rows, as .*", note)


def test_outputs_can_be_left_out(tmp_path: Path) -> None:
    path = pickled(tmp_path, LogisticRegression(max_iter=300).fit(X, Y))
    source = sklearn_file.read(path, keep=["probabilities"])
    assert [output.name for output in source.outputs] == ["probabilities"]


def test_texts_need_an_input_that_is_named(tmp_path: Path) -> None:
    # Lowering their case needs a locale that not every machine has.
    estimator = make_pipeline(TfidfVectorizer(lowercase=False), LogisticRegression(C=100))
    estimator.fit(["a good day", "a bad night", "one fine day"], ["yes", "no", "yes"])
    path = pickled(tmp_path, estimator)
    with pytest.raises(ModelError, match=r"how many features .* --input text:BYTES:-1,1$"):
        sklearn_file.read(path)
    source = sklearn_file.read(path, [TensorMetadata("text", "BYTES", (-1, 1))])
    texts = ["good day", "bad night"]
    found = answers(source, tmp_path, "text", np.array([[text] for text in texts], object))
    assert list(found["label"]) == list(estimator.predict(texts)) == ["yes", "no"]


def test_features_that_the_estimator_knows_by_name(tmp_path: Path) -> None:
    estimator = LinearRegression().fit(X, Y)
    # As training on a DataFrame leaves it.
    estimator.feature_names_in_ = np.array(["a", "b", "c", "d"], object)
    assert sklearn_file.read(pickled(tmp_path, estimator)).feature_names == ("a", "b", "c", "d")


def test_another_version_of_scikit_learn_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.base.__version__", "1.0.0")
        path = pickled(tmp_path, LinearRegression().fit(X, Y))
    assert sklearn_file.read(path).notes == (
        f"it was made with scikit-learn 1.0.0, and read with {sklearn.__version__}: compare their answers",
    )


class Own(BaseEstimator):  # type: ignore[misc]
    """An estimator that no converter knows."""

    def __init__(self) -> None:
        self.n_features_in_ = 4

    def fit(self) -> "Own":
        return self


def explode() -> None:
    raise RuntimeError("boom\nand more")


class Explosive:
    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return explode, ()


def missing_module() -> bytes:
    return b"cno_such_package\nThing\n."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "cannot be opened as a pickle: "),
        (pickle.dumps({"a": 1}), "holds a dict, which is no scikit-learn estimator"),
        (pickle.dumps(Explosive()), "cannot be opened as a pickle: RuntimeError: boom"),
        (missing_module(), "the pickle needs the package no_such_package, install it"),
        (pickle.dumps(LogisticRegression()), "This LogisticRegression instance is not fitted yet."),
    ],
)
def test_what_is_wrong_with_a_pickle_is_said_in_a_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        sklearn_file.read(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_converted_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^skl2onnx cannot convert this Own: "):
        sklearn_file.read(pickled(tmp_path, Own()))
    several = MultiOutputClassifier(LogisticRegression(max_iter=300)).fit(X, np.c_[Y, Y])
    with pytest.raises(ModelError, match=r"^the output 'probabilities' is a sequence, .* --output$"):
        sklearn_file.read(pickled(tmp_path, several))
    with pytest.raises(ModelError, match=r"^'input': of FP16 scikit-learn's converter takes none$"):
        sklearn_file.read(
            pickled(tmp_path, LinearRegression().fit(X, Y)), [TensorMetadata("input", "FP16", (-1, 4))]
        )
