"""Random calls about a few steps, in transactions that are committed or rolled back, against a model of a few lines."""

import copy
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.behaviour.participant.parties import DEADLINE_S, Base, Model

STEPS = st.sampled_from(["one", "two", "three"])
NUMBERS = st.integers(1, 9)


class Barrier(RuleBasedStateMachine):
    """One participant whose transactions hold any number of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.base = Base("sqlite", Path(self.folder.name) / "participant.db", None)
        self.party = self.base.party()
        self.kept = {step: Model() for step in ("one", "two", "three")}
        self.now = copy.deepcopy(self.kept)

    def teardown(self) -> None:
        self.base.stack.close()
        self.base.engine.dispose()
        self.folder.cleanup()

    @rule(step=STEPS, number=NUMBERS)
    def once(self, step: str, number: int) -> None:
        assert self.party.once(step, number).result(DEADLINE_S) == self.now[step].once(number)

    @rule(step=STEPS, number=NUMBERS)
    def another_request(self, step: str, number: int) -> None:
        model = self.now[step]
        expected = "KeyReused" if model.answer is not None else "Undone" if model.barred else "first"
        told = self.party.once(step, number, request="another").result(DEADLINE_S)
        assert told == expected
        if told == "first":
            self.rollback()

    @rule(step=STEPS, by=st.integers(1, 2))
    def undo(self, step: str, by: int) -> None:
        assert self.party.undo(f"undo {by} of {step}", step).result(DEADLINE_S) == self.now[step].undo()

    @rule(step=STEPS)
    def happened(self, step: str) -> None:
        assert self.party.happened(step).result(DEADLINE_S) == self.now[step].happened()

    @rule()
    def commit(self) -> None:
        self.party.commit().result(DEADLINE_S)
        self.kept = copy.deepcopy(self.now)
        self.check_effects()

    @rule()
    def rollback(self) -> None:
        self.party.rollback().result(DEADLINE_S)
        self.now = copy.deepcopy(self.kept)
        self.check_effects()

    def check_effects(self) -> None:
        """What is in force is what was committed."""
        for step, model in self.kept.items():
            assert self.base.net(step) == model.net()


TestBarrier = Barrier.TestCase
TestBarrier.__doc__ = "Whatever is called, committed and rolled back, answers and effects are the model's."
TestBarrier.settings = settings(settings.default, max_examples=25, stateful_step_count=20)
