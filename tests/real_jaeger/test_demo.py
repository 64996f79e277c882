"""The demo's scenes in Jaeger: one whole trace for each order, of all the processes that took part."""

import json
import os
import subprocess
import sys

import pytest

from examples.orders.launcher import ROOT
from tests.real_jaeger.relay import relay
from tests.real_jaeger.server import Jaeger, Span
from tests.real_jaeger.told import in_lines, warned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
KILLED = {"order-4", "order-5", "order-9"}
"""Scenes whose worker is killed: it takes the call that was under way with it (docs/how-to/traces.md)."""


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


def lost(id: str, spans: list[Span]) -> set[str]:
    """The spans below a call that its process had not sent when it was killed."""
    known = {span.id for span in spans}
    return {
        span.id
        for span in spans
        if id in KILLED and span.scope == "examples.orders.participants" and span.parent_id not in known
    }


def test_every_order_is_one_whole_trace(shown: Jaeger, orders: dict[str, str]):
    """No span of any order has a warning or lacks its parent, but the answer to a call that died with its worker."""
    assert len(orders) == 10
    for id, trace_id in orders.items():
        spans = shown.trace(trace_id)
        orphans = lost(id, spans)
        assert len(orphans) <= 1
        rest = [span for span in spans if span.id not in orphans]
        assert not warned(id, rest), in_lines(warned(id, rest))
        known = {span.id for span in spans}
        assert [span.name for span in rest if span.parent_id not in known] == ["saga place-order"], id
        assert {"shop", "inventory"} <= {span.service for span in spans}, id


def test_an_order_is_found_by_its_id(shown: Jaeger, orders: dict[str, str]):
    """The attribute ``saga.id`` finds the order's trace, and no other."""
    for id, trace_id in orders.items():
        assert set(shown.search("shop", tags={"saga.id": id})) == {trace_id}
