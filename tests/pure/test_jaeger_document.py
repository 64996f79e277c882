"""A trace in Jaeger's own form."""

import pytest

from durable_core.layer import SpanRecord, jaeger_document
from durable_core.tracing.span import Value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (("trip/hotel", "Zürich"), '["trip/hotel","Zürich"]'),
        ((2, 3), "[2,3]"),
        ((True, 0.5), "[true,0.5]"),
        ((), "[]"),
    ],
)
def test_a_list_is_told_as_jaeger_tells_it(value: Value, told: str):
    """A list is the text of its JSON, which Jaeger's page shows as a list, and a search of it has to name."""
    span = SpanRecord("stuck", 1, 2, None, 1_000, 3_000, {"saga.stuck_on": value}, (), (), failed=True)
    (trace,) = jaeger_document([span], service="shop", scope="sagas")["data"]
    assert {"key": "saga.stuck_on", "type": "string", "value": told} in trace["spans"][0]["tags"]
