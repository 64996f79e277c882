"""Texts from outside: what UTF-8 cannot write is refused with an error that says so, and nothing has changed."""

from collections.abc import Awaitable, Callable

import pytest

from sagas import Orchestrator, PayloadError, Saga, SagaCompensated, SagasError, SagaStuck, saga, step

BAD = "a\ud800b"


@step(compensation=None, because="the test's")
async def fails() -> None:
    raise ValueError(BAD)


@saga("waits", version=1)
async def waits(s: Saga, kind: str = "") -> str:
    if kind == "fails":
        await s.run(fails)
    if kind == "patched":
        s.patched(BAD)
    if kind == "status":
        s.set_status({"is": BAD})
    approval = await s.callback("approval", str)
    return await approval.result()


Call = Callable[[Orchestrator], Awaitable[object]]

CALLS: dict[str, Call] = {
    "start": lambda o: o.start(waits, BAD),
    "start id": lambda o: o.start(waits, id=BAD),
    "start name": lambda o: o.start(BAD),
    "get": lambda o: o.get(BAD),
    "info": lambda o: o.info(BAD),
    "list": lambda o: o.list(saga=BAD),
    "count": lambda o: o.count(saga=BAD),
    "reason": lambda o: o.cancel("w", reason=BAD),
    "step": lambda o: o.retry("w", BAD),
    "no text": lambda o: o.pause("w", note=None),  # type: ignore[arg-type]  # the test
    "skip": lambda o: o.skip("w", "x", note=BAD),
    "resolve": lambda o: o.resolve("w", "x", happened=True, result=BAD),
    "resolve actor": lambda o: o.resolve("w", "x", happened=True, actor=BAD),
    "token": lambda o: o.complete_callback(BAD, "x"),
    "value": lambda o: o.complete_callback(saga_id="w", name="approval", value=BAD),
    "callback of": lambda o: o.complete_callback(saga_id=BAD, name="approval", value="x"),
    "callback name": lambda o: o.complete_callback(saga_id="w", name=BAD, value="x"),
    "message": lambda o: o.fail_callback(saga_id="w", name="approval", message=BAD),
    "heartbeat": lambda o: o.heartbeat_callback(BAD),
    "archive": lambda o: o.purge(older_than=1, archive=BAD),
    **{
        f"{verb} {part}": lambda o, verb=verb, part=part: getattr(o, verb)("w", **{part: BAD})  # type: ignore[misc]
        for verb in ("cancel", "retry", "kill", "pause", "resume", "rollback")
        for part in ("actor", "note")
    },
    **{f"{verb} id": lambda o, verb=verb: getattr(o, verb)(BAD) for verb in ("cancel", "retry", "kill", "pause")},  # type: ignore[misc]
}


async def test_half_a_surrogate_pair_is_refused(url: str) -> None:
    """Every text from outside: a SagasError that says so, and nothing has changed."""
    async with Orchestrator(url, sagas=[waits]) as orchestrator:
        handle = await orchestrator.start(waits, id="w")
        before = await handle.history()
        for name, call in CALLS.items():
            try:
                await call(orchestrator)
            except SagasError:
                continue
            except Exception as error:  # noqa: BLE001 - any other is the fault
                pytest.fail(f"{name}: {error!r}")
            else:
                pytest.fail(f"{name} was accepted")
        with pytest.raises(PayloadError, match=r"reason= is .*surrogate"):
            await handle.cancel(BAD)
        assert await handle.history() == before
        assert [info.id for info in await orchestrator.list()] == ["w"]
        with pytest.raises(SagaCompensated) as end:
            await (await orchestrator.start(waits, "fails")).result()
        assert isinstance(end.value.__cause__, ValueError)
        for kind in ("patched", "status"):  # the body's own mistake: nothing is undone because of it
            with pytest.raises(SagaStuck):
                await (await orchestrator.start(waits, kind)).result()
        await orchestrator.complete_callback(saga_id="w", name="approval", value="yes")
        assert await handle.result() == "yes"
