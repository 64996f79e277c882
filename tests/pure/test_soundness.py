"""Declarations that cannot work, or may not, wherever a body uses them: types, doubts and time."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from sagas import DefinitionError, Orchestrator, Retry, Saga, Unknown, lookup, pivot, retriable, saga, step
from sagas.check.scan import scan

if TYPE_CHECKING:
    from decimal import Context as Unseen


class Opaque:
    """Nothing that JSON could hold."""


@attrs.frozen
class Holder:
    inner: Opaque


@lookup
async def takes_opaque(given: Opaque) -> int:
    return 1


@lookup
async def gives_iterator() -> Iterator[int]:
    return iter([1])


@step(compensation=None, because="a test")
async def gives_holder() -> list[Holder]:
    return []


@saga("child-of-opaque", version=1)
async def child(s: Saga, given: Opaque) -> None: ...


@saga("opaque", version=1)
async def opaque(s: Saga) -> None:
    await s.run(takes_opaque, Opaque())
    await s.run(gives_iterator)
    await s.run(gives_holder)
    await s.run(child, Opaque())
    await s.run(gives_holder)


def test_types_that_cannot_be_stored_are_refused_before_anything_runs():
    """Each is named once, with the line that runs it, its step, the parameter and what cannot be read back."""
    faults = scan(opaque).faults
    first = opaque.body.__code__.co_firstlineno
    told = [fault.removeprefix(f"{__file__}:").split(": ", 1) for fault in faults]
    assert [int(line) - first for line, _ in told] == [2, 3, 4, 5]
    for (_, text), words in zip(
        told,
        [
            ("lookup 'takes_opaque'", "parameter 'given'", "Opaque"),
            ("lookup 'gives_iterator'", "the result", "Iterator"),
            ("step 'gives_holder'", "the result", "Opaque"),
            ("saga 'child-of-opaque'", "parameter 'given'", "Opaque"),
        ],
        strict=True,
    ):
        assert all(word in text for word in words), text
    with pytest.raises(DefinitionError, match="takes_opaque"):
        Orchestrator("memory://", sagas=[opaque])


@lookup
async def takes_unseen(given: "Unseen") -> int:
    return 1


@saga("unseen", version=1)
async def unseen(s: Saga, other: "Unseen") -> int:
    return await s.run(takes_unseen, other)


def test_annotations_that_cannot_be_evaluated_are_faults():
    """A type that is imported for checkers only is refused, of a step and of the body itself, with what to do."""
    found = scan(unseen)
    assert ["other" in found.faults[0], "given" in found.faults[1]] == [True, True]
    assert all("'Unseen'" in fault and "TYPE_CHECKING" in fault for fault in found.faults)


# -- doubts ------------------------------------------------------------------------------------------------------------


@step(timeout=1)
async def unsettled(x: int = 0) -> int:
    return x


@unsettled.compensate
async def undo_unsettled(x: int) -> None: ...


@step(timeout=1)
async def probed(x: int = 0) -> int:
    return x


@probed.compensate
async def undo_probed(x: int) -> None: ...


@probed.probe
async def find_probed(x: int = 0) -> int | None:
    return x


@step(timeout=1)
async def admitting(x: int = 0) -> int:
    return x


@admitting.compensate
async def undo_admitting(x: int | Unknown) -> None: ...


@step(timeout=1, compensation=None, because="a test")
async def harmless() -> None: ...


@step
async def patient() -> None: ...


@patient.compensate
async def undo_patient(_: None) -> None: ...


@pivot(timeout=timedelta(seconds=1))
async def sell() -> None: ...


@lookup(timeout=1)
async def read() -> None: ...


@retriable(timeout=1)
async def mail() -> None: ...


@saga("doubtful", version=1)
async def doubtful(s: Saga) -> None:
    await s.run(unsettled)
    await s.run(unsettled)
    await s.run(probed)
    await s.run(admitting)
    await s.run(harmless)
    await s.run(patient)
    await s.run(read)
    await s.run(sell)
    await s.run(mail)


def test_a_timeout_that_nothing_settles_is_warned_of_once():
    """A compensatable step and a pivot with a timeout need a way to find out; the others have nothing to settle."""
    found = scan(doubtful)
    assert found.faults == ()
    first, second = found.warnings
    assert "'unsettled'" in first
    assert "@unsettled.probe" in first
    assert "admits `Unknown`" in first
    assert "'sell'" in second
    assert "`Unknown`" not in second


# -- time --------------------------------------------------------------------------------------------------------------


@lookup(timeout=10, retry=3)
async def thirty() -> None: ...


@lookup(name="twenty", timeout=timedelta(seconds=20))
async def twenty() -> None: ...


@lookup(timeout=5, retry=Retry.forever())
async def endless() -> None: ...


@saga("fifty-child", version=1)
async def fifty(s: Saga) -> None:
    await s.run(thirty)
    await s.run(twenty)


async def nothing(s: Saga, k: int = 0) -> None: ...


async def in_line(s: Saga, k: int = 0) -> None:
    await s.run(thirty)
    await s.run(twenty)
    await s.run(endless)
    await s.run(mail)


async def alternatives(s: Saga, k: int = 0) -> None:
    if k:
        await s.run(thirty)
    elif k > 2:
        await s.run(twenty)
    else:
        await s.run(thirty) if k else await s.run(twenty)
    match k:
        case 1:
            await s.run(twenty)
        case _:
            await s.run(endless)


async def side_by_side(s: Saga, k: int = 0) -> None:
    async with s.parallel() as p:
        p.run(thirty)
        p.run(twenty)
        p.run(fifty)


async def in_a_child(s: Saga, k: int = 0) -> None:
    await s.run(fifty)
    async with s.savepoint("again"):
        await s.run(fifty)


async def handled(s: Saga, k: int = 0) -> None:
    try:
        await s.run(thirty)
    except ValueError:
        await s.run(twenty)
    except KeyError:
        await s.run(thirty)
    finally:
        await s.run(twenty)


async def looped(s: Saga, k: int = 0) -> None:
    for _ in range(k):
        await s.run(thirty)
    await s.map(thirty, [])


@pytest.mark.parametrize(
    ("body", "worst_s"),
    [
        (nothing, 0),
        (in_line, 50),
        (alternatives, 50),
        (side_by_side, 50),
        (in_a_child, 100),
        (handled, 80),
        (looped, 60),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_a_deadline_is_held_against_the_longest_path(body: Any, worst_s: int):
    """Attempts times timeouts along the longest path: at the deadline no warning, a second above it one."""
    kept = saga("timed", version=1, deadline=max(worst_s, 1))(body)
    assert scan(kept).warnings == ()
    if worst_s:
        missed = saga("timed", version=1, deadline=timedelta(seconds=worst_s - 1))(body)
        (warning,) = scan(missed).warnings
        assert f"{worst_s} s together" in warning
        assert f"its deadline is {worst_s - 1} s" in warning
        assert warning.startswith(f"{__file__}:{body.__code__.co_firstlineno}: ")


@saga("itself", version=1, deadline=45)
async def itself(s: Saga, k: int = 0) -> None:
    await s.run(thirty)
    if k:
        await s.run(itself, k - 1)


def test_a_saga_that_runs_itself_counts_once():
    """How often it does is not to be told from its text."""
    assert scan(itself).warnings == ()
