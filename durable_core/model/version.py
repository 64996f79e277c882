"""Which versions of a durable function there are: what workers say that they serve, and the runs of each.

Invariant: a version is served while a living worker says so; that one was ever announced says nothing of today.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from durable_core.model.run import RunStatus


class Offer(NamedTuple):
    """What a worker says that it serves."""

    name: str
    version: int
    fingerprint: str = ""
    """Of the body, opaque to the core; empty where nobody worked one out. Another one means other code."""


class Announced(NamedTuple):
    """A version that some worker has announced, now or long ago."""

    name: str
    version: int
    fingerprint: str
    """The one announced last."""
    at_ns: int
    """When it was announced with this fingerprint first, in ns since the epoch."""
    workers: tuple[str, ...]
    """The living workers that serve it, by name."""


class Tally(NamedTuple):
    """How many runs of one version stand so."""

    name: str
    version: int
    status: RunStatus
    phase: str
    runs: int


def news(known: Sequence[Announced], worker: str, offers: Collection[Offer]) -> list[Offer]:
    """What of ``offers`` is to be written: what ``worker`` has not said yet, in order."""
    said = {(each.name, each.version): each.fingerprint for each in known if worker in each.workers}
    return sorted({offer for offer in offers if said.get(offer[:2]) is None or _differ(said[offer[:2]], offer)})


def replaced(known: Sequence[Announced], offers: Collection[Offer]) -> list[Offer]:
    """The former offers of other code under the same name and version."""
    former = {(each.name, each.version): each.fingerprint for each in known}
    found = [(former.get(offer[:2], ""), offer) for offer in offers]
    return [offer._replace(fingerprint=old) for old, offer in found if old and _differ(old, offer)]


def _differ(fingerprint: str, offer: Offer) -> bool:
    return offer.fingerprint not in {"", fingerprint}
