"""Who may ask what: a bearer token, read-only mode, and no requests from other sites' pages.

A service without a token on this machine alone is still reached by every page that its user's
browser shows, so what another site's page sends is refused, and names of hosts that only pretend
to be this machine (DNS rebinding) are too.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from milan_onnx.serve.errors import Refusal, from_error
from milan_onnx.serve.settings import LOOPBACK, ServeSettings

READING = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS = frozenset({"/healthz", "/readyz"})


class Guard:
    """ASGI middleware: refuses before a body is read."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        open_paths: Collection[str],
        harmless: Collection[str],
    ) -> None:
        """``open_paths`` need no token, ``harmless`` paths write nothing."""
        self._app = app
        self._settings = settings
        self._open = OPEN_PATHS.union(open_paths)
        self._harmless = frozenset(harmless)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await from_error(refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        checks: tuple[Callable[[], Refusal | None], ...] = (
            lambda: self._wrong_host(headers, path),
            lambda: _other_site(headers, method),
            lambda: self._no_token(headers, path),
            lambda: self._writes(path, method),
        )
        return next((found for check in checks if (found := check())), None)

    def _wrong_host(self, headers: Headers, path: str) -> Refusal | None:
        alone = self._settings.local and self._settings.token is None
        if not alone or path in OPEN_PATHS or _host(headers.get("host", "")) in LOOPBACK:
            return None
        return Refusal(
            403,
            "this service answers on this machine's own name only",
            hint="ask 127.0.0.1 or localhost, or start it with a token",
        )

    def _no_token(self, headers: Headers, path: str) -> Refusal | None:
        if self._settings.token is None or path in self._open:
            return None
        if bearer(headers.get("authorization", ""), self._settings.token):
            return None
        return Refusal(
            401,
            "the token is missing or wrong",
            hint="send `Authorization: Bearer TOKEN`",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _writes(self, path: str, method: str) -> Refusal | None:
        if not self._settings.read_only or method in READING or path in self._harmless:
            return None
        return Refusal(403, "this service is read-only", hint="start it without --read-only")


def bearer(header: str, token: str) -> bool:
    """Whether an Authorization header carries the token; takes as long for any wrong one."""
    kind, _, given = header.partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    return same and kind.lower() == "bearer"


def _other_site(headers: Headers, method: str) -> Refusal | None:
    """What a page of another site sends, though its reader did not ask for it."""
    origin = headers.get("origin")
    if method in READING or origin is None or urlsplit(origin).netloc == headers.get("host"):
        return None
    return Refusal(403, f"a page of {origin[:100]} may not ask this", hint="ask from its own page")


def _host(header: str) -> str:
    """The name in a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
