"""The demo's scenes in Jaeger: one whole trace for each order, of all the processes that took part."""

import json
import os
import subprocess
import sys

import pytest

from examples.participants.launcher import ROOT
from tests.real_jaeger.relay import relay
from tests.real_jaeger.server import Jaeger, Span
from tests.real_jaeger.verbs import in_lines, roots, warned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
CUT_CALLS = {"order-4": ["POST /charge"], "order-5": ["POST /refund"]}
"""The call under way when its worker was killed, by order: its answer is held back so that there is one.

The ninth order's worker is killed while the order waits: with no call under way.
"""
SERVICES, SHOP = "examples.participants", "examples.participants.calls"
ANSWER = "http.response.status_code"


@pytest.fixture(scope="session")
def orders(both: dict[int, Jaeger], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The trace of each order of the demo, which has been played and sent to both."""
    kept = tmp_path_factory.mktemp("demo") / "kept"
    with relay(*both.values()) as exporting:
        demo = subprocess.run(
            [sys.executable, "-m", "examples.orders.demo", "--keep", str(kept)],
            cwd=ROOT,
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": exporting.url},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    return {file.stem: json.loads(file.read_text())["data"][0]["traceID"] for file in (kept / "traces").iterdir()}


def below(parent: Span, spans: list[Span]) -> list[Span]:
    """The spans that have this one as their parent."""
    return [span for span in spans if span.parent_id == parent.id]


def alone(spans: list[Span]) -> list[Span]:
    """What services did for calls that are not in the trace."""
    known = {span.id for span in spans}
    return [span for span in spans if span.scope == SERVICES and span.parent_id not in known]


def unanswered(spans: list[Span]) -> set[str]:
    """The calls that were given up. Where a service notices later, Jaeger takes its clock for wrong, and warns."""
    return {span.id for span in spans if span.scope == SHOP and ANSWER not in span.tags}


def test_every_order_is_one_whole_trace(shown: Jaeger, orders: dict[str, str]):
    """No span has a warning or lacks its parent, but what a service did for a call that was cut or given up."""
    assert len(orders) == 10
    for id, trace_id in orders.items():
        spans = shown.trace(trace_id)
        orphans = alone(spans)
        assert [span.name for span in orphans] == CUT_CALLS.get(id, []), id
        rest = [span for span in spans if span not in orphans]
        minded = warned(id, [span for span in rest if span.parent_id not in unanswered(spans)])
        assert not minded, in_lines(minded)
        assert roots(rest) == ["saga place-order"], id
        assert {"shop", "inventory"} <= {span.service for span in spans}, id


def test_every_attempt_holds_its_call(shown: Jaeger, orders: dict[str, str]):
    """Below each attempt that has an end is its call, and below a call that was answered what the service did.

    An attempt without an end was cut by a kill: its call was never sent, and what the service did lies in its time.
    """
    for id, trace_id in orders.items():
        spans = shown.trace(trace_id)
        attempts = [span for span in spans if "saga.step.attempt" in span.tags]
        cut = [attempt for attempt in attempts if attempt.tags["saga.step.outcome"] == "cut"]
        for attempt in attempts:
            calls = below(attempt, spans)
            assert [call.scope for call in calls] == ([] if attempt in cut else [SHOP]), (id, attempt.name)
            served = [one.scope for call in calls if ANSWER in call.tags for one in below(call, spans)]
            assert served == [SERVICES for call in calls if ANSWER in call.tags], (id, attempt.name)
        for attempt, orphan in zip(cut, alone(spans), strict=True):
            assert attempt.start_us <= orphan.start_us <= attempt.start_us + attempt.duration_us, (id, attempt.name)


def test_an_order_is_found_by_its_id(shown: Jaeger, orders: dict[str, str]):
    """The attribute ``saga.id`` finds the order's trace, and no other."""
    for id, trace_id in orders.items():
        assert set(shown.search("shop", tags={"saga.id": id})) == {trace_id}
