"""One kept journal: its file, and a store that holds it up to any entry.

The file is JSON Lines: a head with the format, the run's row and the participants' plan, then a line for each entry.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import msgspec

from durable_core import RunStatus
from durable_core.layer import ENDS, EntryKind, JournalEntry, RunRecord
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import Orchestrator, SagaDef
from sagas.testing import ManualClock
from tests.replay.definitions import SAGAS, Participants

FOLDER = Path(__file__).parent / "journals"
SECRET = b"golden journals, never a secret!"
ID = "golden"
OUTSIDE = frozenset({EntryKind.SIGNALLED, EntryKind.ANSWERED})
"""What nobody repeats in a replay: an operator's verb, an answer. The deadline rings by itself."""
_TEXTS = ("payload", "error")


@attrs.frozen
class Golden:
    """A journal as it was recorded."""

    row: RunRecord
    plan: dict[str, list[str]]
    entries: Sequence[JournalEntry]

    @property
    def definition(self) -> SagaDef[..., Any]:
        """The saga that it is of."""
        return SAGAS[self.row.name]

    def upto(self, cut: int) -> MemoryData:
        """A store in which the run has come so far and its worker has died."""
        entries = self.entries[:cut]
        marks = [entry.label for entry in entries if entry.kind == EntryKind.MARKED and entry.label]
        pauses = [e.key for e in entries if e.kind == EntryKind.SIGNALLED and e.key in ("pause", "resume")]
        row = attrs.evolve(
            self.row,
            status=RunStatus.RUNNING,
            phase=marks[-1] if marks else "",
            owner=None,
            wake_at_ns=0,
            paused=pauses[-1:] == ["pause"],
            output=None,
            error=None,
            reason=None,
            ended_at_ns=None,
        )
        data = MemoryData(secret=SECRET, last_num=row.num)
        data.runs[row.num], data.nums[row.id] = row, row.num
        data.journals[row.num] = {entry.seq: entry for entry in entries}
        return data

    def clock(self, cut: int) -> ManualClock:
        """A clock that shows the time of the last entry."""
        at_ns = self.entries[cut - 1].at_ns if cut else self.row.created_at_ns
        return ManualClock(datetime.fromtimestamp(at_ns / 1e9, UTC))

    def alone(self, cut: int) -> bool:
        """Whether nobody outside had a part in what came after ``cut``."""
        return not any(entry.kind in OUTSIDE and entry.key != "deadline" for entry in self.entries[cut:])

    def ended(self, cut: int) -> bool:
        """Whether the run had ended by then."""
        for entry in reversed(self.entries[:cut]):
            if entry.kind in {EntryKind.ENDED, EntryKind.SIGNALLED}:
                return entry.kind == EntryKind.ENDED or entry.key == "kill"  # which ends it in the same commit
        return False

    @property
    def length(self) -> int:
        """How many entries come before its end."""
        return max(place for place, entry in enumerate(self.entries) if entry.kind == EntryKind.ENDED)


def process(store: MemoryStore, clock: ManualClock, world: Participants, *sagas: SagaDef[..., Any]) -> Orchestrator:
    """A process on the store."""
    return Orchestrator(store=store, sagas=sagas, resources=[world], clock=clock, grace=5)


def save(path: Path, data: MemoryData, plan: dict[str, list[str]]) -> None:
    """Write the only run of ``data``. Tracebacks are left out: they name files of the machine."""
    (row,) = data.runs.values()
    assert row.status in ENDS, row
    head = {**attrs.asdict(row), "uid": row.uid.hex(), "status": row.status.value}
    head |= {name: _text(head[name]) for name in ("input", "output", "error", "detail")}
    lines = [{"format": 1, "plan": plan, "run": head}]
    for _, entry in sorted(data.journals[row.num].items()):
        told = entry._asdict()
        lines.append(told | {name: _text(told[name]) for name in _TEXTS})
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def _text(stored: bytes | None) -> str | None:
    if stored is None:
        return None
    if b'"traceback":' in stored:
        stored = msgspec.json.encode(_untraced(msgspec.json.decode(stored)))
    return stored.decode()


def _untraced(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _untraced(inner) for name, inner in value.items() if name != "traceback"}
    return value


def load(path: Path) -> Golden:
    """Read a kept journal."""
    head, *lines = map(msgspec.json.decode, path.read_bytes().splitlines())
    assert head["format"] == 1
    run = head["run"]
    run.pop("parent", None)  # a column of the first stored format, in which nothing ever was
    run |= {name: _data(run[name]) for name in ("input", "output", "error", "detail")}
    row = RunRecord(**(run | {"uid": bytes.fromhex(run["uid"]), "status": RunStatus(run["status"])}))
    entries = [JournalEntry(**(line | {name: _data(line[name]) for name in _TEXTS})) for line in lines]
    return Golden(row, head["plan"], entries)


def _data(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def paths() -> list[Path]:
    """Every kept journal."""
    return sorted(FOLDER.glob("*.jsonl"))
