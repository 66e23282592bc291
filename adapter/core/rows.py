"""Rows of tensors: cutting a batch into pieces, and putting pieces behind each other."""

from collections.abc import Iterator, Sequence

from adapter.core.datatypes import pack_bytes, unpack_bytes
from adapter.core.errors import InferenceFailed
from adapter.core.types import InferRequest, InferResponse, Tensor


def split(request: InferRequest, most: int) -> Iterator[InferRequest]:
    """Cut the batch into pieces of at most `most` rows, each made when its turn comes."""
    rows = request.inputs[0].shape[0]
    counts = [min(most, rows - i) for i in range(0, rows, most)]
    columns = [cut(tensor, counts) for tensor in request.inputs]
    return (request._replace(inputs=inputs) for inputs in zip(*columns, strict=True))


def cut(tensor: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
    """The tensor in pieces of so many rows each; `counts` add up to all of them. Shares the data."""
    is_bytes = tensor.datatype == "BYTES"
    elements = unpack_bytes(tensor.data) if is_bytes else memoryview(tensor.data)
    each = len(elements) // tensor.shape[0]
    start = 0
    for count in counts:
        piece = elements[start * each : (start + count) * each]
        data = piece if isinstance(piece, memoryview) else pack_bytes(piece)
        yield Tensor(tensor.name, tensor.datatype, (count, *tensor.shape[1:]), data)
        start += count


def has_rows(request: InferRequest) -> bool:
    """Whether every input has one and the same number of rows, at least one: others cannot be joined."""
    sizes = {tensor.shape[:1] for tensor in request.inputs}
    return len(sizes) == 1 and sizes.isdisjoint(((), (0,)))


def join_inputs(requests: Sequence[InferRequest]) -> tuple[Tensor, ...]:
    """The rows of several requests behind each other; all have the same inputs in the same order."""
    return tuple(_join(pieces) for pieces in zip(*(request.inputs for request in requests), strict=True))


def join_answers(answers: Sequence[InferResponse]) -> InferResponse:
    """The rows of several answers behind each other. Raises InferenceFailed when they do not fit."""
    by_name = [{tensor.name: tensor for tensor in answer.outputs} for answer in answers]
    if any(tensors.keys() != by_name[0].keys() for tensors in by_name):
        raise InferenceFailed("the model has other outputs from one batch to the next")
    outputs = []
    for name in by_name[0]:
        pieces = [tensors[name] for tensors in by_name]
        kinds = {(piece.datatype, len(piece.shape), piece.shape[1:]) for piece in pieces}
        if len(kinds) != 1 or not pieces[0].shape:
            raise InferenceFailed(f"output {name!r} has another shape from one batch to the next")
        outputs.append(_join(pieces))
    return answers[0]._replace(outputs=tuple(outputs))


def cut_answer(answer: InferResponse, counts: Sequence[int]) -> list[InferResponse]:
    """One answer as the answers to the requests that were joined.

    Raises InferenceFailed when an output does not have as many rows as the requests together.
    """
    rows = sum(counts)
    for tensor in answer.outputs:
        if tensor.shape[:1] != (rows,):
            raise InferenceFailed(f"output {tensor.name!r} does not have a row for each of the batch")
    columns = [cut(tensor, counts) for tensor in answer.outputs]
    if not columns:
        return [answer] * len(counts)
    return [answer._replace(outputs=outputs) for outputs in zip(*columns, strict=True)]


def _join(pieces: Sequence[Tensor]) -> Tensor:
    first = pieces[0]
    rows = sum(piece.shape[0] for piece in pieces)
    data = b"".join(piece.data for piece in pieces)
    return Tensor(first.name, first.datatype, (rows, *first.shape[1:]), data)
