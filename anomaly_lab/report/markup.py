"""HTML made of escaped texts: what is no `Markup` is text, whoever wrote it."""

import json
from html import escape
from typing import Any, final

VOID = {"img", "input", "meta", "col"}


@final
class Markup(str):
    """Text that is HTML already; only `element` and `joined` make it, and this project's own files."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: object) -> Markup:
    """Return an element; what is no `Markup` among its children is escaped, and so are all attributes.

    An underscore in an attribute's name is a hyphen, and one at its end is dropped (``class_``). True is an
    attribute without a value; None and False leave it out.
    """
    given = [
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    ]
    opened = f"<{name}{''.join(given)}>"
    return Markup(opened if name in VOID else f"{opened}{joined(children)}</{name}>")


def joined(children: "list[str] | tuple[str, ...]") -> Markup:
    """Return what stands one after the other."""
    return Markup("".join(one if isinstance(one, Markup) else escape(one, quote=False) for one in children))


def data(name: str, content: Any) -> Markup:
    """Return JSON that a script finds by its name; no text in it can end the element.

    What HTML would read within a script is written as JavaScript's escapes, which are the same text.
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return element("script", Markup(safe), type="application/json", id=name)
