"""Whether the rows of a journal can be read at all: a database can be changed by hand, or by a disk.

A worker need not ask: what it cannot feed to a run leaves that run stuck. Whoever only looks at a journal asks first,
so that a damaged row is an error that names it.
"""

from collections.abc import Sequence

import msgspec

from durable_core.errors import PayloadError
from durable_core.model.entry import ROLES, Entry, EntryKind
from durable_core.model.record import StepStatus

ADVICE = "Was it written by a newer release, or by hand? Restore the store from a backup, or kill the run by its id"
ENDS_OF_ATTEMPTS = frozenset(StepStatus)
MALFORMED = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def check_rows(entries: Sequence[Entry]) -> None:
    """Look at each row of a journal.

    Raises:
        PayloadError: one has a kind that is unknown, a label that its kind cannot have, or a payload that is no JSON.
    """
    for entry in entries:
        where = f"entry #{entry.seq} of the journal of run {entry.run}"
        if entry.kind not in ROLES:
            raise PayloadError(f"{where} is of the unknown kind {entry.kind!r:.60}", ADVICE)
        if entry.kind == EntryKind.FAILED and entry.label not in ENDS_OF_ATTEMPTS:
            raise PayloadError(f"{where} is a failed attempt with the unknown outcome {entry.label!r:.60}", ADVICE)
        for name, stored in (("payload", entry.payload), ("error", entry.error)):
            if stored is None:
                continue
            try:
                msgspec.json.decode(stored)
            except MALFORMED as error:
                raise PayloadError(f"{where} has a {name} that is no JSON: {error}", ADVICE) from error
