"""The page about outboxes: its service runs as it stands there, and its other calls are ours."""

import asyncio
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import Session, select

from tests.kit import until, within

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-transaction.md"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's service, as a module in an empty folder."""
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    path = tmp_path / "page_own_transaction.py"
    path.write_text(block[1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def test_the_pages_service_books(service: Any):
    """A request commits the booking and starts its saga; one that fails commits neither."""

    async def main() -> None:
        transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
        async with (
            service.app.router.lifespan_context(service.app),
            httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
        ):
            answer = await client.post("/bookings", params={"room": "blue"})
            assert (answer.status_code, answer.json()) == (202, {"saga": "booking-1"})
            await until(lambda: service.outbox.stats().waiting == 0, service.orchestrator)
            handle = await service.orchestrator.get("booking-1")
            assert await within(handle.result(), service.orchestrator) == "booking 1: blue is yours"

            def start(*_: Any, **__: Any) -> str:
                raise RuntimeError("the service dies here")

            service.outbox.start = start
            assert (await client.post("/bookings", params={"room": "red"})).status_code == 500
            with Session(service.engine) as session:
                assert [booking.room for booking in session.exec(select(service.Booking))] == ["blue"]
            assert service.outbox.stats().waiting == 0

    asyncio.run(main())
    service.engine.dispose()


def test_the_page_names_what_is_there():
    """Each method of the outbox and each gauge that the page names exists."""
    from sagas.model.spans import OUTBOX, VOCABULARY  # noqa: PLC0415 - for this test only
    from sagas.outbox import Outbox  # noqa: PLC0415 - likewise

    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<!saga\.)\boutbox\.(\w+)", text))
    public = {name for name in vars(Outbox) if not name.startswith("_")}
    assert named == public, "the page is about all of it"
    assert set(re.findall(r"`(saga\.outbox[\w.]+)`", text)) == {f"{VOCABULARY.prefix}.{one.name}" for one in OUTBOX}
