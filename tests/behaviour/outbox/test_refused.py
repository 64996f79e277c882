"""An entry that can never succeed is set aside, said once, listed, and holds up nothing."""

import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from sagas import Orchestrator
from tests.kit import settled
from tests.outboxes import done, hand_on, held, order, shop_at, started


async def test_what_can_never_succeed_is_set_aside(any_url: str, caplog: pytest.LogCaptureFixture):
    """A taken id, an unknown saga, a wrong state and a wrong value are refused, one error each; the rest goes on."""
    async with shop_at(any_url) as shop, Orchestrator("memory://", sagas=[order, held]) as running:
        await settled(await running.start(order, "coffee", id="taken"), "completed")
        await settled(await running.start(held, "x", id="waits"), "waiting")
        before = datetime.now(UTC)

        def ask(session: Any) -> None:
            shop.outbox.start(session, order, "tea", id="taken")
            shop.outbox.cancel(session, "taken")
            shop.outbox.cancel(session, "nobody")
            shop.outbox.complete_callback(session, saga_id="waits", name="approval", value=7)
            shop.outbox.fail_callback(session, "no token of ours", "no")
            shop.outbox.start(session, order, "tea", id="new")
            shop.outbox.complete_callback(session, saga_id="waits", name="approval", value="yes")

        await shop.commit(ask)
        relay = await hand_on(shop, running)
        assert (relay.relay.handed, relay.relay.refused) == (2, 5)
        refused = await shop.refused()
        assert [(entry.verb, entry.saga_id, entry.saga) for entry in refused] == [
            ("start", "taken", "order"),
            ("cancel", "taken", None),
            ("cancel", "nobody", None),
            ("complete_callback", "waits", None),
            ("fail_callback", None, None),
        ]
        assert [code in entry.reason for code, entry in zip(CODES, refused, strict=True)] == [True] * 5
        assert all(before <= entry.at <= entry.refused_at for entry in refused)
        assert await (await running.get("waits")).result() == "x: yes"
        assert await (await running.get("new")).result() == "tea"
        await hand_on(shop, running)
        errors = [each for each in caplog.records if each.levelno == logging.ERROR and each.name == "sagas"]
        assert len(errors) == 5, "each is said once"
        assert "outbox.retry(" in errors[0].getMessage()


CODES = ("SG001", "DC0", "SG002", "DC0", "DC0")
"""What the reasons end with: SagaExists, WrongState, SagaNotFound, PayloadError, CallbackNotFound."""


async def test_an_operator_retries_or_drops(any_url: str):
    """``retry`` has a refused entry handed on again, of all or of some; ``drop`` deletes it. Others are not touched."""
    async with shop_at(any_url) as shop, Orchestrator("memory://", sagas=[held]) as running:
        for saga_id in ("a", "b", "c"):
            await shop.commit(lambda session, saga_id=saga_id: shop.outbox.cancel(session, saga_id))
        await hand_on(shop, running)
        a, b, c = [entry.id for entry in await shop.refused()]
        await shop.commit(lambda session: shop.outbox.cancel(session, "later"))
        assert await done(shop.outbox.drop(b, 999)) == 1
        assert await done(shop.outbox.drop()) == 0
        for saga_id in ("a", "c"):
            await settled(await running.start(held, "x", id=saga_id), "waiting")
        assert await done(shop.outbox.retry(a)) == 1
        assert [entry.id for entry in await shop.refused()] == [c]
        assert await done(shop.outbox.retry()) == 1
        assert (await done(shop.outbox.stats())).waiting == 3
        await hand_on(shop, running)
        assert [entry.saga_id for entry in await shop.refused()] == ["later"]
        for saga_id in ("a", "c"):
            await settled(await running.get(saga_id), "compensated")


async def test_what_is_no_entry_of_ours_is_set_aside(any_url: str):
    """A row that was changed by hand, or that a later release wrote, is refused by itself, and the others go on."""
    async with shop_at(any_url) as shop, Orchestrator("memory://", worker=False) as running:

        def ask(session: Any) -> None:
            for verb, saga_id, request in (
                ("send_event", "x", "{}"),
                ("start", "x", "no json"),
                ("start", None, '{"saga": "order", "version": 1, "input": []}'),
                ("complete_callback", None, '{"value": null}'),
            ):
                session.add(_row(verb, saga_id, request))
            shop.outbox.start(session, order, "tea", id="one")

        await shop.commit(ask)
        await hand_on(shop, running)
        assert await started(running) == ["one"]
        assert len(await shop.refused()) == 4


def _row(verb: str, saga_id: str | None, request: str) -> Any:
    from sagas.outbox.tables import OutboxRow  # noqa: PLC0415 - no test should otherwise know it

    return OutboxRow(verb=verb, saga_id=saga_id, request=request, at_ns=1)


async def test_stats_say_how_it_stands(any_url: str):
    """How many entries wait, for how long the oldest has, and how many were refused."""
    async with shop_at(any_url) as shop, Orchestrator("memory://", worker=False) as running:
        assert (await done(shop.outbox.stats())).oldest is None
        await shop.commit(lambda session: shop.outbox.cancel(session, "nobody"))
        first = await done(shop.outbox.stats())
        assert (first.waiting, first.refused) == (1, 0)
        assert first.oldest is not None
        await hand_on(shop, running)
        assert await done(shop.outbox.stats()) == type(first)(waiting=0, oldest=None, refused=1)
