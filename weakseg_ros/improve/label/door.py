# SPDX-License-Identifier: Apache-2.0
"""Who and what comes in to the page's server: pages of this machine alone, and messages that the page itself sends.

Any site may connect to localhost, and its name may be made to mean 127.0.0.1 (DNS rebinding): only the headers Origin and Host
tell. viser looks at neither, and a message that it cannot read costs the connection.
"""

from __future__ import annotations

import contextlib
import functools
import http
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import viser

log = logging.getLogger(__name__)

_HERE = r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
OWN_ORIGIN, OWN_HOST = re.compile(rf"https?://{_HERE}"), re.compile(_HERE)
REFUSED = ("ShareUrl", "FileTransfer")
"""beginnings of the names of messages that the page never sends: a tunnel to the outside, and uploads"""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Servers started in this block let in only what belongs to the page."""
    from websockets.asyncio import server

    serve = server.serve
    server.serve = functools.partial(_serve, serve)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        server.serve = serve  # type: ignore[misc]


def keep_inside(server: viser.ViserServer) -> None:
    """Take from a server the ways to the outside that viser gives it, and tell its faults in a line each."""
    from viser import _messages

    for kind in (_messages.ShareUrlRequest, _messages.ShareUrlDisconnect):
        server._websock_server.unregister_handler(kind)
    server.request_share_url = lambda verbose=True: None  # type: ignore[method-assign]
    server._event_loop.set_exception_handler(_tell)


def _serve(serve: Callable[..., Any], handler: Callable[[Any], Awaitable[None]], *places: Any, **options: Any) -> Any:
    answer = options.pop("process_request", None)

    def process_request(connection: Any, request: Any) -> Any:
        if not OWN_HOST.fullmatch(request.headers.get("Host", "")):
            return connection.respond(http.HTTPStatus.FORBIDDEN, "This page is for this machine alone.\n")
        return answer(connection, request) if answer else None

    async def checked(connection: Any) -> None:
        connection.recv = functools.partial(_recv, connection.recv)
        await handler(connection)

    return serve(checked, *places, origins=[OWN_ORIGIN, None], process_request=process_request, **options)


async def _recv(recv: Callable[[], Awaitable[Any]]) -> Any:
    """The next message that viser can read."""
    while True:
        raw = await recv()
        fault = fault_of(raw)
        if not fault:
            return raw
        log.warning("the page's server left a message out: %s", fault)


def fault_of(raw: Any) -> str:
    """Why a message is none of the page's; empty where it is one."""
    from viser import _messages

    if not isinstance(raw, bytes):
        return "it is text"
    try:
        message = _messages.Message.deserialize(raw)
    except Exception as error:  # what others send may break a reader anywhere
        return f"it cannot be read ({type(error).__name__})"
    name = type(message).__name__
    if name.startswith(REFUSED):
        return f"{name} is refused"
    if isinstance(message, _messages.GuiUpdateMessage):
        updates: Any = message.updates
        if not isinstance(updates, dict) or set(updates) - {"value"} or not isinstance(message.uuid, str):
            return f"{name} sets what is not for it to set"
    return ""


def _tell(loop: Any, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.warning("the page's server: %s", f"{type(error).__name__}: {error}" if error else context.get("message"))
