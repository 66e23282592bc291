"""Request bodies: the limit while streaming, and JSON in its strict form."""

import asyncio
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import Message

from adapter.contracts.body import MAX_DEPTH, parse_json, read_body
from adapter.core.errors import InvalidInput, PayloadTooLarge, UnsupportedEncoding


class Client:
    """The sending side of an ASGI request; counts how much was asked of it."""

    def __init__(self, *chunks: bytes, disconnects: bool = False, **headers: str) -> None:
        self.messages: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
        ]
        self.messages.append(
            {"type": "http.disconnect"} if disconnects else {"type": "http.request", "more_body": False}
        )
        self.headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.asked = 0

    async def receive(self) -> Message:
        self.asked += 1
        return self.messages[self.asked - 1]

    def read(self, limit: int) -> bytes:
        return asyncio.run(read_body({"type": "http", "headers": self.headers}, self.receive, limit))


@pytest.mark.parametrize("chunks", [(), (b"",), (b"0123456789",), (b"01234", b"56789"), (b"0",) * 10])
def test_a_body_up_to_the_limit_is_read_whole(chunks: tuple[bytes, ...]) -> None:
    assert Client(*chunks).read(10) == b"".join(chunks)


def test_a_body_over_the_limit_is_refused_while_it_streams() -> None:
    client = Client(*[b"0123"] * 1000)
    with pytest.raises(PayloadTooLarge) as caught:
        client.read(10)
    assert caught.value.message == "the body is larger than 10 bytes"
    assert client.asked == 3


def test_a_body_that_is_announced_too_large_is_refused_unread() -> None:
    client = Client(b"0" * 11, content_length="11")
    with pytest.raises(PayloadTooLarge):
        client.read(10)
    assert client.asked == 0


def test_an_announcement_is_not_believed() -> None:
    with pytest.raises(PayloadTooLarge):
        Client(b"0" * 11, content_length="5").read(10)
    assert Client(b"0" * 10, content_length="10").read(10) == b"0" * 10
    assert Client(b"0", content_length="many").read(10) == b"0"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "gzip, identity", "identity, gzip"])
def test_an_encoded_body_is_refused_unread(encoding: str) -> None:
    client = Client(b"{}", content_encoding=encoding)
    with pytest.raises(UnsupportedEncoding, match="send the body as it is"):
        client.read(10)
    assert client.asked == 0


@pytest.mark.parametrize("encoding", ["identity", "Identity", " identity ", ""])
def test_identity_is_no_encoding(encoding: str) -> None:
    assert Client(b"{}", content_encoding=encoding).read(10) == b"{}"


def test_a_client_that_hangs_up_ends_the_reading() -> None:
    with pytest.raises(ClientDisconnect):
        Client(b"{", disconnects=True).read(10)


def refusal(body: bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_json(body)
    return caught.value.message


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, "x", true, null]}', {"a": [1, 2.5, "x", True, None]}),
        (b' \r\n\t{"a":1}\n ', {"a": 1}),
        (b"[18446744073709551615, -9223372036854775808]", [2**64 - 1, -(2**63)]),
        ('"é😀"'.encode(), "é😀"),
        (b'"\\ud83d\\ude00\\u0000\\/"', "😀\0/"),
        (b"[1e308, 1E-400, -0.0]", [1e308, 0.0, -0.0]),
    ],
)
def test_json_is_read(body: bytes, value: Any) -> None:
    parsed = parse_json(body)
    assert parsed == value
    assert orjson.dumps(parsed) == orjson.dumps(value)


def test_one_byte_order_mark_is_skipped() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a":1}') == {"a": 1}
    assert refusal(b"\xef\xbb\xbf\xef\xbb\xbf{}").startswith("the body is not JSON: ")


@pytest.mark.parametrize("body", [b"", b" \n\t ", b"\xef\xbb\xbf", b"\xef\xbb\xbf \n"])
def test_an_empty_body_is_refused(body: bytes) -> None:
    assert refusal(body) == "the body is empty; expected a JSON object"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_only_utf8_is_read(encoding: str) -> None:
    assert refusal('{"a": "é"}'.encode(encoding)).startswith("the body is not JSON: ")


@pytest.mark.parametrize(
    "string",
    [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82"],
)
@pytest.mark.parametrize("rest", [b"", b", NaN"])
def test_invalid_utf8_is_refused(string: bytes, rest: bytes) -> None:
    assert refusal(b'["' + string + b'"' + rest + b"]").startswith("the body is not JSON: ")


@pytest.mark.parametrize("surrogate", [rb"\ud800", rb"\udc00", rb"\ud800\ud800", rb"\ud800x", rb"\ud800\n"])
@pytest.mark.parametrize("rest", [b"", b", NaN"])
def test_lone_surrogates_are_refused(surrogate: bytes, rest: bytes) -> None:
    for body in (b'["%b"%b]', b'[{"%b": 1}%b]'):
        assert refusal(body % (surrogate, rest)).startswith("the body is not JSON: ")


@pytest.mark.parametrize("character", range(0x20))
@pytest.mark.parametrize("rest", [b"", b", NaN"])
def test_control_characters_in_strings_are_refused(character: int, rest: bytes) -> None:
    assert refusal(b'["a%cb"%b]' % (character, rest)).startswith("the body is not JSON: ")


@pytest.mark.parametrize(
    "body",
    [
        *(
            b'{"a":1}x',
            b"{}{}",
            b"[1]]",
            b"1 2",
            b"[1,]",
            b'{"a":1,}',
            b"[",
            b'{"a"',
            b'"a',
            b"'a'",
            b"{a:1}",
        ),
        *(b"01", b"+1", b"1.", b".5", b"0x1", b"1_000", b"tru", b"None", b"undefined", b"// c\n1", b"[1 2]"),
        *(b'"\\x41"', b'"\\u12"', b"nan", b"inf", b"+Infinity", b"-NaN", b"NaN1", b"[NaN,]", b"Infinity x"),
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert refusal(body).startswith("the body is not JSON: ")


def test_a_refusal_tells_the_place() -> None:
    assert refusal(b'{"a": 1,\n "b": x}').endswith("line 2 column 7 (char 15)")
    assert refusal(b'{"a": NaN,\n "b": x}').endswith("line 2 column 7 (char 17)")


def test_nan_and_the_infinities_are_numbers_as_bare_tokens() -> None:
    parsed = parse_json(b'{"instances": [NaN, Infinity, -Infinity, 1, 2.5, "NaN"]}')["instances"]
    assert [repr(value) for value in parsed] == ["nan", "inf", "-inf", "1", "2.5", "'NaN'"]
    assert parse_json(b'"Infinity"') == "Infinity"


@pytest.mark.parametrize("body", [b'{"a":1,"b":2,"a":{"c":3}}', b'{"a":[1],"b":2,"a":{"c":3}, "n": NaN}'])
def test_of_duplicate_keys_the_last_one_wins(body: bytes) -> None:
    assert parse_json(body)["a"] == {"c": 3}


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" + b"0" * 400, b"9" * 5000, b"9" * 5000 + b".0"])
@pytest.mark.parametrize("rest", [b"", b", NaN", b", Infinity"])
def test_a_number_too_large_for_a_double_never_becomes_infinity(number: bytes, rest: bytes) -> None:
    body = b"[%b%b]" % (number, rest)
    if number.isdigit() and len(number) < 4300 and rest:
        # The parser that knows these tokens keeps whole numbers as they are; the codec knows their limits.
        assert parse_json(body)[0] == int(number)
    else:
        message = refusal(body)
        assert message.startswith("the body is not JSON: ")
        assert len(message) < 300


def test_a_fraction_of_5000_digits_is_read() -> None:
    assert parse_json(b"[0." + b"1" * 5000 + b"]") == [1 / 9]


TOO_DEEP = f"the JSON is nested more than {MAX_DEPTH} levels deep"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_nesting_is_read_to_64_levels(opening: bytes, closing: bytes) -> None:
    levels = opening.count(b"[") + opening.count(b"{")
    deepest = MAX_DEPTH // levels
    for value in (b"1", b"NaN", b'"]}[{"'):
        assert parse_json(opening * deepest + value + closing * deepest) is not None
        assert refusal(opening * (deepest + 1) + value + closing * (deepest + 1)) == TOO_DEEP


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"":', b'["\\"[",', b"[1,[NaN,"])
def test_nesting_of_100_000_levels_is_refused(opening: bytes) -> None:
    assert refusal(opening * 100_000) == TOO_DEEP
    assert refusal(b" \n[" + opening * 100_000) == TOO_DEEP


@pytest.mark.parametrize(
    "string",
    [b"[" * 200, b"{" * 200, rb"\"" + b"[" * 200, rb"\\" * 3 + rb"\"" + b"[" * 200, rb"\u005c" + b"[" * 200],
)
def test_brackets_in_strings_do_not_count(string: bytes) -> None:
    body = b'{"a": "' + string + b'", "b": [1]}'
    assert parse_json(body) == orjson.loads(body)


def test_an_escaped_backslash_ends_no_string() -> None:
    # The string is a single backslash; what follows it is structure.
    assert refusal(rb'["\\", ' + b"[" * 100) == TOO_DEEP
    assert refusal(rb'["\\\\", ' + b"[" * 100) == TOO_DEEP
    assert parse_json(rb'["\\\"' + b"[" * 100 + b'"]') == ['\\"' + "[" * 100]


def test_many_shallow_arrays_are_not_deep() -> None:
    rows = b"[" + b",".join([b'[[1],{"a\\"[":"]"}]'] * 5000) + b"]"
    assert len(parse_json(rows)) == 5000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('[]{}"\\'), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)  # fmt: skip


@given(JSON, st.integers(0, 70))
def test_any_document_is_read_as_it_was_written(value: Any, depth: int) -> None:
    document = orjson.dumps(value)
    assert parse_json(document) == value
    assert parse_json(b"\xef\xbb\xbf [" + document + b", NaN]")[0] == value
    # Wrapped into more arrays, it is refused exactly where the levels are over 64.
    levels = depth + _depth(value)
    wrapped = b"[" * depth + document + b"]" * depth
    if levels <= MAX_DEPTH:
        assert parse_json(wrapped) == orjson.loads(wrapped)
    else:
        assert refusal(wrapped) == TOO_DEEP


def _depth(value: Any) -> int:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(_depth, inner), default=0)
    return 0


@given(
    st.binary(max_size=60)
    | st.text(st.sampled_from('[]{}",:\\01.eE-NaInfty ut\n'), max_size=60).map(str.encode)
)
@settings(max_examples=500)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with suppress(InvalidInput):
        parse_json(body)
