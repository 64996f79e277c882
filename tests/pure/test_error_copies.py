"""Errors are copied and pickled whole: a pool of processes, a test runner and a logger pass them on so."""

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any, Self

import attrs
import pytest

import sagas.orchestrator  # noqa: F401 - it loads every module that defines an error
from durable_core.errors import Closed, DurableError, EngineSignal, Fault, SiblingFailed
from sagas.errors import SagaCompensated, SagaExists, SagaStuck

VALUES: dict[str, Any] = {
    "about": ("charge",),
    "answer": "no",
    "asked": "reserve",
    "cause": "deadline",
    "compensated": ["reserve"],
    "differing": ("args[0]",),
    "key": "charge",
    "purged_at_ns": 5,
    "reason": "no cover",
    "recorded": "charge",
    "run_id": "order-17",
    "saga_id": "order-17",
    "seq": 4,
    "skipped": ["charge"],
    "status": "resolved",
    "steps": ("charge",),
    "transient": True,
    "type_name": "shop.Declined",
    "worker": "w-1",
}


def family(root: type[BaseException]) -> list[type[BaseException]]:
    """``root`` and all that derive from it in both packages."""
    mine = [each for each in root.__subclasses__() if each.__module__.partition(".")[0] in ("durable_core", "sagas")]
    return [root, *(each for child in mine for each in family(child))]


ERRORS = list(dict.fromkeys([*family(DurableError), *family(Fault)]))


class Positional(SagaExists):
    """Of a user: its constructor takes something else."""

    def __init__(self, order: int) -> None:
        super().__init__(f"order {order} is there", "Look at it", run_id=str(order))
        self.order = order


class Slotted(SagaStuck):
    """Of a user: it has slots, and a text of its own."""

    __slots__ = ("shelf",)
    text = "its own"  # type: ignore[assignment]

    def __init__(self, shelf: int) -> None:
        super().__init__("stuck", run_id="a", reason="no room")
        self.shelf = shelf


class Picky(SagaCompensated):
    """Of a user: also making one takes an argument."""

    def __new__(cls, order: int) -> Self:
        return super().__new__(cls, order)

    def __init__(self, order: int) -> None:
        super().__init__(f"order {order}", saga_id="a", compensated=["reserve"])


@attrs.frozen
class Frozen(DurableError):
    """Of a user: its attributes cannot be set."""

    order: int


class Timed(DurableError, TimeoutError):
    """Of a user: an OSError too, whose own constructor reads two arguments as a number and its text."""


class Several(DurableError, ExceptionGroup[Exception]):  # type: ignore[misc]
    """Of a user: a group too."""

    def __init__(self, text: str, members: list[Exception]) -> None:
        BaseException.__init__(self, text, members)


USERS = [Positional(5), Slotted(7), Picky(5), Frozen(5), Timed("late", "Ask again"), Several("two", [ValueError("a")])]


def made(kind: type[BaseException]) -> BaseException:
    """An error of this class with a value for each argument."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    named = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    return kind("the card was declined", "Use another one", **{name: VALUES[name] for name in named})


def facts(error: BaseException) -> dict[str, Any]:
    """All that a program can read from it."""
    names = {*vars(error), *getattr(error, "__slots__", ()), "text", "advice", "message", "code", "page"}
    return {name: getattr(error, name) for name in names if hasattr(error, name)}


def pickled(error: BaseException) -> BaseException:
    """It, written to bytes and read again."""
    return pickle.loads(pickle.dumps(error))


each_way = pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled], ids=["copy", "deepcopy", "pickle"])


@each_way
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_is_copied_whole(kind: type[BaseException], again: Callable[[BaseException], BaseException]):
    """Its class, text, advice, code, page, notes and every attribute are those of the original."""
    error = made(kind)
    error.add_note("seen twice")
    error.__dict__["trip"] = "t-1"
    copied = again(error)
    assert copied is not error
    assert (type(copied), copied.args, str(copied), repr(copied)) == (kind, error.args, str(error), repr(error))
    assert facts(copied) == facts(error)
    assert facts(copied).items() >= {"advice": "Use another one", "trip": "t-1", "__notes__": ["seen twice"]}.items()


@each_way
@pytest.mark.parametrize("error", USERS, ids=lambda error: type(error).__name__)
def test_a_subclass_of_a_user_is_copied_whole(error: BaseException, again: Callable[[BaseException], BaseException]):
    """Whatever its constructor takes: it is not called for a copy."""
    copied = again(error)
    assert (type(copied), str(copied)) == (type(error), str(error))
    assert [str(each) for each in copied.args] == [str(each) for each in error.args]
    assert facts(copied) == facts(error)
    assert [str(each) for each in getattr(copied, "exceptions", ())] == [
        str(each) for each in getattr(error, "exceptions", ())
    ]


@each_way
def test_an_attribute_may_lead_back_to_the_error(again: Callable[[BaseException], BaseException]):
    """As one that holds itself in a list."""
    error = DurableError("round")
    error.__dict__["seen"] = [error]
    copied = again(error)
    assert vars(copied)["seen"][0] is (error if again is copy.copy else copied)


@pytest.mark.parametrize("again", [copy.copy, pickled], ids=["copy", "pickle"])
def test_causes_are_left_out_as_for_any_exception(again: Callable[[BaseException], BaseException]):
    """Python copies no ``__cause__``, and these errors are no exception to that."""
    error = SagaCompensated("undone")
    error.__cause__ = ValueError("the cause")
    assert again(error).__cause__ is None


@each_way
@pytest.mark.parametrize("kind", [EngineSignal, Closed, SiblingFailed], ids=lambda kind: kind.__name__)
def test_signals_are_copied_too(kind: type[BaseException], again: Callable[[BaseException], BaseException]):
    """They have no attributes."""
    assert type(again(kind())) is kind
