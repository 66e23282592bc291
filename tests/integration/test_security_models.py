"""What a hostile client sends to real models: names that are none, and pictures that unpack to gigabytes."""

import base64
import re
import struct
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.integration.conftest import Up, eventually, start_serve
from tests.integration.proxy import Proxy
from tests.integration.test_hostile import send_raw

MOST_GROWTH = 50 << 20
MARK = "evilmark"
NAMES = [
    f"{MARK}*",
    f"{MARK}>",
    f"*.{MARK}",
    f"{MARK}.>",
    f"..%2F{MARK}",
    f"%2e%2e%2f{MARK}",
    f"%252e%252e{MARK}",
    f"{MARK}%00",
    f"{MARK}%0d%0aX-Evil:%20x",
    f"{MARK}%20",
    f"{MARK}%5c",
    f"{MARK}%C3%A9",
    f"{MARK}%FF",
    f"{MARK}$",
    f"{MARK}@1@2",
    f"{MARK}@../1",
    f"{MARK * 17}",
]


def test_hostile_names_reach_neither_nats_nor_triton(up: Up, tmp_path: Path) -> None:
    nats = urlsplit(up.facts["nats_url"])
    host, port = up.facts["triton_grpc"].split(":")
    assert nats.port
    with (
        Proxy((host, int(port))).running() as triton,
        Proxy(("127.0.0.1", nats.port)).running() as queue,
    ):
        servers = {"ADAPTER_TRITON_GRPC_URL": triton.address, "ADAPTER_NATS_URL": f"nats://{queue.address}"}
        with start_serve(up, tmp_path, **servers) as client:
            for name in NAMES:
                for method, path in (
                    ("GET", f"/v1/models/{name}"),
                    ("GET", f"/models/{name}"),
                    ("GET", f"/v1/models/sklearn-iris/versions/{name}"),
                    ("POST", f"/v1/models/{name}:predict"),
                    ("GET", f"/inference/{name}"),
                ):
                    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    request = head + "X-API-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}"
                    answer, _ = send_raw(client, request)
                    assert re.match(r"HTTP/1\.1 4\d\d ", answer), (path, answer)
                body = {"model_id": name, "input_data": {"instances": [[1, 2, 3, 4]]}}
                assert client.post("/inference", json=body).status_code in (400, 404)
            # The proxies do see what may pass.
            good = client.post("/v1/models/sklearn-iris:predict", json={"instances": [[1, 2, 3, 4]]})
            job = client.post(
                "/inference", json={"model_id": "sklearn-iris", "input_data": {"instances": [[1, 2, 3, 4]]}}
            )
            assert (good.status_code, job.status_code) == (200, 202)
        assert b"sklearn-iris" in triton.sent
        assert job.json()["request_id"].encode() in queue.sent
        assert MARK.encode() not in triton.sent
        assert MARK.encode() not in queue.sent


def peak(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int) -> bytes:
    """A whole picture of one colour, with `side` squared pixels of one bit."""
    row = b"\0" + bytes((side + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [20_000, 60_000])
def test_an_image_bomb_is_refused_unopened(up: Up, side: int) -> None:
    bomb = png(side)
    assert len(bomb) < 1 << 20
    instance = {"image_bytes": {"b64": base64.b64encode(bomb).decode()}}
    assert up.predict("imagenet", {"instances": [instance]}).status_code == 400
    triton = [
        child.pid for pid in up.pids("triton") for child in psutil.Process(pid).children(recursive=True)
    ]
    before = {pid: peak(pid) for pid in [*up.pids("api"), *triton]}
    answer = up.predict("imagenet", {"instances": [instance]})
    assert answer.status_code == 400
    assert f"{side} x {side} is more than 50 million pixels" in answer.json()["error"]
    for pid, size in before.items():
        assert peak(pid) - size < MOST_GROWTH
    eventually(up.ready)
