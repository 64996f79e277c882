"""What a step's own code sets on the current span is in the trace: kept with the attempt's end, and made from there."""

import threading
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from durable_core.layer import SpanRecord
from durable_core.model.said import MOST_ATTRIBUTES, SAID
from sagas import Orchestrator, Retry, Saga, SagaHandle, resource, saga, step, tracing
from tests.collecting import assert_sound, collecting, debts_paid, expected
from tests.kit import Broken, Place, World, end_of, entered, party, until
from tests.traces import check_trace

flight = party("flight")
TWICE = Retry(attempts=2, first=0)


def say(who: str, attempt: int) -> None:
    span = trace.get_current_span()
    span.set_attribute("who", who)
    span.set_attribute("attempt", attempt)
    span.add_event("said", {"who": who})


@step(retry=TWICE)
async def on_the_loop(*, world: World = resource()) -> str:
    say("loop", world.count("loop") + 1)
    await world.act("loop")
    return "loop"


@on_the_loop.compensate
async def take_back(done: str) -> None:
    say(f"undo {done}", 1)


@step(compensation=None, because="it only talks")
def on_a_thread() -> None:
    say("thread", 1)
    others = [threading.Thread(target=trace.get_current_span().set_attribute, args=(name, name)) for name in "ab"]
    for other in others:  # a thread has no context of its own: the span was handed to it
        other.start()
    for other in others:
        other.join()


@saga("talking", version=1)
async def talking(s: Saga) -> None:
    async with s.parallel() as p:
        p.run(on_the_loop)
        p.run(on_a_thread)
    await s.run(flight, "out")


@saga("silent", version=1)
async def silent(s: Saga) -> None:
    await s.run(flight, "out")


def provider_of(**options: Any) -> TracerProvider:
    """A provider that sends nothing."""
    return TracerProvider(shutdown_on_exit=False, **options)


async def sent(running: Orchestrator, id: str = "one") -> dict[str, SpanRecord]:
    """Its spans, by name."""
    record = await running.engine.find(id)
    found = check_trace(record, await running.engine.journal(record.num))
    return {span.name: span for span in found}


def own(span: SpanRecord) -> dict[str, Any]:
    """What is not ours."""
    return {name: value for name, value in span.attributes.items() if not name.startswith(("saga.", "error."))}


async def said(handle: SagaHandle[Any]) -> list[str]:
    """The keys that anything was said of, as the journal has them."""
    return [entry.key for entry in await handle.history() if entry.kind == "noted" and entry.detail == SAID]


async def test_attributes_and_events_are_on_the_attempt(place: Place):
    """Each attempt has what its own code set, on the loop and on a thread, also where it failed; so has an undo."""
    world = World().plan("loop", "broken", "ok").plan("flight", "broken")
    async with place.orchestrator(talking, world=world, tracer_provider=provider_of()) as running:
        end = await end_of(await running.start(talking, id="one"), running)
        spans = await sent(running)
    assert end.status == "compensated"
    assert own(spans["on_the_loop #1"]) == {"who": "loop", "attempt": 1}
    assert own(spans["on_the_loop #2"]) == {"who": "loop", "attempt": 2}
    assert own(spans["on_a_thread"]) == {"who": "thread", "attempt": 1, "a": "a", "b": "b"}
    assert own(spans["undo on_the_loop"]) == {"who": "undo loop", "attempt": 1}
    assert not own(spans["flight"])
    failed = spans["on_the_loop #1"]
    assert [event.name for event in failed.events] == ["said", "exception"]
    assert failed.events[0].attributes == {"who": "loop"}
    assert failed.attributes["error.type"] == f"{Broken.__module__}.Broken"


async def test_what_is_sent_and_what_is_exported_later_is_the_same(place: Place):
    """The spans that leave the process have it, and so has a document that another process makes, which is untraced."""
    provider, collector = collecting()
    async with place.orchestrator(talking, world=World(), tracer_provider=provider) as running:
        await end_of(await running.start(talking, id="one"), running)
        want = await expected(running, "one")
    assert_sound(collector.taken, want)
    taken = {span.name: dict(span.attributes or {}) for span in collector.taken}
    assert taken["on_the_loop"]["who"] == "loop"
    async with place.orchestrator(world=World(), worker=False) as looking:
        document = await tracing.document(looking, "one")
    (told,) = [span for span in document["data"][0]["spans"] if span["operationName"] == "on_the_loop"]
    assert {"key": "who", "type": "string", "value": "loop"} in told["tags"]
    assert [field["value"] for field in told["logs"][0]["fields"]] == ["said", "loop"]


async def test_a_crash_loses_none_of_it_and_a_replay_says_none_twice(place: Place):
    """A step has ended, its process dies in the next one, and another goes on: what was said is there, once."""
    world = World()
    gate = world.gate("flight")
    provider, collector = collecting()
    async with place.dying(talking, world=world, tracer_provider=provider) as first:
        await first.start(talking, id="one")
        await entered(gate, first)
    gate.opened.set()
    async with place.orchestrator(talking, world=world, tracer_provider=provider) as second:
        handle = await second.get("one")
        await end_of(handle, second)
        spans, keys = await sent(second), await said(handle)
        want = await expected(second, "one")
        await debts_paid(second)
    assert world.count("loop") == 1
    assert sorted(keys) == ["on_a_thread", "on_the_loop"]
    assert own(spans["on_the_loop"]) == {"who": "loop", "attempt": 1}
    assert_sound(collector.taken, want)


async def test_of_an_attempt_that_was_cut_nothing_is_kept(place: Place):
    """An attempt whose process died has no end to keep it with; the next attempt says its own."""
    world = World()
    gate = world.gate("loop")
    async with place.dying(talking, world=world, tracer_provider=provider_of()) as first:
        await first.start(talking, id="one")
        await entered(gate, first)
    gate.opened.set()
    async with place.orchestrator(talking, world=world, tracer_provider=provider_of()) as second:
        await end_of(await second.get("one"), second)
        spans = await sent(second)
    assert not own(spans["on_the_loop #1 cut"])
    assert own(spans["on_the_loop #2"]) == {"who": "loop", "attempt": 2}


async def test_who_says_nothing_writes_nothing(place: Place):
    """A step that sets nothing has no entry more than it had; nor has one that runs untraced or unsampled."""
    for number, (definition, options) in enumerate(
        (
            (silent, {"tracer_provider": provider_of()}),
            (talking, {}),
            (talking, {"tracer_provider": provider_of(sampler=ALWAYS_OFF)}),
        )
    ):
        async with place.orchestrator(definition, world=World(), **options) as running:
            handle = await running.start(definition, id=str(number))
            await end_of(handle, running)
            assert await said(handle) == []


@saga("spoiling", version=1)
async def spoiling(s: Saga) -> None:
    await s.run(spoil)


@step(compensation=None, because="it only talks")
async def spoil() -> None:
    trace.get_current_span().set_attributes(
        {"saga.status": "completed", "saga.id": "two", "error.type": "mine", "mine": True}
    )
    for place in range(MOST_ATTRIBUTES):
        trace.get_current_span().set_attribute(f"more {place}", place)
    raise Broken("no")


async def test_nobodys_code_can_spoil_a_search(place: Place):
    """Names of ours are left out, what we say of an attempt counts, and how much was too much is told."""
    async with place.orchestrator(spoiling, world=World(), tracer_provider=provider_of()) as running:
        await end_of(await running.start(spoiling, id="one"), running)
        span = (await sent(running))["spoil"]
    assert span.attributes["saga.id"] == "one"
    assert "saga.status" not in span.attributes
    assert span.attributes["error.type"] == f"{Broken.__module__}.Broken"
    assert span.attributes["mine"] is True
    assert span.attributes["saga.step.left_out"] == 4


async def test_what_comes_back_after_a_kill_changes_nothing(place: Place):
    """An attempt that returns after its saga was killed is evidence of its outcome alone; the journal stays sound."""
    world = World()
    gate = world.gate("loop")
    async with place.orchestrator(talking, world=world, tracer_provider=provider_of()) as running:
        handle = await running.start(talking, id="one")
        await entered(gate, running)
        await running.kill("one")
        gate.opened.set()

        async def ended_late() -> bool:
            return "on_the_loop ended late" in await sent(running)

        await until(ended_late, running)
        assert "on_the_loop" not in await said(handle)


@pytest.mark.parametrize("how", ["attribute", "event"])
async def test_a_token_that_is_said_is_masked(place: Place, how: str):
    """A callback's token that a step sets on its span is in no journal and in no span, as elsewhere."""
    tokens: list[str] = []

    @step(compensation=None, because="it only talks")
    async def tell(token: str) -> None:
        tokens.append(token)
        span = trace.get_current_span()
        if how == "attribute":
            span.set_attribute("token", token)
        else:
            span.add_event("told", {"token": token})

    @saga("asking", version=1)
    async def asking(s: Saga) -> None:
        approval = await s.callback("approval", bool)
        await s.run(tell, approval.token)
        await approval.result()

    async with place.orchestrator(asking, world=World(), tracer_provider=provider_of()) as running:
        handle = await running.start(asking, id="one")

        async def told() -> bool:
            return bool(await said(handle))

        await until(told, running)
        spans = await sent(running)
        record = await running.engine.find("one")
        stored = await running.engine.store.journal.load([record.num])
        await running.cancel("one")
        await end_of(handle, running)
    assert tokens
    assert tokens[0] not in str(spans["tell"])
    assert not [entry for entry in stored[record.num] if tokens[0].encode() in (entry.payload or b"")]
