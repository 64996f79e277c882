"""What runs after what, as nested blocks: one after the other, or side by side.

Invariant: every item comes after all that it waits for. A part of the order that is series-parallel keeps its whole
concurrency (Valdes, Tarjan & Lawler 1982); a part that is not runs level by level.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import attrs

N = TypeVar("N")
DEEPEST = 40
"""Blocks within blocks; what is nested deeper runs level by level."""


@attrs.frozen
class One(Generic[N]):
    """One item."""

    item: N


@attrs.frozen
class Series(Generic[N]):
    """Blocks of which each begins when the one before has ended."""

    parts: tuple["Block[N]", ...]


@attrs.frozen
class Fork(Generic[N]):
    """Two or more blocks that run side by side."""

    branches: tuple["Block[N]", ...]


Block = One[N] | Series[N] | Fork[N]


def blocks_of(items: Sequence[N], parents: Mapping[N, Collection[N]], depth: int = 0) -> Block[N]:
    """The blocks of these items.

    Args:
        items: in an order that puts each after its parents.
        parents: what each waits for; items that are not among ``items`` count as done.
        depth: how many blocks are around these.
    """
    if len(items) == 1:
        return One(items[0])
    mine = set(items)
    above = {item: [parent for parent in parents[item] if parent in mine] for item in items}
    apart = _components(items, above)
    if len(apart) > 1 and depth < DEEPEST:
        return Fork(tuple(blocks_of(each, above, depth + 1) for each in apart))
    levels = _levels(items, above)
    parts = _cut(levels, above) if depth < DEEPEST else [levels]
    if len(parts) == 1:
        return Series(tuple(_side_by_side(level) for level in levels))
    return Series(tuple(blocks_of([item for level in part for item in level], above, depth + 1) for part in parts))


def _side_by_side(level: Sequence[N]) -> Block[N]:
    return One(level[0]) if len(level) == 1 else Fork(tuple(map(One, level)))


def _components(items: Sequence[N], above: Mapping[N, Sequence[N]]) -> list[list[N]]:
    """The parts between which no item waits for another."""
    near: dict[N, list[N]] = {item: list(above[item]) for item in items}
    for item in items:
        for parent in above[item]:
            near[parent].append(item)
    component: dict[N, int] = {}
    for number, start in enumerate(items):
        todo = [start]
        while todo:
            item = todo.pop()
            if item not in component:
                component[item] = number
                todo.extend(near[item])
    found: dict[int, list[N]] = {}
    for item in items:
        found.setdefault(component[item], []).append(item)
    return list(found.values())


def _levels(items: Sequence[N], above: Mapping[N, Sequence[N]]) -> list[list[N]]:
    """The items by the length of the longest path to them."""
    level: dict[N, int] = {}
    levels: list[list[N]] = []
    for item in items:
        level[item] = max((level[parent] + 1 for parent in above[item]), default=0)
        if level[item] == len(levels):
            levels.append([])
        levels[level[item]].append(item)
    return levels


def _cut(levels: Sequence[Sequence[N]], above: Mapping[N, Sequence[N]]) -> list[list[Sequence[N]]]:
    """The levels in groups: each item of a group comes, by paths, after each item of the groups before."""
    of = {item: place for place, items in enumerate(levels) for item in items}
    until = dict.fromkeys(of, len(levels))
    """The level of the first item that waits for each: up to there it is the end of all paths to it."""
    for item, level in of.items():
        for parent in above[item]:
            until[parent] = min(until[parent], level)
    groups: list[list[Sequence[N]]] = [[levels[0]]]
    for place, ends in enumerate(_ends(levels, until), start=1):
        if all(sum(until[parent] >= place for parent in above[item]) == ends for item in levels[place]):
            groups.append([])
        groups[-1].append(levels[place])
    return groups


def _ends(levels: Sequence[Sequence[N]], until: Mapping[N, int]) -> Iterator[int]:
    """Before each level but the first: how many of the items above have nothing after them there."""
    leaving = [0] * (len(levels) + 1)
    ends = 0
    for place, level in enumerate(levels[:-1], start=1):
        ends -= leaving[place - 1]
        for item in level:
            leaving[until[item]] += 1
        ends += len(level)
        yield ends
