"""NUL in a text, which PostgreSQL cannot hold: it is written as two characters that stand for it.

Invariant: ``plain(escaped(text)) == text``, and a text without the characters 0 and 1 is its own escaped form.
"""


def escaped(text: str) -> str:
    """``text`` as it is stored."""
    if "\0" in text or "\x01" in text:
        return text.replace("\x01", "\x01\x01").replace("\0", "\x01\x02")
    return text


def plain(text: str) -> str:
    """``text`` as it was before it was stored."""
    if "\x01" not in text:
        return text
    return "\x01".join(part.replace("\x01\x02", "\0") for part in text.split("\x01\x01"))
