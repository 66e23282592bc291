"""Triton's protobuf messages as the JSON of its own HTTP endpoints."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field


def to_json(message: Any) -> dict[str, Any]:
    """A message → an object with every field under its own name, those at zero included.

    protobuf's own `MessageToDict` writes 64-bit integers as strings and leaves counters out that are zero;
    clients of Triton's statistics want a number in each place. Left out are absent submessages, and the
    members of a `oneof` that are not the chosen one. Enums come as their names.
    """
    return {
        field.name: _value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of_value = field.message_type.fields_by_name["value"]
        # A mapping of messages gives its values by key alone.
        return {str(key): _single(of_value, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_single(field, element) for element in value]
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:
    if field.type == Field.TYPE_MESSAGE:
        return to_json(value)
    if field.type == Field.TYPE_ENUM:
        return field.enum_type.values_by_number[value].name
    return value
