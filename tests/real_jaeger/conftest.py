"""Two real Jaegers, one with each setting of its clocks, and what they have been sent.

Nothing of it runs in `make test`: `make test-jaeger` builds Jaeger and says here where it is.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from durable_core.tracing.collector import Collector
from durable_core.tracing.otel import export_directly
from tests.real_jaeger import kinds
from tests.real_jaeger.build import NOT_TRIED
from tests.real_jaeger.relay import Relay, relay
from tests.real_jaeger.server import Jaeger, jaeger
from tests.real_jaeger.verbs import SKEWS_S, Told, told_of

GIVEN = "SAGAS_JAEGER"
"""The variable with the path of the program; empty where it could not be built."""
SERVICE = "kinds"


@pytest.fixture(scope="session")
def program() -> Path:
    """Jaeger's program."""
    given = os.environ.get(GIVEN)
    if given is None:
        pytest.skip("it needs a real Jaeger: `make test-jaeger` builds and tries it")
    if not given:
        pytest.skip(NOT_TRIED)
    return Path(given)


@pytest.fixture(scope="session")
def both(program: Path) -> Iterator[dict[int, Jaeger]]:
    """A Jaeger for each of ``SKEWS_S``; they are sent the same."""
    with jaeger(program, skew_s=SKEWS_S[0]) as first, jaeger(program, skew_s=SKEWS_S[1]) as second:
        yield dict(zip(SKEWS_S, (first, second), strict=True))


@pytest.fixture(scope="session")
def exporting(both: dict[int, Jaeger]) -> Iterator[Relay]:
    """Where exporters send to: both Jaegers get it."""
    with relay(*both.values()) as running:
        yield running


@pytest.fixture(params=SKEWS_S, ids=lambda skew_s: f"skew-{skew_s}s")
def shown(request: pytest.FixtureRequest, both: dict[int, Jaeger]) -> Jaeger:
    """Each Jaeger in turn."""
    return both[request.param]


@pytest.fixture(scope="session")
def sent(exporting: Relay, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """One saga of every kind, by id: played, and sent as it ran."""
    provider = TracerProvider(resource=Resource({"service.name": SERVICE}), shutdown_on_exit=False)
    export_directly(provider, Collector(f"{exporting.url}/v1/traces"))

    async def played() -> dict[str, Told]:
        return await told_of(await kinds.play_all(tmp_path_factory.mktemp("kinds"), provider))

    return asyncio.run(played())
