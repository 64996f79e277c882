"""Texts in pictures: cut to a length, wrapped into lines, and escaped for each format.

Invariant: no name can end a label, open a tag or a comment, or reorder the text around it.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate

LONGEST = 80
"""Characters of a label in the formats that have no room of their own to keep to."""
WIDE = 1.7
"""Columns of a character that is as wide as it is high."""
NOT_XML = re.compile("[^\t\n\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""What XML 1.0 does not admit: https://www.w3.org/TR/xml/#charsets."""
PLAIN = frozenset(" -_.,…·\u00d7✓✗⊘↩▶○»◆")
NARROW = frozenset("iljtfI.,:;'|!()[]{}/\\ 1r-")
BROAD = frozenset("mwMW@%—…")


def printable(text: str) -> str:
    """``text`` on one line: what moves or hides the text around it is escaped, as Python writes it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def cut(text: str, most: int = LONGEST) -> str:
    """``text`` with at most ``most`` characters; a longer one ends with ``…``."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def fitted(text: str, room: float) -> str:
    """``text`` in at most ``room`` columns; a longer one ends with ``…``."""
    return text if columns(text) <= room else f"{text[: _fitting(text, room - columns('…'))].rstrip()}…"


def columns(text: str) -> float:
    """The width of ``text`` in a proportional font, in average characters of lower case."""
    return sum(map(_column, text))


def _column(char: str) -> float:
    if unicodedata.combining(char):
        return 0.0
    if unicodedata.east_asian_width(char) in "WF":
        return WIDE
    if char in NARROW:
        return 0.62
    if char in BROAD:
        return 1.5
    return 1.22 if char.isupper() or char in "&#" else 1.0


def wrapped(text: str, *, room: float, lines: int) -> Sequence[str]:
    """``text`` in at most ``lines`` lines of ``room`` columns: broken between words where it can be, then cut."""
    found: list[str] = []
    rest = text
    while rest and len(found) < lines - 1 and columns(rest) > room:
        fits = _fitting(rest, room)
        place = max(rest.rfind(sign, fits // 3, fits + (sign == " ")) + (sign != " ") for sign in " -_./")
        place = place if place > fits // 3 else fits
        found.append(rest[:place].strip())
        rest = rest[place:].strip()
    return [*found, fitted(rest, room)]


def _fitting(text: str, room: float) -> int:
    """How many characters of ``text`` fit, at least one."""
    return max(sum(taken <= room for taken in accumulate(map(_column, text))), 1)


def xml(text: str) -> str:
    """``text`` for XML, in an element or an attribute; what XML cannot hold is replaced."""
    kept = NOT_XML.sub("\ufffd", text)
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        kept = kept.replace(char, entity)
    return kept


def mermaid(text: str) -> str:
    """``text`` for a quoted label of Mermaid: all but letters, digits and a few signs as numbered entities."""
    return "".join(char if char.isalnum() or char in PLAIN else f"#{ord(char)};" for char in text)


def plain(text: str) -> str:
    """``text`` where Mermaid takes no entities: other signs are left out."""
    return " ".join("".join(char if char.isalnum() or char in "-_.·" else " " for char in text).split())


def dot(text: str) -> str:
    """``text`` for a quoted string of DOT, where Graphviz reads entities and backslashes."""
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
