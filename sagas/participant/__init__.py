"""Participants of a saga that do each call once, in the transaction of their own database.

``once`` is for a step's call, ``undo`` for its compensation, ``happened`` for its probe. Each works by the caller's
idempotency key and in the caller's transaction: an effect and its answer are committed together or not at all.
"""

from typing import TYPE_CHECKING

from durable_core.layer import lazy_names
from sagas.errors import KeyReused, Undone

if TYPE_CHECKING:
    from sagas.participant.block import AsyncBlock, Block, Call, UndoCall
    from sagas.participant.calls import happened, once, undo
    from sagas.participant.retention import purge
    from sagas.participant.table import create_tables, metadata

LATER = {
    "sagas.participant.block": ("AsyncBlock", "Block", "Call", "UndoCall"),
    "sagas.participant.calls": ("happened", "once", "undo"),
    "sagas.participant.retention": ("purge",),
    "sagas.participant.table": ("create_tables", "metadata"),
}
"""The names by the module that they are loaded from: with them comes SQLAlchemy, which the rules do not need."""

__all__ = [
    "AsyncBlock",
    "Block",
    "Call",
    "KeyReused",
    "UndoCall",
    "Undone",
    "create_tables",
    "happened",
    "metadata",
    "once",
    "purge",
    "undo",
]

__getattr__ = lazy_names(__name__, LATER)
