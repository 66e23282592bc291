"""HTTP as uvicorn speaks it, with what is no HTTP refused in the contracts' form."""

from starlette.datastructures import MutableHeaders
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapter.contracts.errors import error_body


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed, as far as it came, and hang up."""
        path = (self.url or b"").partition(b"?")[0].decode(errors="replace")
        answer = error_body(path, 400, "malformed_request", "the request is malformed HTTP")
        headers = MutableHeaders(raw=answer.raw_headers)
        headers["Connection"] = "close"
        lines = [b"HTTP/1.1 400 Bad Request", *(b"%b: %b" % header for header in headers.raw)]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()
