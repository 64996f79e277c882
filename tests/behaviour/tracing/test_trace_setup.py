"""``sagas.tracing.configure`` and ``sagas trace export``: traces get to a collector, or into a file."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider

from durable_core.layer import SpanRecord
from durable_core.tracing import delivery
from durable_core.tracing.answers import Accepted, Later, Refused
from durable_core.tracing.collector import Collector
from durable_core.tracing.otel import OtelSink, export_directly
from sagas import DefinitionError, Saga, saga, tracing
from sagas.cli import main as program
from tests import forked
from tests.kit import Place, World, end_of, party, play, until
from tests.otlp import collector
from tests.traces import spans

car, hotel = party("car"), party("hotel")


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(hotel, who)


def sending(url: str, **options: Any) -> TracerProvider:
    """A provider that sends the spans of sagas to a collector."""
    provider = TracerProvider(shutdown_on_exit=False)
    export_directly(provider, Collector(f"{url}/v1/traces", **options))
    return provider


@pytest.mark.parametrize("answers", [[], [500], [500, 400, 500]])
async def test_a_collector_in_trouble_gets_every_span_in_the_end(
    place: Place, answers: list[int], monkeypatch: pytest.MonkeyPatch
):
    """A collector that answers with errors is offered the spans again, until it has each of them once."""
    monkeypatch.setattr(delivery, "FIRST_DELAY_S", 0.01)

    with collector() as found:
        found.answers += answers
        world = World().plan("hotel", "refused")
        async with place.orchestrator(trip, world=world, tracer_provider=sending(found.url)) as running:
            await end_of(await running.start(trip, "ann", id="one"), running)
            (record,) = await running.engine.store.runs.find(["one"])
            want = spans(record, await running.engine.journal(record.num))
            await until(lambda: len(found.spans) >= len(want))  # a process that leaves gives up after a second
        assert [span.span_id for span in found.spans] == [f"{span.span_id:016x}" for span in want]


async def test_a_collector_that_does_not_answer_holds_up_no_saga(place: Place):
    """While the collector holds its answer sagas start and end; it gets their spans once it answers."""
    with collector() as found:
        found.hold.clear()
        async with place.orchestrator(trip, world=World(), tracer_provider=sending(found.url)) as running:
            for number in range(5):
                assert (await end_of(await running.start(trip, "ann", id=f"trip-{number}"), running)).status
            assert not found.spans
            found.hold.set()
            await until(lambda: len({span.attributes["saga.id"] for span in found.spans}) == 5)


def test_one_span_that_is_refused_holds_up_no_other(place: Place, caplog: pytest.LogCaptureFixture):
    """A collector that minds one step's name for ever gets every other span; it is counted, and told once."""

    async def main() -> None:
        with collector() as found:
            found.minds = lambda span: span.name == "hotel"
            async with place.orchestrator(trip, world=World(), tracer_provider=sending(found.url)) as running:
                for number in range(3):
                    await end_of(await running.start(trip, "ann", id=f"trip-{number}"), running)
                exporter = running.engine.exporter
                assert exporter is not None
                await until(lambda: exporter.tally.dropped == 3 and len(found.spans) == 12)
            assert [span.name for span in found.spans] == [
                "saga trip",
                "car",
                "ended completed",
                "outcome completed",
            ] * 3

    play(main)
    told = [record.getMessage() for record in caplog.records if record.name == "durable_core.tracing"]
    assert sum("refused for good and left out" in text for text in told) == 1
    assert "3 spans that were refused" in told[-1]


def test_what_the_standard_variables_say_is_sent(monkeypatch: pytest.MonkeyPatch):
    """Endpoint, headers and packing are those of the OTEL_ variables, the ones for traces before the others."""
    for how, packed in (("gzip", "gzip"), ("deflate", "deflate"), ("none", None)):
        with collector() as found:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{found.url}/")
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=a%20b,authorization=Bearer%20t")
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", how)
            provider = TracerProvider(shutdown_on_exit=False)
            sink = Collector()
            assert sink.url == f"{found.url}/v1/traces"
            export_directly(provider, sink)
            assert OtelSink(provider, "sagas", "saga").send([SpanRecord("x", 1, 2, None, 3, 4, {})]) == Accepted()
            (asked,) = found.asked
            assert (asked["x-team"], asked["authorization"]) == ("a b", "Bearer t")
            assert asked.get("Content-Encoding") == packed
            assert [span.name for span in found.spans] == ["x"]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"", Accepted()),
        (b"OK, thanks", Accepted()),
        (
            ExportTraceServiceResponse(
                partial_success={"rejected_spans": 2, "error_message": "long"}
            ).SerializeToString(),
            Accepted(2, "long"),
        ),
    ],
)
def test_a_success_may_be_partial(body: bytes, answer: Accepted):
    """A partial success says how many were rejected; an answer that is no message of OTLP is a plain yes."""
    with collector() as found:
        found.body = body
        assert Collector(f"{found.url}/v1/traces").post(b"") == answer


def test_an_answer_that_asks_for_patience_is_heard():
    """503 with Retry-After is told with its pause; a redirect is no success; nobody there is for later."""
    with collector() as found:
        found.answers += [503, 307]
        found.headers = {"Retry-After": "4", "Location": "/elsewhere"}
        there = Collector(f"{found.url}/v1/traces")
        assert there.post(b"") == Later(f"{found.url}/v1/traces answered 503", 4.0)
        assert there.post(b"") == Refused(f"{found.url}/v1/traces answered 307", certain=False)
    assert isinstance(there.post(b""), Later)


def test_a_collector_that_does_not_answer_in_time_is_for_later():
    """A request that is not answered in time is given up, and its spans offered again."""
    with collector() as found:
        found.hold.clear()
        answer = Collector(f"{found.url}/v1/traces", timeout_s=0.05).post(b"")
        assert isinstance(answer, Later)
        assert "Timeout" in answer.why


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@127.0.0.1:1/v1/traces",
        "http://hunter2@127.0.0.1:1/v1/traces",
        "http://user:hunter2@127.0.0.1:port/v1/traces",
        "user:hunter2@127.0.0.1/v1/traces",
    ],
)
def test_an_address_that_cannot_be_reached_is_told_without_its_password(url: str):
    """Its host is told, also where the library's own error repeats the whole address."""
    answer = Collector(url).post(b"")
    assert isinstance(answer, Later)
    assert "hunter2" not in answer.why
    assert "127.0.0.1" in answer.why


def test_a_refusal_is_told_without_the_password():
    """So it is where the collector answers."""
    with collector() as found:
        found.answers = [503]
        answer = Collector(f"{found.url.replace('//', '//user:hunter2@')}/v1/traces").post(b"")
    assert isinstance(answer, Later)
    assert "hunter2" not in answer.why
    assert "answered 503" in answer.why


NAMES = ["plain", "ünï cödé 🎈", "quote \" and ' and \\", "<b>&amp;", "n" * 200]


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_that_a_saga_may_have_gets_there(place: Place, name: str):
    """Names of sagas, steps and ids arrive as they are, with quotes and of any length that they may have."""

    @saga(name, version=1)
    async def named(s: Saga) -> None:
        await s.run(party(name), "ann")

    with collector() as found:
        async with place.orchestrator(named, world=World(), tracer_provider=sending(found.url)) as running:
            await end_of(await running.start(named, id=name), running)
        assert [span.name for span in found.spans] == [
            f"saga {name}",
            name,
            "ended completed",
            "outcome completed",
        ]
        assert {span.attributes["saga.id"] for span in found.spans} == {name}


# -- configure --------------------------------------------------------------------------------------------------------

CONFIGURED = """
import asyncio, sys
from opentelemetry import trace
from sagas import Orchestrator, Saga, saga, step, tracing

@step(compensation=None, because="it only greets")
def greet() -> None:
    with trace.get_tracer("inner").start_as_current_span("inside"):
        pass

@saga("greeting", version=1)
async def greeting(s: Saga) -> None:
    await s.run(greet)

async def main():
    async with Orchestrator("memory://", sagas=[greeting]) as orchestrator:
        await (await orchestrator.start(greeting, id="one")).result()

provider = tracing.configure(*sys.argv[1:])
assert tracing.configure(*sys.argv[1:]) is provider
asyncio.run(main())
provider.shutdown()
"""


def configured(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that calls ``configure`` with these arguments, and one saga."""
    return forked.run(
        [sys.executable, "-c", CONFIGURED, *arguments],
        env={"PYTHONPATH": str(Path(__file__).parents[3]), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_one_call_sends_sagas_and_what_is_in_their_steps(how: str):
    """After ``configure`` a saga and the spans made inside its steps arrive as one trace of the service."""
    with collector() as found:
        if how == "argument":
            ran = configured(found.url, "shop")
        else:
            ran = configured(OTEL_EXPORTER_OTLP_ENDPOINT=found.url, OTEL_SERVICE_NAME="shop")
        assert ran.returncode == 0, ran.stderr
    assert [span.name for span in found.of("sagas")] == [
        "saga greeting",
        "greet",
        "ended completed",
        "outcome completed",
    ]
    (inside,) = found.of("inner")
    assert inside.parent_id == found.of("sagas")[1].span_id
    assert len({span.trace_id for span in found.spans}) == 1
    assert all(b"shop" in span.data and b"instance" not in span.data for span in found.spans)


def test_the_environment_can_switch_it_off():
    """With OTEL_SDK_DISABLED nothing is sent; with a sampler that never samples nothing either."""
    with collector() as found:
        for variables in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_SAMPLER": "always_off"}):
            ran = configured(found.url, **variables)
            assert ran.returncode == 0, ran.stderr
        assert not found.requests


def test_a_wrong_endpoint_is_told_at_once():
    """An endpoint that is no address is refused with a message that shows one."""
    for endpoint in ("jaeger", "jaeger:4318", "ftp://jaeger", "http://"):
        with pytest.raises(DefinitionError, match="http://localhost:4318"):
            tracing.configure(endpoint)


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_a_wrong_endpoint_of_the_environment_is_told_at_once_without_its_password(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """A worker with a mistyped variable says which it is and ends, instead of offering its spans for ever."""
    monkeypatch.setenv(name, "ftp://shop:hush@collector")
    with pytest.raises(DefinitionError, match=name) as told:
        tracing.configure()
    assert "hush" not in str(told.value)


def test_what_is_not_traced_does_not_load_opentelemetry():
    """A program that wants no spans loads nothing of OpenTelemetry, whatever it does."""
    program = CONFIGURED.replace("from opentelemetry import trace\n", "").replace(
        '    with trace.get_tracer("inner").start_as_current_span("inside"):\n        pass', "    return None"
    )
    program = program.partition("provider =")[0] + "asyncio.run(main())\n"
    program += "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


# -- files ------------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> int:
    """Run the command line; its exit code."""
    with pytest.raises(SystemExit) as ended:
        program(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with one saga that was rolled back."""
    url = f"sqlite:///{tmp_path / 'sagas.db'}"

    async def main() -> None:
        async with Place(url, None).orchestrator(trip, world=World().plan("hotel", "broken")) as running:
            await end_of(await running.start(trip, "ann", id="one"), running)

    asyncio.run(main())
    return url


def test_a_file_for_jaeger_holds_the_whole_trace(store: str, tmp_path: Path):
    """The file has the form that Jaeger's page opens: every span with its parent and links, and each tag once."""
    target = tmp_path / "trace.json"
    assert run("trace", "export", "one", "--store", store, "--output", str(target)) == 0
    (trace,) = json.loads(target.read_text())["data"]
    found = {span["spanID"]: span for span in trace["spans"]}
    assert len(found) == len(trace["spans"])
    for span in trace["spans"]:
        assert span["traceID"] == trace["traceID"]
        assert trace["processes"][span["processID"]]["serviceName"] == "sagas"
        assert isinstance(span["startTime"], int)
        assert isinstance(span["duration"], int)
        assert span["duration"] >= 0
        keys = [tag["key"] for tag in span["tags"]]
        assert len(keys) == len(set(keys)), "a tag twice"
        for reference in span["references"]:
            assert reference["spanID"] in found
            assert found[reference["spanID"]]["startTime"] <= span["startTime"]
    names = [span["operationName"] for span in trace["spans"]]
    assert names == ["saga trip", "car", "hotel", "compensate", "undo car"]
    (undo,) = [span for span in trace["spans"] if span["operationName"] == "undo car"]
    assert [reference["refType"] for reference in undo["references"]] == ["CHILD_OF", "FOLLOWS_FROM"]
    (hotel_span,) = [span for span in trace["spans"] if span["operationName"] == "hotel"]
    assert {"key": "error", "type": "bool", "value": True} in hotel_span["tags"]
    assert [field["key"] for field in hotel_span["logs"][0]["fields"]][:2] == ["event", "exception.type"]


def test_a_file_in_otlp_is_what_a_collector_takes(store: str, capsys: pytest.CaptureFixture[str]):
    """The OTLP file is a request that OTLP's own schema reads, with the same spans as the file for Jaeger."""
    from google.protobuf.json_format import Parse  # noqa: PLC0415 - only here

    assert run("trace", "export", "one", "--store", store, "--format", "otlp") == 0
    document = json.loads(capsys.readouterr().out)
    spans_in_json = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    for span in spans_in_json:  # OTLP writes ids as hex digits, where protobuf's own JSON has base64
        for name in ("traceId", "spanId", "parentSpanId"):
            span.pop(name, None)
        for link in span["links"]:
            link.clear()
    request = Parse(json.dumps(document), ExportTraceServiceRequest())
    (scope,) = request.resource_spans[0].scope_spans
    assert scope.scope.name == "sagas"
    assert [span.name for span in scope.spans][:3] == ["saga trip", "car", "hotel"]
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in scope.spans)


def test_a_trace_that_cannot_be_written_or_found_is_told(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """An unknown saga, an unknown form, a file that cannot be written: one message, exit code 2."""
    for arguments, told in (
        (("two",), "no saga has the id 'two'"),
        (("one", "--format", "zipkin"), "zipkin"),
        (("one", "--output", str(tmp_path / "no" / "where.json")), "cannot be written"),
    ):
        assert run("trace", "export", *arguments, "--store", store) == 2
        assert told in capsys.readouterr().err


def test_what_was_written_is_told(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """With --output the command says how many spans are where; with --json as a document."""
    target = str(tmp_path / "trace.json")
    assert run("trace", "export", "one", "--store", store, "-o", target) == 0
    assert f"Wrote 5 spans of one to {target}." in " ".join(capsys.readouterr().out.split())
    assert run("--json", "trace", "export", "one", "--store", store, "-o", target) == 0
    assert json.loads(capsys.readouterr().out) == {"saga": "one", "spans": 5, "file": target}


def test_a_saga_is_sent_again_by_hand(store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """``sagas trace send`` sends the whole trace of a saga that ran untraced; again, and it is the same to the byte."""
    with collector() as found:
        assert run("trace", "send", "one", "--store", store, "--endpoint", found.url) == 0
        assert "accepted 8 spans of one." in capsys.readouterr().out
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        assert run("--json", "trace", "send", "one", "--store", store) == 0
        assert json.loads(capsys.readouterr().out) == {"saga": "one", "taken": 8, "refused": 0}
        assert [span.data for span in found.spans[:8]] == [span.data for span in found.spans[8:]]
        assert [span.name for span in found.spans[:2]] == ["saga trip", "car"]


def test_a_saga_that_cannot_be_sent_is_told(
    store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A collector that is down: exit code 2 after a while. One that refuses a span: 1, and how many it refused."""
    with collector() as found:
        found.minds = lambda span: span.name == "hotel"
        assert run("trace", "send", "one", "--store", store, "--endpoint", found.url) == 1
        assert "accepted 7 spans of one, and refused 1." in capsys.readouterr().out
    monkeypatch.setattr("sagas.cli.traces.TIMEOUT_S", 0.1)
    assert run("trace", "send", "one", "--store", store, "--endpoint", found.url) == 2
    assert "did not accept the trace of one within" in capsys.readouterr().err
    assert run("trace", "send", "one", "--store", store, "--endpoint", "jaeger:4318") == 2
    assert "http://localhost:4318" in capsys.readouterr().err
    assert run("trace", "send", "two", "--store", store, "--endpoint", found.url) == 2
    assert "no saga has the id 'two'" in capsys.readouterr().err
