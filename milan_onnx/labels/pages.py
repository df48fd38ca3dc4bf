"""Offline HTML pages: one file, no network, nothing on it may run or style but its own.

All text is untrusted. What a template writes is escaped, data for a script is JSON with every ``<``
escaped, and the content policy allows nothing but the page's own script and style (by hash) and
embedded images.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup


def render(source: str, *, style: str, script: str = "", **values: Any) -> bytes:
    """A page from a Jinja template, in UTF-8.

    The template gets ``values``, and ``policy``, ``style`` and ``script``.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.from_string(source).render(
        # Hashes in the policy: nothing else on the page may run, whatever a label says.
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        **values,
    )
    return html.encode("utf-8", "replace")


def template(package: str, name: str) -> str:
    """The text of a file in the folder ``templates`` of a package."""
    return (resources.files(package) / "templates" / name).read_text(encoding="utf-8")


def page_style() -> str:
    """The style that all pages share: colours, light and dark, and the header."""
    return template("milan_onnx.labels", "page.css")


def script_json(value: Any) -> Markup:
    """JSON that cannot end, or open a comment in, the script element that holds it."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    escaped = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(escaped)


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {_source_hash(style)}",
            f"script-src {_source_hash(script)}" if script else "script-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _source_hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode('ascii')}'"
