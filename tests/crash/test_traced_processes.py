"""Workers that are killed leave one whole trace with a collector."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durable_core.layer import SpanRecord
from sagas import Orchestrator, SagaCompensated
from tests import forked
from tests.crash.traced import traced
from tests.otlp import Collector, Taken, collector
from tests.traces import spans

MODULE = str(Path(__file__).with_name("traced.py"))
DEADLINE_S = 60.0
SECRET = "correct horse battery staple"


@contextmanager
def worker(store: str, endpoint: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process that sends its traces to ``endpoint``; killed at the end if it still runs."""
    process = forked.Process(
        [sys.executable, "-c", "from sagas.cli import main; main()", "worker", MODULE, "--store", store],
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for another process to have done something."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)
    assert holds(), what


def assert_whole(taken: list[Taken], want: list[SpanRecord]) -> None:
    """Exactly these spans, byte for byte the same where repeated, each after its parent, in one trace."""
    seen: dict[str, bytes] = {}
    for span in taken:
        assert not span.parent_id or span.parent_id in seen, f"{span.name} came before its parent"
        assert seen.setdefault(span.span_id, span.data) == span.data, f"{span.name} differs when repeated"
    assert seen.keys() == {f"{span.span_id:016x}" for span in want}
    assert {span.trace_id for span in taken} == {f"{want[0].trace_id:032x}"}


async def expected(store: str) -> list[SpanRecord]:
    """The spans that the journal makes."""
    async with Orchestrator(store, worker=False) as looking:
        (record,) = await looking.engine.store.runs.find(["one"])
        return spans(record, await looking.engine.journal(record.num))


def all_there(found: Collector, want: list[SpanRecord]) -> bool:
    """Whether every one of these has arrived."""
    return {f"{span.span_id:016x}" for span in want} <= {span.span_id for span in found.spans}


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [1, 2])
def test_a_trace_is_whole_however_often_its_worker_is_killed(tmp_path: Path, deaths: int):
    """After kill -9 amid a step another worker goes on; the collector then has exactly the journal's spans."""
    store = f"sqlite:///{tmp_path / 'sagas.db'}"

    async def main() -> None:
        with collector() as found:
            async with Orchestrator(store, worker=False) as counter:
                handle = await counter.start(traced, str(tmp_path), SECRET, id="one")
                for attempt in range(1, deaths + 1):
                    with worker(store, found.url) as process:
                        await until(Path(tmp_path, f"entered-{attempt}").exists, "the step was not entered")
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                Path(tmp_path, "go").touch()
                with worker(store, found.url) as process:
                    with pytest.raises(SagaCompensated):
                        await handle.result(timeout=DEADLINE_S)
                    want = await expected(store)
                    await until(lambda: all_there(found, want), "not all spans arrived")
                    process.send_signal(signal.SIGTERM)
                    process.wait(DEADLINE_S)
            assert_whole(found.of("sagas"), want)
            names = [span.name for span in want]
            assert [name for name in names if name.startswith("second")] == [
                "second",
                *(f"second #{attempt + 1} cut" for attempt in range(deaths)),
                f"second #{deaths + 1}",
                "second done",
            ]
            attempts = {f"{span.span_id:016x}": span.name for span in want}
            inner = {span.name: attempts[span.parent_id] for span in found.of("participant")}
            assert inner["call back"] == "undo first", "what a step's own code begins is under its attempt"
            assert {span.trace_id for span in found.spans} == {f"{want[0].trace_id:032x}"}
            told = [span for span in found.spans if b"hunter2" in span.data]
            assert {span.name for span in told} == {"third", "outcome compensated"}, "texts of exceptions, elsewhere"
            assert not [span for span in found.spans if "hunter2" in str(span.attributes)]
            assert not [span for span in found.spans if SECRET.encode() in span.data]

    asyncio.run(main())


async def killed_and_ended(store: str, place: Path, endpoint: str, arrived: Callable[[list[SpanRecord]], bool]) -> None:
    """A saga whose worker is killed amid its second step; another one ends it, and has sent all that it owes."""
    async with Orchestrator(store, worker=False) as counter:
        handle = await counter.start(traced, str(place), SECRET, id="one")
        with worker(store, endpoint) as process:
            await until(Path(place, "entered-1").exists, "the step was not entered")
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait)
        Path(place, "go").touch()
        with worker(store, endpoint) as process:
            with pytest.raises(SagaCompensated):
                await handle.result(timeout=DEADLINE_S)
            want = await expected(store)
            await until(lambda: arrived(want), "not all spans arrived")
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, DEADLINE_S)


@pytest.mark.slow
def test_a_receiver_of_another_make_has_the_same_trace(tmp_path: Path):
    """OtelTap, whose receiver is none of ours, gets exactly the journal's spans, alike where they are repeated."""
    try:
        import oteltap  # noqa: PLC0415 - it has no build for every machine; the collector of tests/otlp.py needs none
    except (ImportError, OSError) as error:
        pytest.skip(f"oteltap cannot be loaded here: {error}")
    store = f"sqlite:///{tmp_path / 'sagas.db'}"
    seen: list[tuple[str, str, bytes]] = []

    async def keep(receiver: oteltap.OtelTapHttpProtobufReceiver) -> None:
        async for span in receiver.stream_traces():
            data = span.SerializeToString(deterministic=True)
            seen.append((span.span_id.hex(), span.parent_span_id.hex(), data))

    def arrived(want: list[SpanRecord]) -> bool:
        return {f"{span.span_id:016x}" for span in want} <= {span_id for span_id, *_ in seen}

    async def main() -> None:
        settings = oteltap.OtelTapHttpProtobufReceiverSettings(http_port=free_port())
        async with oteltap.OtelTapHttpProtobufReceiver(settings) as receiver:
            keeping = asyncio.create_task(keep(receiver))
            await killed_and_ended(store, tmp_path, f"http://127.0.0.1:{settings.http_port}", arrived)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    asyncio.run(main())
    want = {f"{span.span_id:016x}" for span in asyncio.run(expected(store))}
    told: dict[str, bytes] = {}
    for span_id, parent_id, data in seen:
        if span_id in want:
            assert not parent_id or parent_id in told, "a span came before its parent"
            assert told.setdefault(span_id, data) == data, "a span differs when repeated"
    assert told.keys() == want


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port
