"""Run numbers that are reserved by the block."""

import pytest

from durable_core import StoreError
from durable_core.stores.numbers import RunNumbers


def test_a_block_is_followed_by_the_spare_one():
    """A spare is asked for once half is used, and not twice; numbers come in order, each once."""
    numbers = RunNumbers("here")
    numbers.begin(range(10, 14))
    assert [numbers.take(), numbers.take()] == [10, 11]
    assert not numbers.low
    assert numbers.take() == 12
    assert numbers.low
    numbers.add(range(30, 34))
    assert not numbers.low
    assert [numbers.take() for _ in range(numbers.left)] == [13, 30, 31, 32, 33]


def test_without_a_spare_it_ends_and_may_go_on():
    """The error names the store, and passes once a block was added."""
    numbers = RunNumbers("here")
    numbers.begin(range(2))
    assert [numbers.take(), numbers.take()] == [0, 1]
    with pytest.raises(StoreError, match="all 2 numbers reserved in here") as caught:
        numbers.take()
    assert caught.value.transient
    assert numbers.low
    numbers.add(range(7, 8))
    assert numbers.take() == 7


def test_a_store_that_is_opened_again_forgets_its_spare():
    """What an earlier stay had reserved is not handed out after what a later one has."""
    numbers = RunNumbers("here")
    numbers.begin(range(4))
    numbers.add(range(10, 14))
    numbers.begin(range(20, 22))
    assert [numbers.take(), numbers.take()] == [20, 21]
    assert not numbers.left
