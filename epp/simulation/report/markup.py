"""HTML and SVG from pieces that cannot be mixed up with text.

What is not :class:`Markup` is text from somewhere, and is escaped on its way in. So no name of a
tenant or a scenario can become markup, whoever chose it.
"""

import html
import re
from typing import Final

__all__ = ["Markup", "coordinate", "join", "shortened", "tag", "text"]

_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 allows in no document, not even as a reference (section 2.2, Char)."""

_CHILDLESS: Final = frozenset({"circle", "line", "path", "rect"})


class Markup(str):
    """Text that is markup already, with all that came from outside escaped."""

    __slots__ = ()


def text(value: str) -> Markup:
    """Return the text as markup that shows just that text; Markup stays as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_ILLEGAL.sub("\ufffd", value)))


def join(*pieces: str, separator: str = "") -> Markup:
    """Return the pieces one after the other, text among them escaped."""
    return Markup(separator.join(text(piece) for piece in pieces))


def tag(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """Return an element.

    An underscore at the end of an attribute's name is dropped, others become hyphens; numbers are
    written as coordinates; an attribute that is None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _CHILDLESS and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def shortened(value: str, most: int) -> str:
    """Return the text cut to so many characters, an ellipsis for what is gone."""
    return value if len(value) <= most else f"{value[: most - 1]}…"


def coordinate(value: float) -> str:
    """Return a number for a drawing, to a tenth of its unit."""
    written = f"{value:.1f}"
    if written.endswith(".0"):
        written = written[:-2]
    return "0" if written == "-0" else written


def _attribute(value: str | float) -> str:
    return text(value) if isinstance(value, str) else coordinate(value)
