"""Sagas that are found by tags: what may be a tag, and what a search by them finds."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from durable_core.layer import spans_of
from sagas import DefinitionError, Orchestrator, PayloadError, Saga, SagaStuck, lookup, saga
from sagas import blocking as threads
from sagas.model.spans import VOCABULARY
from sagas.testing import ManualClock
from tests.kit import Place, orchestrator, until


@lookup
async def look(number: int) -> int:
    return number


@saga("inner", version=1)
async def inner(s: Saga, number: int) -> int:
    return await s.run(look, number)


@saga("order", version=1)
async def order(s: Saga, number: int) -> int:
    return await s.run(inner, number)


@saga("other", version=1)
async def other(s: Saga, number: int) -> int:
    return number


async def test_sagas_are_found_by_the_tags_of_their_start(place: Place):
    """All tags asked for must match, beside any other filter; a child has none of its parent's."""
    begun = datetime.now(UTC)
    async with orchestrator(place.store, order, other) as running:
        for number, tags in enumerate([{"customer": "42", "shop": "é"}, {"customer": "42"}, {"customer": "4"}, None]):
            await (await running.start(order, number, id=f"o-{number}", tags=tags)).result()
        await (await running.start("other", 1, id="x", tags={"customer": "42"})).result()

        async def found(**filters: Any) -> list[str]:
            ids = [info.id for info in await running.list(**filters)]
            assert await running.count(**filters) == len(ids)
            return ids

        assert await found(tags={"customer": "42"}) == ["x", "o-1", "o-0"]
        assert await found(tags={"customer": "42", "shop": "é"}) == ["o-0"]
        assert await found(tags={"customer": "42"}, saga="order", status="completed", since=begun) == ["o-1", "o-0"]
        assert await found(tags={"customer": "42"}, status="stuck") == await found(tags={"customer": "5"}) == []
        assert len(await found(tags={})) == 5
        assert (await running.info("o-0")).tags == {"customer": "42", "shop": "é"}
        assert (await running.info("o-0/inner")).tags == (await running.info("o-3")).tags == {}


async def test_tags_are_options_of_the_start():
    """The same id with the same input gives the saga that is there, with the tags that it was begun with."""
    async with orchestrator("memory://", order) as running:
        await running.start(order, 1, id="a", tags={"first": "1"})
        await (await running.start(order, 1, id="a", tags={"second": "2"})).result()
        assert (await running.info("a")).tags == {"first": "1"}
        assert await running.count() == 1


MANY = {str(number): "" for number in range(17)}
WRONG: list[tuple[Any, str]] = [
    (MANY, "17 tags; at most 16"),
    ({"k" * 65: "v"}, "key of a tag has 65 characters; at most 64"),
    ({"k": "v" * 257}, "'k' has 257 characters; at most 256"),
    ({"": "v"}, "key of a tag is empty"),
    ({"k": 42}, "'k' is 42; give a text"),
    ({7: "v"}, "key of a tag is 7; give a text"),
    ({"k": "a\0b"}, "NUL"),
    ({"k": "\ud800"}, "surrogate"),
    ("customer=42", "is str; give a dict"),
]


@pytest.mark.parametrize(("tags", "told"), WRONG)
async def test_what_is_no_tag_is_refused(tags: Any, told: str):
    """Before anything is started or searched; the message says what is wrong with which tag."""
    async with orchestrator("memory://", order) as running:
        with pytest.raises(PayloadError, match="starting order: tags") as refused:
            await running.start(order, 1, tags=tags)
        assert told in str(refused.value)
        with pytest.raises(PayloadError, match="tags to search for"):
            await running.list(tags=tags)
        assert await running.count() == 0


async def test_the_largest_tags_are_kept():
    """16 tags of the longest keys and values, of any characters, come back as they are."""
    tags = {f"{number:x}" + "é" * 63: '"\\\n😀' * 64 for number in range(16)}
    async with orchestrator("memory://", order) as running:
        await (await running.start(order, 1, id="a", tags=tags)).result()
        assert (await running.info("a")).tags == tags
        assert await running.count(tags=tags) == 1


async def test_a_filter_that_does_not_exist_is_refused():
    """A misspelt filter is no filter that matches everything; nor is a time without a zone."""
    async with orchestrator("memory://", order) as running:
        with pytest.raises(TypeError, match="stauts"):
            await running.list(stauts="stuck")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        for since in (datetime(2026, 1, 1), "today"):
            with pytest.raises(DefinitionError, match="time zone"):
                await running.count(since=since)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_the_blocking_orchestrator_has_them_too():
    """The same option and the same filters."""
    tags: Mapping[str, str] = {"customer": "42"}
    with threads.Orchestrator("memory://", sagas=[order]) as running:
        running.start(order, 1, id="a", tags=tags).result()
        assert [info.id for info in running.list(tags=tags)] == ["a"]


async def test_a_name_alone_may_have_tags_too():
    """A saga that another process serves is started with tags; they are there before a worker is."""
    async with orchestrator("memory://tagged", order), Orchestrator("memory://tagged", worker=False) as observer:
        await observer.start("order", 1, id="a", tags={"customer": "42"})
        assert [info.id for info in await observer.list(tags={"customer": "42"})] == ["a"]


@saga("tagging", version=1)
async def tagging(s: Saga, number: int) -> int:
    s.tag("stage", "first")
    await s.run(tagged, number)
    s.tag("stage", "second")
    s.tag("courier", "é")
    async with s.parallel() as p:
        p.run(late)
    await s.sleep(3600)
    return number


@saga("tagged", version=1)
async def tagged(s: Saga, number: int) -> int:
    s.tag("stage", "child")
    return await s.run(look, number)


async def late(s: Saga) -> None:
    s.tag("branch", "1")


async def test_a_body_tags_its_saga(place: Place):
    """Again: it replaces; a child's tags are its own; they are found also after a replay and the end, until a purge."""
    clock = ManualClock()
    given = {"customer": "42", "stage": "none"}
    whole = {"customer": "42", "stage": "second", "courier": "é", "branch": "1"}
    async with place.orchestrator(tagging, clock=clock) as running:
        await running.start(tagging, 1, id="a", tags=given)
        await until(lambda: has(running, status="waiting"), running)
        assert (await running.info("a")).tags == whole
        assert (await running.info("a/tagged")).tags == {"stage": "child"}
        assert not await has(running, tags={"stage": "child"})
        assert not await has(running, tags={"stage": "first"})
    async with place.orchestrator(tagging, clock=clock) as running:
        await clock.advance(3600)
        assert await (await running.get("a")).result() == 1
        for tag in whole.items():
            assert await has(running, tags=dict([tag]), status="completed")
        marks = [entry for entry in await (await running.get("a")).history() if entry.key.startswith("tag:")]
        assert [entry.key for entry in marks] == ["tag:", "tag:tagged/", "tag:", "tag:", "tag:"]
        await running.purge(older_than=0)
        assert not await has(running, tags=whole)


async def has(running: Orchestrator, **filters: Any) -> bool:
    """Whether a saga matches."""
    return await running.count(**filters) == 1


@pytest.mark.parametrize(
    ("tags", "told"), [({"k": "v" * 257}, "257 characters"), (MANY, "17 tags"), ({"k": 7}, "text")]
)
async def test_what_is_no_tag_makes_the_saga_stuck(tags: Mapping[str, Any], told: str):
    """At that line, before anything further is done; what was tagged before stays."""

    @saga("mistaken", version=1)
    async def mistaken(s: Saga) -> None:
        s.tag("fine", "1")
        for key, value in tags.items():
            s.tag(key, value)
        await s.run(look, 1)

    async with orchestrator("memory://", mistaken) as running:
        with pytest.raises(SagaStuck, match=told):
            await (await running.start(mistaken, id="a")).result()
        info = await running.info("a")
        assert (info.tags["fine"], info.steps) == ("1", [])


async def test_the_journal_decides_what_a_tag_is(place: Place):
    """Code that would tag it otherwise today tags a recorded saga as it was tagged."""
    clock, values = ManualClock(), ["today", "then"]

    @saga("changing", version=1)
    async def changing(s: Saga) -> None:
        s.tag("value", values.pop())
        await s.sleep(3600)

    async with place.orchestrator(changing, clock=clock) as running:
        await running.start(changing, id="a")
        await until(lambda: has(running, status="waiting"), running)
    async with place.orchestrator(changing, clock=clock) as running:
        await clock.advance(3600)
        await (await running.get("a")).result()
        assert (values, (await running.info("a")).tags) == ([], {"value": "then"})


async def test_tags_are_on_spans_from_then_on():
    """Those of the start on all, each other one on what is written after it; and the saga's name on all."""
    async with orchestrator("memory://", tagging, clock=ManualClock(auto=True)) as running:
        await (await running.start(tagging, 1, id="a", tags={"customer": "42"})).result()
        record = await running.engine.find("a")
        found = spans_of(record, await running.engine.journal(record.num), vocabulary=VOCABULARY)
    spans = {span.name: span.attributes for span in found}
    assert all(attributes["saga.tag.customer"] == "42" for attributes in spans.values())
    assert all(attributes["saga.name"] in ("tagging", "tagged") for attributes in spans.values())
    assert "saga.tag.stage" not in spans["saga tagging"]
    assert spans["look"]["saga.tag.stage"] == "first"
    assert spans["outcome completed"]["saga.tag.stage"] == "second"
    assert spans["outcome completed"]["saga.tag.courier"] == "é"
