"""The scenes on any host: effects, undo order, info, journal and spans as on our engine."""

import re
from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sagas import SagaPastPivot, WrongState
from sagas.model.definition import SagaDef
from tests.hosts import scenes
from tests.hosts.stage import Outcome, Scene, Stage, played
from tests.kit import begun, entered, reaches, steps, until


async def run_through(stage: Stage, saga: SagaDef[..., Any], *waits: tuple[str, float]) -> Outcome:
    """Run a saga to its end; time is skipped while it waits at these keys."""
    handle = await stage.client.start(saga, "ann", id="one")
    for key, span in waits:

        async def waits_there(key: str = key) -> bool:
            await stage.pass_time(0.1)  # retry delays come before it
            return key in steps(await handle.info())

        await until(waits_there)
        await stage.pass_time(span)
    await stage.end(handle)
    return await stage.outcome(handle)


class LikeOurEngine:
    """The scenes, for the adapter that derives this class: what a scene gives on our engine, it gives on the host."""

    @abstractmethod
    def on_host(self, folder: Path, *sagas: SagaDef[..., Any]) -> AbstractAsyncContextManager[Stage]:
        """A stage on the host for these sagas."""

    def played(self, folder: Path, scene: Scene, *sagas: SagaDef[..., Any]) -> Outcome:
        """Play a scene on our engine and on the host."""
        return played(self.on_host(folder, *sagas), scene, *sagas)

    def test_all_is_done(self, tmp_path: Path):
        """Four steps: each is called once, and the result is the body's."""

        async def scene(stage: Stage) -> Outcome:
            return await run_through(stage, scenes.trip)

        found = self.played(tmp_path, scene, scenes.trip)
        assert found.log == ["car", "hotel", "bus", "flight"]
        assert found.info["result"] == ["ann"] * 4

    def test_all_is_undone(self, tmp_path: Path):
        """The last step is rejected: three are undone, last first."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("flight", "refused")
            return await run_through(stage, scenes.trip)

        found = self.played(tmp_path, scene, scenes.trip)
        assert found.log == ["car", "hotel", "bus", "undo bus", "undo hotel", "undo car"]
        assert found.info["cause"] == "failed"

    def test_retries_with_delays_and_a_sleep(self, tmp_path: Path):
        """Steps that fail are tried again after their delays, before the pivot and after it; between them it sleeps."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("patient", "broken", "broken", "ok").plan("ship", "broken", "lost", "ok")
            return await run_through(stage, scenes.slow, ("sleep", 3601))

        found = self.played(tmp_path, scene, scenes.slow)
        assert found.info["status"] == "completed"
        assert [step["attempts"] for step in found.info["steps"]] == [1, 3, 1, 1, 3]

    def test_branches_beside_each_other(self, tmp_path: Path):
        """Branches are undone against the order in which they ended."""

        async def scene(stage: Stage) -> Outcome:
            gate = stage.world.gate("car")
            stage.world.plan("flight", "refused")
            handle = await stage.client.start(scenes.beside, "ann", id="one")
            await entered(gate, None)  # type: ignore[arg-type]
            await begun(handle, None, "hotel", "succeeded")  # type: ignore[arg-type]
            gate.open()
            await stage.end(handle)
            return await stage.outcome(handle)

        assert self.played(tmp_path, scene, scenes.beside).log == ["hotel", "car", "undo car", "undo hotel"]

    def test_a_callback_is_answered(self, tmp_path: Path):
        """By saga and name; one of another type is refused and the wait goes on, a second answer changes nothing."""

        async def scene(stage: Stage) -> Outcome:
            handle = await stage.client.start(scenes.asks, "ann", id="one")
            await begun(handle, None, "approval")  # type: ignore[arg-type]
            await stage.client.complete_callback(saga_id="one", name="approval", value=3, actor="ann", note="fine")
            await stage.end(handle)
            return await stage.outcome(handle)

        assert self.played(tmp_path, scene, scenes.asks).info["result"] == "3 by ann"

    def test_nobody_answers(self, tmp_path: Path):
        """The timeout of a callback has the saga undone."""

        async def scene(stage: Stage) -> Outcome:
            return await run_through(stage, scenes.asks, ("approval", 61))

        assert self.played(tmp_path, scene, scenes.asks).log == ["car", "undo car"]

    def test_heartbeats(self, tmp_path: Path):
        """Each one puts the end off; the one that does not come ends the wait."""

        async def scene(stage: Stage) -> Outcome:
            handle = await stage.client.start(scenes.beats, "ann", id="one")
            await begun(handle, None, "approval")  # type: ignore[arg-type]
            for _ in range(2):
                await stage.pass_time(40)
                await stage.client.heartbeat_callback(saga_id="one", name="approval")
            assert (await handle.info()).status == "waiting"
            await stage.pass_time(61)
            await stage.end(handle)
            return await stage.outcome(handle)

        found = self.played(tmp_path, scene, scenes.beats)
        assert "no heartbeat came" in found.info["error"]

    @pytest.mark.parametrize(
        ("plan", "log"),
        [
            ("silent", ["car", "probed", "hotel"]),
            ("lost", ["car", "undo car"]),
        ],
    )
    def test_an_unknown_outcome_is_settled(self, tmp_path: Path, plan: str, log: list[str]):
        """A step without an answer is settled by its probe, and the saga goes on from what is true."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("probed", plan)
            return await run_through(stage, scenes.doubts)

        assert self.played(tmp_path, scene, scenes.doubts).log == log

    def test_a_child_is_undone_with_its_parent(self, tmp_path: Path):
        """The steps of a child that has completed are undone when its parent fails."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("pay", "refused")
            return await run_through(stage, scenes.whole)

        undone = self.played(tmp_path, scene, scenes.whole, scenes.trip).log[5:]
        assert undone == ["undo flight", "undo bus", "undo hotel", "undo car", "undo car"]

    def test_a_child_that_was_undone(self, tmp_path: Path):
        """Its parent may go on."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("flight", "refused")
            return await run_through(stage, scenes.tolerant)

        assert self.played(tmp_path, scene, scenes.tolerant, scenes.trip).info["result"] == "by car"

    def test_a_savepoint(self, tmp_path: Path):
        """What was done within it is undone, and the body goes on."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("flight", "refused")
            return await run_through(stage, scenes.second_best)

        assert self.played(tmp_path, scene, scenes.second_best).log == ["car", "hotel", "undo hotel"]

    def test_a_deadline(self, tmp_path: Path):
        """A saga whose deadline passes while it waits is undone."""

        async def scene(stage: Stage) -> Outcome:
            return await run_through(stage, scenes.hurried, ("sleep", 11))

        found = self.played(tmp_path, scene, scenes.hurried)
        assert (found.log, found.info["cause"]) == (["car", "undo car"], "deadline")

    def test_a_deadline_and_tags_given_at_the_start(self, tmp_path: Path):
        """The deadline counts instead of the saga's own, and the tags are shown."""

        async def scene(stage: Stage) -> Outcome:
            options = {"deadline": timedelta(minutes=1), "tags": {"customer": "42"}}
            handle = await stage.client.start(scenes.slow, "ann", id="one", **options)
            await begun(handle, None, "sleep")  # type: ignore[arg-type]
            await stage.pass_time(61)
            await stage.end(handle)
            return await stage.outcome(handle)

        info = self.played(tmp_path, scene, scenes.slow).info
        assert (info["cause"], info["tags"]) == ("deadline", {"customer": "42"})

    def test_a_cancel_amid_a_step(self, tmp_path: Path):
        """The step under way ends, nothing further begins, and all is undone. A second cancel changes nothing."""

        async def scene(stage: Stage) -> Outcome:
            gate = stage.world.gate("hotel")
            handle = await stage.client.start(scenes.trip, "ann", id="one")
            await entered(gate, None)  # type: ignore[arg-type]
            await handle.cancel("no more")
            gate.open()
            await stage.end(handle)
            await handle.cancel("no more")
            return await stage.outcome(handle)

        found = self.played(tmp_path, scene, scenes.trip)
        assert found.log == ["car", "hotel", "undo hotel", "undo car"]
        assert found.info["cause"] == "cancelled"

    def test_a_cancel_during_a_sleep(self, tmp_path: Path):
        """The sleep is given up at once."""

        async def scene(stage: Stage) -> Outcome:
            handle = await stage.client.start(scenes.slow, "ann", id="one")
            await begun(handle, None, "sleep")  # type: ignore[arg-type]
            await handle.cancel()
            await stage.end(handle)
            return await stage.outcome(handle)

        assert self.played(tmp_path, scene, scenes.slow).log == ["price", "patient", "undo patient"]

    def test_a_cancel_past_the_pivot(self, tmp_path: Path):
        """It is refused, and the saga goes forward."""

        async def scene(stage: Stage) -> Outcome:
            gate = stage.world.gate("ship")
            handle = await stage.client.start(scenes.slow, "ann", id="one")
            await begun(handle, None, "sleep")  # type: ignore[arg-type]
            await stage.pass_time(3601)
            await entered(gate, None)  # type: ignore[arg-type]
            with pytest.raises(SagaPastPivot):
                await handle.cancel()
            gate.open()
            await stage.end(handle)
            return await stage.outcome(handle)

        assert self.played(tmp_path, scene, scenes.slow).info["status"] == "completed"

    def test_a_compensation_is_retried(self, tmp_path: Path):
        """One that was given up leaves the saga stuck, the others are undone; retried, it runs under its own key."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("flight", "refused").plan("undo hotel", "broken", "ok")
            handle = await stage.client.start(scenes.trip, "ann", id="one")
            assert (await stage.end(handle)).status == "stuck"
            with pytest.raises(WrongState):
                await stage.client.skip("one", "car")
            await stage.client.retry("one", actor="ann", note="the hotel is back")
            await stage.end(handle)
            return await stage.outcome(handle)

        found = self.played(tmp_path, scene, scenes.trip)
        assert found.log == ["car", "hotel", "bus", "undo bus", "undo car", "undo hotel"]
        assert found.info["status"] == "compensated"

    def test_a_compensation_is_skipped(self, tmp_path: Path):
        """A person has undone it: the saga ends as resolved."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("flight", "refused").plan("undo hotel", "broken")
            handle = await stage.client.start(scenes.trip, "ann", id="one")
            await stage.end(handle)
            await stage.client.skip("one", "hotel", actor="ann", note="phoned")
            end = await stage.end(handle)
            assert end.status == "resolved"
            return await stage.outcome(handle)

        assert self.played(tmp_path, scene, scenes.trip).info["status"] == "resolved"

    @pytest.mark.parametrize("happened", [True, False])
    def test_an_unknown_outcome_is_resolved(self, tmp_path: Path, *, happened: bool):
        """Nothing settles it, so a person says whether it happened."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("stubborn", "silent" if happened else "lost")
            handle = await stage.client.start(scenes.unsettled, "ann", id="one")
            assert (await stage.end(handle)).status == "stuck"
            await stage.client.resolve("one", "stubborn", happened=happened, result="ann" if happened else None)
            await stage.end(handle)
            return await stage.outcome(handle)

        found = self.played(tmp_path, scene, scenes.unsettled)
        assert found.log == (["car", "stubborn"] if happened else ["car", "undo car"])

    def test_stuck_past_the_pivot(self, tmp_path: Path):
        """It takes no cancel and no rollback; retried, it goes forward."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("price", "broken", "ok")
            handle = await stage.client.start(scenes.past, "ann", id="one")
            assert (await stage.end(handle)).status == "stuck"
            for verb in (stage.client.cancel, stage.client.rollback):
                with pytest.raises(SagaPastPivot):
                    await verb("one")
            await stage.client.retry("one")
            await stage.end(handle)
            return await stage.outcome(handle)

        found = self.played(tmp_path, scene, scenes.past)
        assert (found.info["status"], found.log) == ("completed", ["car", "pay", "price"])

    def test_a_rollback_of_a_stuck_saga(self, tmp_path: Path):
        """What is stuck on an unknown outcome before its pivot is cancelled, and resolved on the way."""

        async def scene(stage: Stage) -> Outcome:
            stage.world.plan("stubborn", "lost")
            handle = await stage.client.start(scenes.unsettled, "ann", id="one")
            await stage.end(handle)
            await stage.client.rollback("one", actor="ann")
            await reaches(handle, None, "stuck")
            await stage.client.resolve("one", "stubborn", happened=False)
            await stage.end(handle)
            return await stage.outcome(handle)

        assert self.played(tmp_path, scene, scenes.unsettled).log == ["car", "undo car"]

    def test_a_kill(self, tmp_path: Path):
        """It ends here and now, and nothing is undone."""

        async def scene(stage: Stage) -> Outcome:
            handle = await stage.client.start(scenes.asks, "ann", id="one")
            await begun(handle, None, "approval")  # type: ignore[arg-type]
            await stage.client.kill("one", actor="ann")
            assert (await stage.end(handle)).status == "killed"
            await stage.client.kill("one", actor="ann")
            with pytest.raises(WrongState):
                await stage.client.retry("one")
            return await stage.outcome(handle)

        assert self.played(tmp_path, scene, scenes.asks).log == ["car"]

    def test_pause_and_resume(self, tmp_path: Path):
        """A paused saga starts no step; resumed, it goes on."""

        async def scene(stage: Stage) -> Outcome:
            gate = stage.world.gate("hotel")
            handle = await stage.client.start(scenes.trip, "ann", id="one")
            await entered(gate, None)  # type: ignore[arg-type]
            await stage.client.pause("one")

            async def paused() -> bool:
                return bool((await handle.info()).paused)

            await until(paused)
            gate.open()
            await begun(handle, None, "hotel", "succeeded")  # type: ignore[arg-type]
            assert stage.world.log == ["car", "hotel"]
            await stage.client.resume("one")
            await stage.end(handle)
            return await stage.outcome(handle)

        assert self.played(tmp_path, scene, scenes.trip).info["status"] == "completed"

    def test_the_scenes_are_all_played(self):
        """No saga of the scenes is left out."""
        played_here = set(re.findall(r"scenes\.(\w+)", Path(__file__).read_text(encoding="utf-8")))
        assert {each.name for each in scenes.ALL} - played_here <= {"careful", "hands_out", "nails"}
