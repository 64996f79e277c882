"""Jaeger minds nothing about any saga of the acceptance tests, also where all its steps last no time at all."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.real_jaeger.server import jaeger
from tests.real_jaeger.verbs import SKEWS_S, in_lines, roots, warned
from tests.traces import KEPT_IN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]
FEW = 500
"""There are more than a thousand; fewer than this, and they have not been kept."""
LONGEST_S = 1800
"""They take two minutes; longer than this, and some of them hang."""
SHOWN = 30


@pytest.fixture(scope="session")
def kept(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spans of every saga of the acceptance tests, which have been run for it. Whether they pass, others say."""
    assert program
    folder = tmp_path_factory.mktemp("traces")
    environment = {name: value for name, value in os.environ.items() if name != "SAGAS_SOAK"}
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "auto", "-m", "not slow", "tests/behaviour"],
        cwd=ROOT,
        env={**environment, KEPT_IN: str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert len(list(folder.glob("sent/*"))) >= FEW, tests.stdout[-5000:]
    return folder


@pytest.mark.parametrize("skew_s", SKEWS_S)
@pytest.mark.parametrize("kind", ["sent", "document"])
def test_no_span_of_theirs_has_a_warning(program: Path, kept: Path, kind: str, skew_s: int):
    """No span of any of them has a warning, and each trace has one root: as it is sent, and as a document."""
    found: Counter[str] = Counter()
    files = sorted((kept / kind).iterdir())
    assert files
    with jaeger(program, skew_s=skew_s) as fresh:
        for file in files:
            body = file.read_bytes()
            fresh.take(body, {"Content-Type": "application/json"}).raise_for_status()
            root = json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
            spans = fresh.trace(file.stem)
            assert roots(spans) == [root["name"]]
            joined = root["spanId"] if "parentSpanId" in root else ""  # to a caller's span, which is not ours to send
            found.update(warned(root["name"], [span for span in spans if span.id != joined]))
    most = [f"{times} times {warning}" for warning, times in found.most_common(SHOWN)]
    assert not found, in_lines(most)
