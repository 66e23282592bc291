"""Train the two small models of model_repository/ and write them as ONNX.

Everything is seeded, so a second run finds the committed files as they should be and leaves them alone.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from adapter.core.types import TensorMetadata
from adapter.models.sklearn_file import to_onnx

REPOSITORY = Path(__file__).parent.parent / "model_repository"


def classifier(model: Any, features: int) -> bytes:
    """`model` with one tensor in, `input`, and one out: `output`, the probability of each class."""
    onnx_model = to_onnx(model, [TensorMetadata("input", "FP32", (-1, features))])
    graph = onnx_model.graph
    # The label is but the class of the greatest probability: without it a client has one tensor to read.
    _label, probabilities = graph.output
    for node in graph.node:
        node.output[:] = ["output" if name == probabilities.name else name for name in node.output]
    probabilities.name = "output"
    graph.ClearField("output")
    graph.output.append(probabilities)
    onnx.checker.check_model(onnx_model, full_check=True)
    content: bytes = onnx_model.SerializeToString(deterministic=True)
    return content


def write(path: Path, model: Any, x: NDArray[np.float64], y: NDArray[np.int64]) -> None:
    """Fit `model`, say how well it does on what it was fitted to, and write it where it has changed."""
    model.fit(x, y)
    content = classifier(model, x.shape[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    unchanged = path.exists() and path.read_bytes() == content
    if not unchanged:
        path.write_bytes(content)
    state = "unchanged" if unchanged else "written"
    print(f"{path}: {model.score(x, y):.1%} of {len(x)} rows right, {len(content):,} bytes, {state}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the scikit-learn models of the model repository.")
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="where to write")
    repository: Path = parser.parse_args().repository

    iris_x, iris_y = load_iris(return_X_y=True)
    iris = repository / "sklearn-iris"
    write(iris / "1" / "model.onnx", DecisionTreeClassifier(max_depth=2, random_state=0), iris_x, iris_y)
    write(iris / "2" / "model.onnx", LinearDiscriminantAnalysis(), iris_x, iris_y)

    digits_x, digits_y = load_digits(return_X_y=True)
    digits = LogisticRegression(C=0.01, max_iter=1000)
    write(repository / "digits" / "1" / "model.onnx", digits, digits_x, digits_y)


if __name__ == "__main__":
    main()
