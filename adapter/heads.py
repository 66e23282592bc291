"""The head of an HTTP/1 request: what its parser leaves to others."""

import re
from collections.abc import Iterable

_HOST = re.compile(rb"[\w.~%!$&'()*+,;=:\[\]-]*\Z")
"""The characters of RFC 3986's host and port."""

Fields = Iterable[tuple[bytes, bytes]]


def is_well_formed(version: str, fields: Fields) -> bool:
    """Whether it is HTTP/1 with the Host that RFC 9112, section 3.2, asks for: one, which 1.0 may lack."""
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) != 1:
        return not hosts and version == "1.0"
    return version in ("1.1", "1.0") and _HOST.match(hosts[0]) is not None


def without_offer(method: bytes, target: bytes, version: str, fields: Fields) -> bytes:
    """The same head without its `Upgrade`: RFC 9110, section 7.8, lets a server pass over that."""
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    lines += [b"%b: %b" % field for field in fields if field[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])
