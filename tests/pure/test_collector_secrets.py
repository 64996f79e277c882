"""What is said of a collector holds no password."""

import pytest

from durable_core.tracing.answers import Later
from durable_core.tracing.collector import Collector
from tests.otlp import collector


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
