"""The web page at ``/``: runs live, a form to start one, labels searched, units with exemplars.

One HTML file, one style and one script, all from the package; nothing is loaded from elsewhere. The
page holds no data, so it needs no token: its script asks the service for everything, with the token
that its reader gives, and shows it as text only.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Response

from milan_onnx import __version__
from milan_onnx.labels.pages import page_style, template

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
HOME, STYLE, SCRIPT = "/", "/page/page.css", "/page/page.js"


class PagePart:
    """The page as a part of the service."""

    open_paths: frozenset[str] = frozenset({HOME, STYLE, SCRIPT})
    harmless: frozenset[str] = frozenset()
    uploads: Mapping[str, int] = {}

    def router(self) -> APIRouter:
        """The page's files."""
        routes = APIRouter(include_in_schema=False)

        @routes.get(HOME)
        def home() -> Response:
            return _answer(_text("index.html").replace("VERSION", __version__), "text/html")

        @routes.get(STYLE)
        def style() -> Response:
            return _answer(page_style() + _text("page.css"), "text/css")

        @routes.get(SCRIPT)
        def script() -> Response:
            return _answer(_text("page.js"), "text/javascript")

        return routes

    async def start(self) -> None:
        """Nothing to begin."""

    def hush(self) -> None:
        """Nothing to hush."""

    async def stop(self) -> None:
        """Nothing to end."""

    def waits_for(self) -> str:
        """Nothing."""
        return ""


def _text(name: str) -> str:
    return template("milan_onnx.serve.page", name)


def _answer(text: str, kind: str) -> Response:
    return Response(text, media_type=f"{kind}; charset=utf-8", headers=HEADERS)
