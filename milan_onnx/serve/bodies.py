"""How much a client may send, and for how long: bodies are counted as they come.

A body without a length, or one that lies about it, is cut off all the same. All bodies in memory
together have a budget, so many clients that send slowly cost no more than it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from milan_onnx.serve.errors import Refusal, from_error, too_much
from milan_onnx.serve.settings import MIB, ServeSettings

UNREAD = MIB
"""Bytes that are read and thrown away of an unwanted body; beyond it the connection ends."""
SLOWEST = 128 << 10
"""Bytes a second that an upload may be slow."""


class Bodies:
    """ASGI middleware: 413, 408 and 429 by what the body is, while it arrives."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, uploads: Mapping[str, int]) -> None:
        """``uploads``: paths whose bodies go to disk, and how many bytes they may be long."""
        self._app = app
        self._settings = settings
        self._uploads = uploads
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self, scope, receive)
        try:
            body.check_length()
            await self._app(scope, body.receive, body.closing(send))
        except Refusal as refusal:
            await from_error(refusal)(scope, receive, body.closing(send))
        finally:
            self._held -= body.held

    def limit(self, path: str) -> int:
        """Bytes that a body for this path may be long."""
        return self._uploads.get(path, self._settings.max_body)

    def seconds(self, path: str) -> float:
        """How long it may take."""
        longer = self._uploads.get(path, 0) / SLOWEST
        return max(self._settings.body_seconds, longer)

    def hold(self, path: str, count: int) -> int:
        """Count bytes that stay in memory. Raises Refusal (429) beyond the budget."""
        if path in self._uploads:
            return 0
        if self._held + count > self._settings.max_pending:
            raise too_much("other requests' bodies fill the memory set aside for them", 1)
        self._held += count
        return count


class _Body:
    """One request's body."""

    def __init__(self, bodies: Bodies, scope: Scope, receive: Receive) -> None:
        self.held = 0
        self._bodies, self._path, self._receive = bodies, scope["path"], receive
        self._limit = bodies.limit(self._path)
        self._until = asyncio.get_running_loop().time() + bodies.seconds(self._path)
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        self._chunked = "transfer-encoding" in headers
        self._length = int(length) if length.isdecimal() else 0
        self._seen, self._complete = 0, not (self._chunked or self._length)
        self._late = False

    def check_length(self) -> None:
        """Refuse what says that it is too long."""
        if self._length > self._limit:
            raise self._too_long()

    async def receive(self) -> Message:
        """The next message, counted."""
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            self._late = True
            raise Refusal(408, "the body took too long to arrive") from error
        if message["type"] == "http.request":
            self._count(len(message.get("body", b"")))
            self._complete = not message.get("more_body", False)
        return message

    def closing(self, send: Send) -> Send:
        """Sends an answer; ends the connection where much of the body was not read."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and self._much_is_left():
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        return sending

    def _count(self, count: int) -> None:
        self._seen += count
        if self._seen > self._limit:
            raise self._too_long()
        self.held += self._bodies.hold(self._path, count)

    def _much_is_left(self) -> bool:
        left = self._length - self._seen > UNREAD
        return not self._complete and (self._chunked or left or self._late)

    def _too_long(self) -> Refusal:
        return Refusal(
            413,
            f"the body is longer than {self._limit} bytes",
            hint="send less at once, or raise the service's limit",
        )
