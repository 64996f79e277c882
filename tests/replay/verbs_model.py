"""What must hold of random sagas under random verbs, told without an engine: from the line of time, and from the ends.

Each function names one promise and returns what breaks it.
"""

from collections.abc import Iterator
from itertools import pairwise

from durable_core.layer import EntryKind
from tests.replay.random_operators import Played, Told
from tests.replay.random_sagas import NO_EFFECT, plan_of
from tests.replay.random_world import Call

RELEASES = {"cancel": (), "rollback": (), "kill": ("rollback",), "pause": ("resume", "kill")}
"""After which verbs something may begin again; a kill ends a pause too, and stands for itself."""

BACK = ("cancel", "rollback")


def broken(played: Played) -> list[str]:
    """All that is broken of one seed."""
    found = list(played.world.faults)
    for saga in played.sagas:
        for promise in (told_first, due_first, nothing_lost, no_lie, in_reverse, no_ghosts, counted):
            found += [f"{saga}: {promise.__name__}: {why}" for why in promise(played, saga)]
    return found


def told_first(played: Played, saga: str) -> Iterator[str]:
    """No intent commits, and is then acted on, once a verb that precedes it has returned."""
    accepted = [told for told in played.told if told.saga == saga and not told.refused]
    for place, told in enumerate(accepted):
        if told.verb not in RELEASES:
            continue
        later = accepted[place + 1 :]
        until = min((each.called for each in later if each.verb in RELEASES[told.verb]), default=None)
        for at, call in _begun(played, saga, since=told.returned, until=until):
            if played.world.intents.get((played.world.nums[saga], call.key, call.attempt), -1) <= told.returned:
                continue  # its commit had begun before
            if told.verb in ("cancel", "rollback") and not _new(played, saga, call, before=told.returned):
                continue
            yield f"{call.key} #{call.attempt} began at {at}, after {told.verb} had returned at {told.returned}"


def _begun(played: Played, saga: str, *, since: int, until: int | None) -> Iterator[tuple[int, Call]]:
    for at, event in enumerate(played.world.line[since:until], since):
        if event.what == "begin" and event.saga == saga:
            yield at, event.about


def _new(played: Played, saga: str, call: Call, *, before: int) -> bool:
    """Whether the call is of a step that had not begun before, where no pivot had either."""
    if call.role != "step":
        return False
    earlier = [event.about for event in played.world.line[:before] if event.what == "begin" and event.saga == saga]
    kinds = {_kind(each) for each in earlier if each.role == "step"}
    if kinds & {"pay", "pay_probed"}:
        return False  # whether the verb came too late was the pivot's to say
    return call.key not in {each.key for each in earlier}


def _kind(call: Call) -> str:
    return call.step.rpartition("/")[2].partition("#")[0]


def due_first(played: Played, saga: str) -> Iterator[str]:
    """A deadline that passed before a worker came: no step begins that had not begun."""
    deadline_at_ns = played.deadlines.get(saga)
    if deadline_at_ns is None:
        return
    for at_ns, place in played.idle_since:
        if at_ns <= deadline_at_ns:
            continue
        for at, call in _begun(played, saga, since=place, until=None):
            if _new(played, saga, call, before=place):
                yield f"{call.key} began at {at}, and no worker lived at {place}, when its deadline had passed"
        return


def nothing_lost(played: Played, saga: str) -> Iterator[str]:
    """Every verb that was accepted is in the history, unless it repeated what was so already."""
    notes = {entry.note for entry in played.histories[saga] if entry.note}
    told: list[Told] = []
    paused = False
    for each in played.told:
        if each.saga != saga or each.refused:
            continue
        if each.note not in notes and not _repeats(each, told, paused=paused):
            yield f"{each.verb} ({each.note}) was accepted when it was {each.status}, and is in no history"
        if each.verb in ("pause", "resume", "kill"):
            paused = each.verb == "pause"
        told.append(each)


def _repeats(told: Told, before: list[Told], *, paused: bool) -> bool:
    """Whether a verb that left no trace was one that had been done already."""
    if told.verb in ("pause", "resume"):
        return paused is (told.verb == "pause")
    if before and before[-1].verb == told.verb:
        return True
    if told.verb in BACK and any(each.verb in BACK for each in before):
        return True  # it is rolled back already, or will be
    done = {
        "cancel": ("compensating", "compensated", "resolved", "stuck"),
        "rollback": ("compensating", "compensated", "resolved", "stuck"),
        "kill": ("killed",),
    }
    return told.status in done.get(told.verb, ())


def no_lie(played: Played, saga: str) -> Iterator[str]:
    """The end says what is so: all effects in force as asked, or none, and a saga that has ended stays so."""
    status = played.infos[saga].status
    live = {call.key: call for call in played.world.live.values() if call.saga == saga and _kind(call) not in NO_EFFECT}
    if status in ("compensated", "resolved") and live:
        yield f"it is {status}, and in force are {sorted(live)}"
    if status == "completed":
        wanted = _held(played, saga)
        if wanted != set(live):
            yield f"it is completed with {sorted(wanted)}, and in force are {sorted(live)}"
    if status not in ("completed", "compensated", "resolved", "killed"):
        yield f"it has not ended: {status}"


def _held(played: Played, saga: str) -> set[str]:
    """The steps that the journal holds for done and not undone."""
    held: set[str] = set()
    for entry in played.journals[saga]:
        happened = entry.kind == EntryKind.SUCCEEDED or (entry.kind == EntryKind.SETTLED and entry.label == "happened")
        step, _, part = entry.key.partition("~")
        if happened and not part and step.rpartition("/")[2].partition("#")[0] not in NO_EFFECT:
            held.add(step)
        elif happened and part == "undo":
            held.discard(step)
        elif entry.kind == EntryKind.MARKED and entry.key.startswith("skipped:"):
            held.discard(entry.key.partition(":")[2])
    return held


def in_reverse(played: Played, saga: str) -> Iterator[str]:
    """What was done one after the other is undone the other way round, where no block was undone before."""
    if {part.kind for part in plan_of(played.sagas[saga]).every.values()} & {"savepoint", "child", "parallel", "map"}:
        return
    undone = [event.about.key for event in played.world.line if event.what == "undone" and event.saga == saga]
    done = [entry.key for entry in played.journals[saga] if entry.kind == EntryKind.SUCCEEDED and "~" not in entry.key]
    failed = {call.step for call in _calls(played, saga) if call.role == "undo" and call.attempt > 1}
    order = [done.index(key) for key in undone if key in done and key not in failed]
    if any(first < second for first, second in pairwise(order)):
        yield f"done in the order {done}, undone in the order {undone}"


def _calls(played: Played, saga: str) -> Iterator[Call]:
    for event in played.world.line:
        if event.what == "begin" and event.saga == saga:
            yield event.about


def no_ghosts(played: Played, saga: str) -> Iterator[str]:
    """No outcome is journalled for a step that was never called, and nothing is undone or probed that never was."""
    begun = {call.key for call in _calls(played, saga)}
    for entry in played.journals[saga]:
        if entry.kind in (EntryKind.FAILED, EntryKind.SUCCEEDED) and entry.key not in begun:
            yield f"{entry.key} has {entry.kind} and was never called"
    called: set[str] = set()
    for call in _calls(played, saga):
        called.add(call.key)
        if call.step not in called:
            yield f"{call.key} was called, and {call.step} never was"


def counted(played: Played, saga: str) -> Iterator[str]:
    """As long as no worker has left, a call's attempt is one more than the calls before it."""
    calls: dict[str, int] = {}
    for event in played.world.line:
        if event.what == "worker leaves":
            return
        if event.what == "begin" and event.saga == saga:
            call: Call = event.about
            calls[call.key] = calls.get(call.key, 0) + 1
            if call.attempt != calls[call.key]:
                yield f"call {calls[call.key]} of {call.key} is attempt {call.attempt}"
                return
