"""What several Tritons have done, added up: to clients they are one."""

from collections.abc import Iterable
from typing import Any

from tritonclient.grpc import service_pb2 as pb

_IDENTITY = {
    "model_stats": ("name", "version"),
    "batch_stats": ("batch_size",),
    "memory_usage": ("type", "id"),
}
"""What an element of a repeated field is known by."""
_NOT_COUNTERS = {name for names in _IDENTITY.values() for name in names}


def total(answers: Iterable[Any]) -> Any:
    """`ModelStatisticsResponse`s → one: counters and times added, the latest of the last inferences."""
    sums = pb.ModelStatisticsResponse()
    for answer in answers:
        _add(sums, answer)
    return sums


def _add(into: Any, message: Any) -> None:
    for field, value in message.ListFields():
        held = getattr(into, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in value:
                _add(held[key], value[key])
        elif field.is_repeated:
            for element in value:
                _add(_same(held, _IDENTITY[field.name], element), element)
        elif field.message_type is not None:
            held.SetInParent()
            _add(held, value)
        elif field.name in _NOT_COUNTERS:
            setattr(into, field.name, value)
        else:
            setattr(into, field.name, max(held, value) if field.name == "last_inference" else held + value)


def _same(elements: Any, names: tuple[str, ...], wanted: Any) -> Any:
    """The element of the same identity, added when there is none."""
    for element in elements:
        if all(getattr(element, name) == getattr(wanted, name) for name in names):
            return element
    return elements.add()
