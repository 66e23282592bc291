"""One V2 request to the adapter and to Triton itself, and their two answers side by side."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

HEADER = "Inference-Header-Content-Length"
NUMPY = {
    **{"BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8"},
    **{"UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8"},
    **{"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"},
}


def binary(datatype: str, values: Sequence[Any]) -> bytes:
    """The binary form of flat values; BF16 values are given as their 16 bits."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    return np.array(values, "<u2" if datatype == "BF16" else NUMPY[datatype]).tobytes()


@dataclass
class Answer:
    """An answer in which equal values are equal: elements of the JSON as the bytes that they stand for."""

    status: int
    content_type: str
    document: Any
    tail: bytes


def read(response: httpx.Response) -> Answer:
    """Take an answer apart."""
    size = int(response.headers.get(HEADER, len(response.content)))
    document = json.loads(response.content[:size]) if size else None
    if response.status_code == 200 and isinstance(document, dict):
        for output in document.get("outputs", []):
            if "data" in output:
                datatype, values = output["datatype"], output["data"]
                if datatype == "BYTES":
                    values = [value.encode() for value in values]
                output["data"] = binary(datatype, values)
    content_type = response.headers.get("content-type", "")
    return Answer(response.status_code, content_type, document, response.content[size:])


class Pair:
    """The adapter and its Triton."""

    def __init__(self, url: str, key: str, triton: str) -> None:
        plain = {"Accept-Encoding": "identity"}
        self.ours = httpx.Client(base_url=url, headers={"X-API-Key": key, **plain}, timeout=60)
        self.triton = httpx.Client(base_url=f"http://{triton}", headers=plain, timeout=60)

    def infer(
        self, model: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[Answer, Answer]:
        """The answers to one and the same request: ours, Triton's."""
        ours, triton = (
            client.post(f"/v2/models/{model}/infer", content=body, headers=headers)
            for client in (self.ours, self.triton)
        )
        return read(ours), read(triton)

    def get(self, path: str) -> tuple[Any, Any]:
        """The JSON that both answer to a GET, which must succeed."""
        ours, triton = self.ours.get(path), self.triton.get(path)
        assert (ours.status_code, triton.status_code) == (200, 200), (ours.text, triton.text)
        return ours.json(), triton.json()

    def close(self) -> None:
        """Let go of both."""
        self.ours.close()
        self.triton.close()


def message(document: Mapping[str, Any], *tail: bytes) -> tuple[bytes, dict[str, str]]:
    """A body of JSON and what follows it, and the headers that say so."""
    head = json.dumps(document).encode()
    return b"".join((head, *tail)), {HEADER: str(len(head))} if tail else {}
