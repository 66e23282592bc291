"""Ends with 0 when this container's operations listener says that the process lives, else with 1."""

import http.client
import os
import ssl
import sys


def main() -> int:
    """Ask `/livez`, over TLS when the listener speaks it: off loopback, with a certificate."""
    host = os.environ.get("ADAPTER_OPS_HOST", "127.0.0.1")
    port = int(os.environ.get("ADAPTER_OPS_PORT", "8081"))
    loopback = host == "localhost" or host.startswith("127.") or host == "::1"
    # Whoever listens on every address is asked on this one.
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    if os.environ.get("ADAPTER_TLS_CERT_FILE") and not loopback:
        # The certificate names the service, not this address; it is this very container that is asked.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(address, port, timeout=4, context=context)
    else:
        connection = http.client.HTTPConnection(address, port, timeout=4)
    try:
        connection.request("GET", "/livez")
        return 0 if connection.getresponse().status == http.client.OK else 1
    except OSError as error:
        sys.stderr.write(f"no answer from {address}:{port}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
