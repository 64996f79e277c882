"""A participant that is killed between its effect and its commit leaves nothing, and blocks nobody."""

import subprocess
import sys

import pytest

from tests import forked
from tests.behaviour.participant.parties import DEADLINE_S, Base


@pytest.mark.parametrize("what", ["once, in the block", "once, after it", "undo"])
def test_kill_in_the_middle(plain: Base, what: str):
    """After ``kill -9`` before the commit a repeat is first, its effect takes place once, and no barrier is left."""
    command = [sys.executable, "-m", "tests.behaviour.participant.victim", plain.url, plain.options.get("options", "")]
    with forked.Process([*command, what], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "here\n"
        repeat = plain.party()
        waiter = repeat.undo("undo", "late") if what == "undo" else repeat.once("step", 2)
        plain.waiting(waiter)
        victim.kill()
    expected = "undo first, step None" if what == "undo" else "first"
    assert waiter.result(DEADLINE_S) == expected
    repeat.commit().result(DEADLINE_S)
    assert plain.net("step") == int(what != "undo")
    assert repeat.once("late").result(DEADLINE_S) == ("Undone" if what == "undo" else "first")
