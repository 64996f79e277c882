"""Tags of a run: pairs of texts by which people and programs search for it, such as ``customer`` and ``42``.

Invariant: equal tags have one stored form, JSON of an object with its keys in order; no tags are None.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from durable_core.errors import PayloadError
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.texts import check_text

TAGGED = "tag:"
"""With the prefix of a child's keys, or nothing for the run itself: a tag was set. The payload is a ``Tagged``."""
MOST_TAGS = 16
LONGEST_KEY = 64
LONGEST_VALUE = 256
NUL = "\0"


class Tagged(NamedTuple):
    """One tag, as a body has set it."""

    key: str
    value: str


def tag_in(entry: Entry) -> Tagged:
    """The tag of a mark that says so."""
    return msgspec.json.decode(entry.payload or b"[]", type=Tagged)


def tags_in(entries: Iterable[Entry], child: str = "") -> dict[str, str]:
    """The tags that the code of a run, or of the child whose keys begin so, has set."""
    key = f"{TAGGED}{child}"
    return dict(tag_in(entry) for entry in entries if entry.kind == EntryKind.MARKED and entry.key == key)


def check_tags(tags: Any, what: str) -> dict[str, str]:
    """The tags as a dict of their own, once they are known to be tags.

    Args:
        tags: what a user gave, or None.
        what: names it, for the message: "starting order: tags".

    Raises:
        PayloadError: no mapping, too many, too long, or no texts.
    """
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise PayloadError(f'{what} is {type(tags).__name__}; give a dict of texts, such as {{"customer": "42"}}')
    given: Mapping[Any, Any] = tags  # pyright: ignore[reportUnknownVariableType] - checked one by one
    found = dict(given)
    for key, value in found.items():
        check_tag(key, value, what)
    if len(found) > MOST_TAGS:
        raise PayloadError(f"{what} has {len(found)} tags; at most {MOST_TAGS} are possible. Nothing was changed")
    return found


def check_tag(key: Any, value: Any, what: str) -> None:
    """Refuse one pair; see ``check_tags``."""
    _check(key, LONGEST_KEY, f"{what}: the key of a tag")
    if not key:
        raise PayloadError(f"{what}: the key of a tag is empty. Nothing was changed")
    _check(value, LONGEST_VALUE, f"{what}: the tag {key!r}")


def _check(text: Any, longest: int, what: str) -> None:
    check_text(text, what)
    if len(text) > longest:
        raise PayloadError(f"{what} has {len(text)} characters; at most {longest} are possible. Nothing was changed")
    if NUL in text:
        raise PayloadError(f"{what} holds the character NUL, which no store can search for. Nothing was changed")


def write_tags(tags: Mapping[str, str]) -> str | None:
    """The stored form of checked tags."""
    return msgspec.json.encode(dict(sorted(tags.items()))).decode() if tags else None


def read_tags(stored: str | None) -> dict[str, str]:
    """Tags from their stored form."""
    return {} if stored is None else msgspec.json.decode(stored, type=dict[str, str])
