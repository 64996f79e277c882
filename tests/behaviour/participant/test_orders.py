"""Whatever order the calls about one step come in, each comes to what the barrier says, and no effect is doubled."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import permutations, product
from random import Random

import pytest

from tests.behaviour.participant.parties import DEADLINE_S, Base, Hold, Model, Party

CALLS = ("once", "once", "once", "undo", "undo", "happened")
ORDERS = sorted(set(permutations(CALLS)))


def does(what: str, party: Party, step: str, number: int) -> Future[str]:
    """One of the three calls."""
    if what == "once":
        return party.once(step, number)
    return party.undo(f"undo of {step}", step) if what == "undo" else party.happened(step)


def expects(what: str, model: Model, number: int) -> str:
    """What it should come to."""
    return {"once": lambda: model.once(number), "undo": model.undo, "happened": model.happened}[what]()


def test_every_order_of_calls(base: Base):
    """Each of the 60 orders of three steps' calls, two undos and a probe tells and does what the model does.

    Before each call that is committed, the same one is rolled back, which leaves nothing.
    """
    party = base.party()
    assert len(ORDERS) == 60
    for index, order in enumerate(ORDERS):
        step, model = f"step {index}", Model()
        for number, what in enumerate(order):
            told = does(what, party, step, number).result(DEADLINE_S)
            party.rollback().result(DEADLINE_S)
            again = does(what, party, step, number).result(DEADLINE_S)
            party.commit().result(DEADLINE_S)
            assert told == again == expects(what, model, number), f"{order} at {number}"
        assert base.net(step) == model.net()
        assert base.acts(step) == int(model.answer is not None) + int(model.answer is not None and model.undone)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
@pytest.mark.parametrize(("first", "second"), list(product(("once", "undo", "happened"), repeat=2)))
def test_two_at_a_time(base: Base, first: str, second: str, ending: str):
    """A call waits for an open transaction about the same step, and then comes to what that one's end makes it."""
    one, other, model = base.party(), base.party(), Model()
    told = does(first, one, "step", 1).result(DEADLINE_S)
    expected = expects(first, model, 1)
    waiter = does(second, other, "step", 2)
    base.waiting(waiter)
    end: Callable[[], Future[None]] = one.commit if ending == "commit" else one.rollback
    end().result(DEADLINE_S)
    if ending == "rollback":
        model = Model()
    assert told == expected
    assert waiter.result(DEADLINE_S) == expects(second, model, 2)
    other.commit().result(DEADLINE_S)
    assert base.net("step") == model.net()


@pytest.mark.parametrize("second", ["once", "undo", "happened"])
def test_a_call_waits_for_a_block_that_is_still_running(base: Base, second: str):
    """The key is taken when a block is entered, not when it is left: a second call never runs beside it."""
    one, other, hold = base.party(), base.party(), Hold()
    running = one.once("step", 1, hold=hold)
    assert hold.entered.wait(DEADLINE_S)
    waiter = does(second, other, "step", 2)
    base.waiting(waiter)
    hold.go.set()
    assert running.result(DEADLINE_S) == "first"
    one.commit().result(DEADLINE_S)
    expected = {"once": "repeat 1", "undo": "undo first, step 1", "happened": "happened 1"}
    assert waiter.result(DEADLINE_S) == expected[second]


def test_a_second_undo_under_another_key(base: Base):
    """A step is undone once, whatever the key of the undo; the second has the answer of the first."""
    one, other = base.party(), base.party()
    assert one.once("step", 7).result(DEADLINE_S) == "first"
    one.commit().result(DEADLINE_S)
    hold = Hold()
    running = one.undo("undo 1", "step", hold=hold)
    assert hold.entered.wait(DEADLINE_S)
    waiter = other.undo("undo 2", "step")
    base.waiting(waiter)
    hold.go.set()
    assert running.result(DEADLINE_S) == "undo first, step 7"
    one.commit().result(DEADLINE_S)
    assert waiter.result(DEADLINE_S) == "undo repeat, step 7"
    other.commit().result(DEADLINE_S)
    assert other.undo("undo 2", "step").result(DEADLINE_S) == "undo repeat, step 7"
    assert base.net("step") == 0
    assert base.acts("step") == 2


def test_two_undos_of_what_never_came(base: Base):
    """A barrier is put up once, and a second undo of it is a repeat."""
    party = base.party()
    told = [party.undo(key, "step").result(DEADLINE_S) for key in ("undo 1", "undo 2", "undo 1")]
    assert told == ["undo first, step None", "undo repeat, step None", "undo repeat, step None"]
    party.commit().result(DEADLINE_S)
    assert party.once("step").result(DEADLINE_S) == "Undone"


def test_many_duplicates_at_a_time(base: Base):
    """Of several equal calls at the same time one has its effect, and all have its answer."""
    parties = [base.party() for _ in range(5)]

    def both(number: int) -> str:
        told = parties[number].once("step", number).result(DEADLINE_S)
        parties[number].commit().result(DEADLINE_S)
        return told

    with ThreadPoolExecutor(len(parties)) as threads:
        told = list(threads.map(both, range(len(parties))))
    winner = told.index("first")
    assert sorted(told) == ["first", *([f"repeat {winner}"] * 4)]
    assert base.acts("step") == 1


@pytest.mark.parametrize("seed", range(3))
def test_random_calls_side_by_side(base: Base, seed: int):
    """Four parties call at random about three steps, and commit or roll back: no effect is doubled, no promise broken.

    What each was told in a committed transaction fits together: one first call for each step at most, the same answer
    for all, and none after a party was told that it did not happen.
    """
    steps = ("one", "two", "three")

    def play(number: int) -> list[tuple[str, str]]:
        chance, party, told = Random(f"{seed} {number}"), base.party(), list[tuple[str, str]]()
        for turn in range(12):
            what, step = chance.choice(("once", "once", "undo", "happened")), chance.choice(steps)
            answer = does(what, party, step, 100 * number + turn).result(DEADLINE_S)
            kept = chance.random() < 0.7
            (party.commit() if kept else party.rollback()).result(DEADLINE_S)
            told += [(step, answer)] if kept else []
        return told

    with ThreadPoolExecutor(4) as threads:
        told = [each for found in threads.map(play, range(4)) for each in found]
    for step in steps:
        answers = [answer for of, answer in told if of == step]
        firsts = answers.count("first")
        barred = any(answer in ("did not happen", "undo first, step None") for answer in answers)
        undone = sum(answer.startswith("undo first, step ") and not answer.endswith("None") for answer in answers)
        assert firsts <= 1
        assert undone <= firsts
        assert not (barred and firsts)
        assert "Undone" not in answers or barred
        assert len({word for answer in answers for word in answer.split() if word.isdecimal()}) <= 1
        assert (base.acts(step), base.net(step)) == (firsts + undone, firsts - undone)
