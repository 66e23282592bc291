"""Clients that hang up before their answer: what is done for nobody but them ends with them."""

from starlette.types import Scope

END_WITH_CLIENT = "adapter.end_with_client"
"""An extension of ASGI, a function: its task is cancelled if the client hangs up before the answer begins."""


def end_with_client(scope: Scope) -> None:
    """Called once a request has nothing left to do but what its answer is about: an inference, or to wait.

    A server that does not offer that lets it go on.
    """
    end = scope.get("extensions", {}).get(END_WITH_CLIENT)
    if end is not None:
        end()
