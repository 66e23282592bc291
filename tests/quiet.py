"""An application on a server of the adapter's own, in a thread of the test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread

import uvloop
from starlette.types import ASGIApp

from adapter.listener import QuietServer, config
from adapter.security.tls import server_tls
from adapter.settings import Settings
from adapter.sockets import listen


@contextmanager
def quiet_server(
    application: ASGIApp, settings: Settings, refused: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[QuietServer, tuple[str, int]]]:
    """The server, and the address where it listens; `refused` is told the code of what it refuses."""
    served = QuietServer(config(application, settings, server_tls(settings), refused))
    with ExitStack() as stack:
        listening = stack.enter_context(listen("127.0.0.1", 0, ""))
        thread = Thread(target=lambda: uvloop.run(served.serve(sockets=[listening])))
        thread.start()
        stack.callback(thread.join)
        stack.callback(lambda: setattr(served, "should_exit", True))
        yield served, listening.getsockname()
