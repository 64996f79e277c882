"""The states of one machine: names that are unique, and the small states between the tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from sagas.asl.layout import Chain, Path, document
from sagas.asl.policy import State

LONGEST_NAME = 80


class Names:
    """Gives each state its name; no two of one machine are alike."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._taken = set(keys)
        self.too_long = [key for key in keys if len(key) > LONGEST_NAME]
        """Names that the service refuses."""

    def of(self, text: str, *, whole: bool = False) -> str:
        """A name that nobody has: ``text``, cut or with a number where need be. ``whole``: it must not be cut."""
        count, name = 1, text if whole else text[:LONGEST_NAME]
        while name in self._taken:
            count += 1
            mark = f" ({count})"
            name = f"{text}{mark}" if whole else f"{text[: LONGEST_NAME - len(mark)]}{mark}"
        self._taken.add(name)
        if len(name) > LONGEST_NAME:
            self.too_long.append(name)
        return name


@attrs.frozen(eq=False, kw_only=True)
class Lane:
    """Where states are written: at the top, or in a branch.

    States are written from the last to the first, because each names the next.
    """

    states: dict[str, State]
    chain: Chain
    failed: str | None
    """The state that follows a failure, which is then in the document; None where nothing catches it."""

    @property
    def document(self) -> str:
        """The path to the document that its states write into."""
        return document(self.chain)

    def add(self, name: str, state: State) -> str:
        """Write a state; returns its name."""
        self.states[name] = state
        return name

    def branch(self, chain: Chain, failed: str | None) -> "Lane":
        """A lane for a branch, with states of its own."""
        return Lane(states={}, chain=chain, failed=failed)

    def program(self, start: str) -> State:
        """Its states in the order of reading, without those that nothing leads to: the service refuses these."""
        found: set[str] = set()
        todo = [start]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += _following(self.states[name])
        return {
            "StartAt": start,
            "States": {name: each for name, each in reversed(self.states.items()) if name in found},
        }


def _following(state: State) -> list[str]:
    """The states that may come after one."""
    ways = [state, *state.get("Choices", ()), *state.get("Catch", ())]
    return [way[field] for way in ways for field in ("Next", "Default") if field in way]


def put(value: Any, into: str, following: str) -> State:
    """Write a fixed value into the document."""
    return {"Type": "Pass", "Result": value, "ResultPath": into, "Next": following}


def copy(path: str, into: str, following: str) -> State:
    """Copy a value within the document."""
    return {"Type": "Pass", "InputPath": path, "ResultPath": into, "Next": following}


def choose(rules: Sequence[tuple[State, str]], default: str) -> State:
    """Go where the first true condition says."""
    return {
        "Type": "Choice",
        "Choices": [{**condition, "Next": following} for condition, following in rules],
        "Default": default,
    }


def is_there(path: str) -> State:
    """Whether the document has this field."""
    return {"Variable": path, "IsPresent": True}


def is_true(path: Path) -> State:
    """Whether this value is true."""
    return {"Variable": path.text, "BooleanEquals": True}


def has_run(place: str) -> State:
    """Whether the node whose field this is has succeeded and was not skipped."""
    return {"And": [is_there(f"{place}.value"), {"Not": is_there(f"{place}.skipped")}]}


def catch(errors: Sequence[str], into: str, following: str) -> State:
    """A catcher that keeps the error in the document."""
    return {"ErrorEquals": list(errors), "ResultPath": into, "Next": following}


def fail(error: str, path: str) -> State:
    """An end that says why by what the document has at ``path``."""
    return {"Type": "Fail", "Error": error, "CausePath": f"States.JsonToString({path})"}


def template(fields: Mapping[str, Any]) -> State:
    """A payload template: paths are looked up by the service, all else stands as it is."""
    return {
        (f"{name}.$" if isinstance(value, Path) else name): (value.text if isinstance(value, Path) else value)
        for name, value in fields.items()
    }
