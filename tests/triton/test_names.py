"""What ADAPTER_TRITON_GRPC_URL may be, and what it stands for."""

import asyncio
import socket
from typing import Any

import pytest
from pydantic import ValidationError

from adapter.settings import Settings
from adapter.triton.names import Address, Names


def test_a_list_is_what_it_says() -> None:
    found = asyncio.run(Names("a:1, [::1]:2,a:1").look_up())
    assert found == [Address("a:1", "a:1"), Address("[::1]:2", "[::1]:2")]


@pytest.mark.parametrize(
    ("preferred", "expected"), [("6", ["[fd00::1]:1", "[fd00::2]:1"]), ("4", ["10.0.0.1:1", "10.0.0.2:1"])]
)
def test_a_machine_with_addresses_of_both_families_counts_once(
    monkeypatch: pytest.MonkeyPatch, preferred: str, expected: list[str]
) -> None:
    four = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{n}", 1)) for n in (1, 2)]
    six = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (f"fd00::{n}", 1, 0, 0)) for n in (1, 2)]

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        return [*six, *four] if preferred == "6" else [*four, *six]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = asyncio.run(Names("dns:///tritons.test:1,b:2").look_up())
    assert [address.target for address in found] == ["b:2", *expected]
    assert {address.authority for address in found} == {"b:2", "tritons.test:1"}


@pytest.mark.parametrize(
    ("urls", "several"),
    [
        ("127.0.0.1:8001", False),
        ("[::1]:8001", False),
        ("a:1,b:2", True),
        (" a:1 , dns:///tritons.default.svc:8001", True),
        ("dns:///tritons:8001", True),
    ],
)
def test_addresses_that_can_be(urls: str, several: bool) -> None:
    settings = Settings(triton_grpc_url=urls)
    assert settings.several_tritons is several
    assert settings.triton_grpc_url == urls.replace(" ", "")


@pytest.mark.parametrize(
    "urls",
    [
        "",
        "host",
        "host:",
        ":8001",
        "a:1,",
        "a:1 b:2",
        "http://a:1",
        "dns://8.8.8.8/a:1",
        "a:0",
        "a:65536",
        "u@a:1",
    ],
)
def test_addresses_that_cannot_be(urls: str) -> None:
    with pytest.raises(ValidationError, match="triton_grpc_url"):
        Settings(triton_grpc_url=urls)


def test_shared_memory_needs_one_triton() -> None:
    with pytest.raises(ValidationError, match="ADAPTER_V2_SHARED_MEMORY needs one Triton"):
        Settings(triton_grpc_url="dns:///tritons:8001", v2_shared_memory=True)
