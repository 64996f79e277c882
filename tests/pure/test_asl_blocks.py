"""The order of a graph as nested blocks: nothing too early, nothing lost, and no more held up than need be."""

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from sagas.asl.blocks import Block, Fork, One, Series, blocks_of

Parents = dict[int, tuple[int, ...]]


def orders(count: int) -> st.SearchStrategy[Parents]:
    """Orders of so many items at most, in which each waits for some of those before it."""
    return st.integers(1, count).flatmap(
        lambda size: st.fixed_dictionaries(
            {
                item: st.sets(st.integers(0, item - 1), max_size=3).map(lambda some: tuple(sorted(some)))
                if item
                else st.just(())
                for item in range(size)
            }
        )
    )


def nested(depth: int = 3) -> st.SearchStrategy[tuple[str, list[object]]]:
    """Series-parallel orders, as they were made: lists of lists, one after the other or side by side."""
    leaf: st.SearchStrategy[object] = st.just(None)
    return st.recursive(
        leaf, lambda inner: st.tuples(st.sampled_from("sp"), st.lists(inner, min_size=2, max_size=3)), max_leaves=12
    ).filter(lambda made: made is not None)


def before(block: Block[int]) -> set[tuple[int, int]]:
    """All pairs of which the first certainly ends before the second begins."""
    match block:
        case One():
            return set()
        case Series(parts=parts):
            found = {pair for part in parts for pair in before(part)}
            for place, part in enumerate(parts):
                for later in parts[place + 1 :]:
                    found |= {(first, second) for first in items(part) for second in items(later)}
            return found
        case Fork(branches=branches):
            return {pair for branch in branches for pair in before(branch)}


def items(block: Block[int]) -> list[int]:
    """All items."""
    match block:
        case One(item=item):
            return [item]
        case Series(parts=parts) | Fork(branches=parts):
            return [item for part in parts for item in items(part)]


def closure(parents: Mapping[int, Sequence[int]]) -> set[tuple[int, int]]:
    """All pairs of which the second waits for the first, near or far."""
    found: set[tuple[int, int]] = set()
    for item in sorted(parents):
        for parent in parents[item]:
            found |= {(parent, item)} | {(first, item) for first, second in found if second == parent}
    return found


@given(orders(12))
def test_every_dependency_holds(parents: Parents):
    """Each item is there once, and everything that it waits for ends before it begins."""
    block = blocks_of(sorted(parents), parents)
    assert sorted(items(block)) == sorted(parents)
    assert closure(parents) <= before(block)


def made(tree: object, numbers: list[int], parents: Parents, above: tuple[int, ...]) -> tuple[int, ...]:
    """Number the items of a nested order; returns those that nothing in it follows."""
    if tree is None:
        numbers.append(len(numbers))
        parents[numbers[-1]] = above
        return (numbers[-1],)
    assert isinstance(tree, tuple)
    kind, parts = tree
    if kind == "s":
        for part in parts:
            above = made(part, numbers, parents, above)
        return above
    return tuple(end for part in parts for end in made(part, numbers, parents, above))


@given(nested())
def test_what_is_series_parallel_waits_for_nothing_else(tree: object):
    """Of a series-parallel order exactly the dependencies hold: no item is held up by another that it does not need."""
    parents: Parents = {}
    made(tree, [], parents, ())
    order = sorted(parents, key=lambda item: (depth_of(parents, item), item))
    assert before(blocks_of(order, parents)) == closure(parents)


def depth_of(parents: Parents, item: int) -> int:
    """The length of the longest path to an item."""
    return max((depth_of(parents, parent) + 1 for parent in parents[item]), default=0)


def test_what_is_not_runs_level_by_level():
    """The smallest order that is not series-parallel, an N, runs as two levels."""
    parents = {0: (), 1: (), 2: (0,), 3: (0, 1)}
    assert blocks_of([0, 1, 2, 3], parents) == Series((Fork((One(0), One(1))), Fork((One(2), One(3)))))


def test_long_and_deep_orders_are_no_matter():
    """A chain of 5,000 and 1,000 forks within forks go no deeper than Python does, and nothing of them is lost."""
    chain = {item: (item - 1,) if item else () for item in range(5000)}
    assert items(blocks_of(sorted(chain), chain)) == sorted(chain)
    deep: Parents = {0: ()}
    for item in range(1, 2000, 2):
        deep[item] = deep[item + 1] = (item - 1,)
    assert sorted(items(blocks_of(sorted(deep), deep))) == sorted(deep)
