"""A pickled scikit-learn estimator → ONNX → a Source."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import skl2onnx
import sklearn
from onnx import helper
from skl2onnx.common import data_types
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.validation import check_is_fitted

from adapter.core.types import TensorMetadata
from adapter.models import onnx_file
from adapter.models.errors import ModelError, first_line
from adapter.models.likeness import compared
from adapter.models.source import Source

_TYPES = {
    "BOOL": data_types.BooleanTensorType,
    "INT32": data_types.Int32TensorType,
    "INT64": data_types.Int64TensorType,
    "FP32": data_types.FloatTensorType,
    "FP64": data_types.DoubleTensorType,
    "BYTES": data_types.StringTensorType,
}


def read(path: Path, inputs: Sequence[TensorMetadata] = (), keep: Sequence[str] = ()) -> Source:
    """The estimator in the file, which is opened with pickle, and so runs whatever code it holds.

    `inputs` are those of the model; with none it takes its features as one FP32 tensor `input`. `keep` is as
    for ONNX. A classifier gives `label`, and `probabilities` or, where it knows none, `scores`. Raises
    ModelError.
    """
    estimator, notes = _open(path)
    names: tuple[str, ...] = ()
    if inputs:
        model = to_onnx(estimator, inputs)
    else:
        features = _features(estimator)
        names = tuple(getattr(estimator, "feature_names_in_", ()))
        model, unlike = compared(estimator, to_onnx(estimator, [features]), features.shape[1])
        notes += unlike
    source = onnx_file.source(model, keep)
    classes: Any = getattr(estimator, "classes_", None)
    # Of several targets there are several lists.
    flat = isinstance(classes, np.ndarray) and classes.ndim == 1
    labels = tuple(map(str, classes)) if flat else ()
    return replace(source, feature_names=names, labels=labels, notes=(*notes, *source.notes))


def to_onnx(estimator: Any, inputs: Sequence[TensorMetadata]) -> Any:
    """A fitted estimator → its `ModelProto`, of these inputs. Raises ModelError."""
    for tensor in inputs:
        if tensor.datatype not in _TYPES:
            raise ModelError(f"{tensor.name!r}: of {tensor.datatype} scikit-learn's converter takes none")
    types = [
        (tensor.name, _TYPES[tensor.datatype]([None if size < 0 else size for size in tensor.shape]))
        for tensor in inputs
    ]
    convert = partial(skl2onnx.to_onnx, estimator, initial_types=types, target_opset=onnx_file.OPSETS)
    try:
        with warnings.catch_warnings():
            # Of what scikit-learn will not have any more skl2onnx still looks for some.
            warnings.simplefilter("ignore", FutureWarning)
            try:
                # Else what a classifier says of each class may come as a list of objects, which is no tensor.
                model = convert(options={"zipmap": False})
            except NameError:  # this kind of estimator has no such option
                model = convert()
    except Exception as error:  # the converters raise whatever they run into
        kind = type(estimator).__name__
        raise ModelError(f"skl2onnx cannot convert this {kind}: {first_line(error)}") from error
    if not hasattr(estimator, "predict_proba"):
        _rename_output(model.graph, "probabilities", "scores")
    # It names a domain more than once, in the order of a set.
    opsets = [helper.make_opsetid(domain, version) for domain, version in onnx_file.OPSETS.items()]
    return helper.make_model(model.graph, ir_version=onnx_file.IR_VERSION, opset_imports=opsets)


def _open(path: Path) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = joblib.load(path)
        except ModuleNotFoundError as error:
            raise ModelError(f"{path}: the pickle needs the package {error.name}, install it") from error
        except Exception as error:  # a pickle may raise anything
            why = f"{type(error).__name__}: {first_line(error)}"
            raise ModelError(f"{path}: cannot be opened as a pickle: {why}") from error
    if not isinstance(estimator, BaseEstimator):
        raise ModelError(f"{path}: holds a {type(estimator).__name__}, which is no scikit-learn estimator")
    try:
        check_is_fitted(estimator)
    except Exception as error:
        raise ModelError(f"{path}: {first_line(error)}") from error
    made_with = {
        warning.message.original_sklearn_version
        for warning in caught
        if isinstance(warning.message, InconsistentVersionWarning)
    }
    return estimator, [
        f"it was made with scikit-learn {version}, and read with {sklearn.__version__}: compare their answers"
        for version in sorted(made_with)
    ]


def _rename_output(graph: Any, old: str, new: str) -> None:
    for output in graph.output:
        if output.name == old:
            output.name = new
            graph.node.append(helper.make_node("Identity", [old], [new]))


def _features(estimator: Any) -> TensorMetadata:
    features = getattr(estimator, "n_features_in_", None)
    if features is None:
        raise ModelError(
            "the estimator does not say how many features it takes: name its inputs, "
            "as in --input text:BYTES:-1,1"
        )
    return TensorMetadata("input", "FP32", (-1, int(features)))
