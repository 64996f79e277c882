"""Checks a saga before it runs: the steps that it uses, its faults and its warnings, each with file and line.

Invariant: what is refused here is wrong on every path that the reader can see. What depends on data is left to the
first run, which finds it before its effect.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import attrs

from durable_core import DefinitionError
from durable_core.layer import CallShape, Codec
from sagas.check.body import BodyReader, Use
from sagas.check.deadline import Worst, late
from sagas.model.definition import Declared, Probed, SagaDef, Step

_CODEC = Codec()


@attrs.frozen
class Scan:
    """The result of reading a saga."""

    uses: tuple[Use, ...]
    faults: tuple[str, ...]
    """What cannot work, each with file and line."""
    warnings: tuple[str, ...]
    """What is suspicious, each with file and line."""
    whole: bool = True
    """Whether ``uses`` has all the steps that it may run."""

    @property
    def sagas(self) -> tuple[SagaDef[..., Any], ...]:
        """The sagas in whose bodies steps were found."""
        return tuple(dict.fromkeys(use.owner for use in self.uses))

    def declared(self, owner: SagaDef[..., Any]) -> dict[str, Declared[..., Any]]:
        """The steps that the body of ``owner`` itself names, by name; without names that two of them share."""
        found: dict[str, set[Declared[..., Any]]] = {}
        for use in self.uses:
            if use.owner is owner and isinstance(use.what, Declared):
                found.setdefault(use.what.name, set()).add(use.what)
        return {name: next(iter(steps)) for name, steps in found.items() if len(steps) == 1}


def scan(definition: SagaDef[..., Any]) -> Scan:
    """Read the body of ``definition`` and of the child sagas it names; empty without source."""
    reader = BodyReader()
    whole = False
    with suppress(RecursionError):  # nested too deep to be read to its end: what has been read counts
        reader.saga(definition, at=False, in_block=False, sure=True)
        whole = not reader.hidden
    with suppress(RecursionError):
        reader.judge_graphs()
    faults = [*reader.faults, *reader.lacking, *_doubled(reader.uses)]
    warnings = [*reader.warnings, *late(definition, Worst(reader.calls, reader.statements))]
    faults += [f"{definition.place}: {fault}" for fault in _misfits(definition)]
    for use in _firsts(reader.uses):
        faults += [f"{use.place}: {fault}" for fault in _misfits(use.what)]
        warnings += [f"{use.place}: {warning}" for warning in _doubts(use.what)]
    return Scan(tuple(dict.fromkeys(reader.uses)), tuple(dict.fromkeys(faults)), tuple(dict.fromkeys(warnings)), whole)


def _firsts(uses: Sequence[Use]) -> Sequence[Use]:
    """The first visible use of each step and child saga."""
    found: dict[object, Use] = {}
    for use in uses:
        if use.sure:
            found.setdefault(use.what, use)
    return tuple(found.values())


def _doubled(uses: Sequence[Use]) -> list[str]:
    """Two steps with one name within a saga: only their order would distinguish their keys."""
    found: dict[tuple[SagaDef[..., Any], str], Declared[..., Any]] = {}
    faults: list[str] = []
    for use in uses:
        if not isinstance(use.what, Declared) or not use.sure:
            continue
        known = found.setdefault((use.owner, use.what.name), use.what)
        if known is not use.what:
            faults.append(f"{use.place}: {use.what.what} has the name of {known.what}; give one of them another name=")
    return faults


def _misfits(what: Declared[..., Any] | SagaDef[..., Any]) -> Iterator[str]:
    """Arguments and results whose declared type cannot make the round trip through the store."""
    try:
        _shape(what)
    except DefinitionError as error:
        yield f"{_called(what)}: {error.message}"


def _doubts(what: Declared[..., Any] | SagaDef[..., Any]) -> Iterator[str]:
    """Suspicious declarations that can work."""
    if isinstance(what, Probed) and what.timeout is not None and what.effect and not what.settles:
        ways = f"`@{what.name}.probe`"
        if isinstance(what, Step):
            ways += " to find out, or a compensation whose first parameter admits `Unknown` to undo it either way"
        yield (
            f"{what.what} has a timeout, and after a timeout nothing settles whether its effect happened: "
            f"the saga would be stuck until a person says. Declare {ways}"
        )


def _shape(what: Declared[..., Any] | SagaDef[..., Any]) -> CallShape:
    if isinstance(what, SagaDef):
        return CallShape.of(what.body, _CODEC, skip=1)
    return CallShape.of(what.fn, _CODEC, exclude=what.resources)


def _called(what: Declared[..., Any] | SagaDef[..., Any]) -> str:
    return f"saga {what.name!r} ({what.place})" if isinstance(what, SagaDef) else what.what
