"""HTML that is safe by construction: every string is escaped unless it was built here as `Markup`."""

from __future__ import annotations

import html
import re

__all__ = ["Markup", "element", "join"]

_VOID = frozenset({"link", "meta"})
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str | float | None, **attributes: str | float | None) -> Markup:
    """One element.

    Args:
        name: the element's name.
        children: its content in order; strings are escaped, `Markup` is not, None is left out.
        attributes: `class_` stands for class, other underscores for hyphens; None leaves the attribute out.
    """
    pairs = (
        f' {key.rstrip("_").replace("_", "-")}="{_escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    opening = f"<{name}{''.join(pairs)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(*children)}</{name}>")


def join(*children: str | float | None) -> Markup:
    """Children in a row, escaped as `element` does."""
    return Markup("".join(_escape(child) for child in children if child is not None))


def _escape(value: str | float) -> str:
    """Escape a value for the content of an element and for a quoted attribute.

    Control characters, direction overrides and lone surrogates become U+FFFD: HTML and UTF-8 cannot hold some of them,
    and others would let a name rearrange the text around it.
    """
    return value if isinstance(value, Markup) else html.escape(_CONTROL.sub("\ufffd", str(value)), quote=True)
