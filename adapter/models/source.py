"""A model as its file brings it, and the ways in which its tensors are told."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapter.core.datatypes import DATATYPES
from adapter.core.types import TensorMetadata
from adapter.models.errors import ModelError

INSTALL = "pip install 'miaas-adapter[models]'"

_SIZE = r"(?:-1|[1-9]\d{0,8})"
_SPEC = re.compile(rf"(?P<name>.+):(?P<datatype>[A-Z0-9]+):(?P<shape>{_SIZE}(?:,{_SIZE})*)\Z")


@dataclass(frozen=True)
class Source:
    """A model that is ready to be put into a repository; the shapes of its tensors count every axis."""

    platform: str
    """What Triton calls this kind of model: the name of its platform or backend."""
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    save: Callable[[Path], None]
    """Writes the model's files into the empty folder of a version."""
    batches: bool
    """Whether the first axis of every tensor looks like a batch."""
    feature_names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of an output's last axis."""
    notes: tuple[str, ...] = ()
    """What its user should know."""


def variable_first_axes(*tensors: TensorMetadata) -> bool:
    """Whether every tensor has a first axis of any size."""
    return all(tensor.shape[:1] == (-1,) for tensor in tensors)


def read_spec(text: str) -> TensorMetadata:
    """`NAME:DATATYPE:SHAPE`, as in `image:FP32:-1,3,224,224`, with every axis. Raises ModelError."""
    match = _SPEC.match(text)
    if match is None or match["datatype"] not in DATATYPES:
        raise ModelError(
            f"{text[:80]!r}: expected NAME:DATATYPE:SHAPE as in image:FP32:-1,3,224,224, "
            f"DATATYPE one of {', '.join(DATATYPES)}"
        )
    shape = tuple(int(size) for size in match["shape"].split(","))
    return TensorMetadata(match["name"], match["datatype"], shape)
