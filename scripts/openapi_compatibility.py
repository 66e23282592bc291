"""What in an OpenAPI document would break a client that was written against an older one.

A client breaks when something that it sends is refused, or something that it reads is gone or different: a
path, operation or answer that is gone; a member of an answer gone, no longer certain or of another type; a
request that must hold more, or may hold less, than before.
"""

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]
Schema = dict[str, Any]


def breaking(old: Document, new: Document) -> list[str]:
    """A line for every change from `old` to `new` that breaks a client; none means that all is well."""
    return list(_Comparison(old, new).paths())


class _Comparison:
    def __init__(self, old: Document, new: Document) -> None:
        self._old = old
        self._new = new

    def paths(self) -> Iterator[str]:
        for path, operations in self._old["paths"].items():
            for method, operation in operations.items():
                there = self._new["paths"].get(path, {}).get(method)
                where = f"{method.upper()} {path}"
                if there is None:
                    yield f"{where}: is gone"
                else:
                    yield from self._operation(where, operation, there)

    def _operation(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        known = {(p["in"], p["name"]) for p in old.get("parameters", [])}
        for parameter in new.get("parameters", []):
            if parameter.get("required") and (parameter["in"], parameter["name"]) not in known:
                yield f"{where}: parameter {parameter['name']} is required now"
        for status, response in old["responses"].items():
            if status not in new["responses"]:
                yield f"{where}: status {status} is gone"
                continue
            there = new["responses"][status]
            yield from (f"{where} {status}: header {h} is gone" for h in _gone(response, there, "headers"))
            if "content" in response:
                yield from self._answer(f"{where} {status}", _schema(response), _schema(there))
        if "requestBody" in new:
            before = _schema(old["requestBody"]) if "requestBody" in old else {}
            yield from self._request(f"{where} body", before, _schema(new["requestBody"]))

    def _answer(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        """What a client reads may become narrower, never wider."""
        old, new = _resolved(self._old, old), _resolved(self._new, new)
        if not _types(new) <= _types(old):
            yield f"{where}: the type was {_show(old)}, is {_show(new)}"
            return
        if "enum" in old and not set(new.get("enum", [new.get("const")])) <= set(old["enum"]):
            yield f"{where}: has other values than before"
        for name, schema in old.get("properties", {}).items():
            if name not in new.get("properties", {}):
                yield f"{where}.{name}: is gone"
                continue
            if name in old.get("required", []) and name not in new.get("required", []):
                yield f"{where}.{name}: is not certain any more"
            yield from self._answer(f"{where}.{name}", schema, new["properties"][name])
        if "items" in old:
            yield from self._answer(f"{where}[]", old["items"], new.get("items", {}))

    def _request(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        """What a client sends may become wider, never narrower."""
        old, new = _resolved(self._old, old), _resolved(self._new, new)
        if not _types(old) <= _types(new):
            yield f"{where}: the type was {_show(old)}, is {_show(new)}"
            return
        if "enum" in new and not set(old.get("enum", [None])) <= set(new["enum"]):
            yield f"{where}: takes fewer values than before"
        for bound, worse in (("maximum", -1), ("maxLength", -1), ("minimum", 1), ("minItems", 1)):
            if bound in new and (bound not in old or (new[bound] - old[bound]) * worse > 0):
                yield f"{where}: {bound} is narrower"
        for name in new.get("required", []):
            if name not in old.get("required", []):
                yield f"{where}.{name}: is required now"
        for name, schema in old.get("properties", {}).items():
            if name in new.get("properties", {}):
                yield from self._request(f"{where}.{name}", schema, new["properties"][name])
            elif new.get("additionalProperties") is False:
                yield f"{where}.{name}: is refused now"


def _gone(old: Schema, new: Schema, part: str) -> set[str]:
    return set(old.get(part, {})) - set(new.get(part, {}))


def _schema(described: Schema) -> Schema:
    schema: Schema = described.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def _resolved(document: Document, schema: Schema) -> Schema:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


_ALL = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})


def _types(schema: Schema) -> frozenset[str]:
    named = schema.get("type")
    if named is None:
        return _ALL
    types = {named} if isinstance(named, str) else set(named)
    return frozenset(types | ({"integer"} if "number" in types else set()))


def _show(schema: Schema) -> str:
    types = _types(schema)
    return "anything" if types == _ALL else "/".join(sorted(types))
