"""What an exception says about the effect of the attempt that raised it: the contract's table, row by row."""

import importlib
import itertools
from types import new_class

import pytest

from durable_core.errors import StepTimeout
from durable_core.model.outcome import DEFAULT_UNKNOWN, Outcome, classify, transport_says


class CardDeclined(Exception): ...


class NoAnswer(Exception): ...


def outcome(
    error: BaseException,
    *,
    unknown: tuple[type[Exception], ...] = DEFAULT_UNKNOWN,
    effect: bool = True,
    settles: bool = False,
) -> Outcome:
    return classify(error, rejects=(CardDeclined,), unknown=unknown, effect=effect, settles=settles)


def fake(module: str, name: str, *bases: type[Exception]) -> type[Exception]:
    """A class that claims to be a client library's, so that no library need be installed."""
    return new_class(name, bases or (Exception,), exec_body=lambda body: body.update(__module__=module))


@pytest.mark.parametrize(("effect", "settles"), list(itertools.product([False, True], repeat=2)))
def test_a_participants_own_answer_is_a_rejection(effect: bool, settles: bool):  # noqa: FBT001
    """An exception of `rejects`, or of a subclass, is rejected in every kind of step."""
    assert outcome(CardDeclined(), effect=effect, settles=settles) is Outcome.REJECTED
    assert outcome(fake("shop", "Stolen", CardDeclined)(), effect=effect, settles=settles) is Outcome.REJECTED


def test_a_rejection_may_even_be_a_timeout():
    """`rejects` is asked first: who lists TimeoutError there knows what it means."""
    assert (
        classify(TimeoutError(), rejects=(TimeoutError,), unknown=DEFAULT_UNKNOWN, effect=True, settles=True)
        is Outcome.REJECTED
    )


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionError(), ConnectionResetError(), BrokenPipeError(), StepTimeout("x")]
)
def test_timeouts_and_lost_connections_are_unknown(error: Exception):
    """The default of `unknown`: TimeoutError and ConnectionError, with their subclasses."""
    assert outcome(error) is Outcome.UNKNOWN


@pytest.mark.parametrize("settles", [False, True])
def test_a_refused_connection_sent_nothing(settles: bool):  # noqa: FBT001
    """ConnectionRefusedError counts as failed although it is a ConnectionError."""
    assert outcome(ConnectionRefusedError(), settles=settles) is Outcome.FAILED


def test_the_users_own_doubts_replace_the_default():
    """With `unknown=` given, those classes are unknown, and a TimeoutError is not."""
    assert outcome(NoAnswer(), unknown=(NoAnswer,)) is Outcome.UNKNOWN
    assert outcome(TimeoutError(), unknown=(NoAnswer,)) is Outcome.FAILED


def test_any_other_exception_is_a_failure_unless_doubt_is_cheap():
    """Nothing happened, or, where the step can settle a doubt, nobody knows."""
    assert outcome(ValueError()) is Outcome.FAILED
    assert outcome(ValueError(), settles=True) is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "error", [TimeoutError(), ValueError(), fake("httpx", "ReadTimeout", fake("httpx", "TransportError"))()]
)
def test_a_step_with_nothing_to_undo_has_no_unknown(error: Exception):
    """A lookup, and a step with `compensation=None`, failed."""
    assert outcome(error, effect=False) is Outcome.FAILED


SENT = [
    (
        "httpx",
        ["ReadTimeout", "WriteTimeout", "ReadError", "WriteError", "CloseError", "RemoteProtocolError", "ProxyError"],
        "httpx.TransportError",
    ),
    ("requests.exceptions", ["ReadTimeout"], "requests.exceptions.Timeout"),
    ("requests.exceptions", ["SSLError"], "requests.exceptions.ConnectionError"),
    ("requests.exceptions", ["ConnectionError", "Timeout", "ChunkedEncodingError", "ContentDecodingError"], None),
    ("urllib3.exceptions", ["ProtocolError", "TimeoutError", "MaxRetryError", "SSLError", "DecodeError"], None),
    ("urllib3.exceptions", ["ReadTimeoutError"], "urllib3.exceptions.TimeoutError"),
    ("urllib3.exceptions", ["IncompleteRead"], "urllib3.exceptions.ProtocolError"),
    (
        "aiohttp.client_exceptions",
        ["ServerDisconnectedError", "ClientOSError"],
        "aiohttp.client_exceptions.ClientConnectionError",
    ),
    ("aiohttp.client_exceptions", ["ClientPayloadError"], None),
    ("botocore.exceptions", ["HTTPClientError"], None),
    ("botocore.exceptions", ["ReadTimeoutError", "ConnectionClosedError"], "botocore.exceptions.HTTPClientError"),
]
NOT_SENT = [
    (
        "httpx",
        ["ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "LocalProtocolError"],
        "httpx.TransportError",
    ),
    ("requests.exceptions", ["ConnectTimeout", "ProxyError"], "requests.exceptions.ConnectionError"),
    (
        "urllib3.exceptions",
        ["NewConnectionError", "ConnectTimeoutError", "NameResolutionError"],
        "urllib3.exceptions.TimeoutError",
    ),
    (
        "aiohttp.client_exceptions",
        ["ClientConnectorError", "ConnectionTimeoutError"],
        "aiohttp.client_exceptions.ClientConnectionError",
    ),
    ("aiohttp.client_exceptions", ["ClientConnectorDNSError"], "aiohttp.client_exceptions.ClientConnectorError"),
    ("botocore.exceptions", ["EndpointConnectionError", "ConnectTimeoutError"], None),
]


def cases(table: list[tuple[str, list[str], str | None]]) -> list[object]:
    return [
        pytest.param(module, name, base, id=f"{module.partition('.')[0]}.{name}")
        for module, names, base in table
        for name in names
    ]


def transport_error(module: str, name: str, base: str | None, *args: object) -> Exception:
    parents = [] if base is None else [fake(base.rpartition(".")[0], base.rpartition(".")[2])]
    return fake(module, name, *parents)(*args)


@pytest.mark.parametrize(("module", "name", "base"), cases(SENT))
def test_a_transport_error_amid_a_request_is_unknown(module: str, name: str, base: str | None):
    """The request may have arrived: unknown, whatever the step's own `unknown` lists."""
    assert outcome(transport_error(module, name, base), unknown=()) is Outcome.UNKNOWN


@pytest.mark.parametrize(("module", "name", "base"), cases(NOT_SENT))
@pytest.mark.parametrize("settles", [False, True])
def test_a_transport_error_that_says_that_nothing_was_sent_is_a_failure(
    module: str,
    name: str,
    base: str | None,
    settles: bool,  # noqa: FBT001
):
    """No connection, no effect: failed, also where the step could settle a doubt."""
    assert outcome(transport_error(module, name, base), settles=settles) is Outcome.FAILED


def test_a_private_module_of_httpx_is_httpx():
    """The library defines its classes in a private module; both names are known."""
    assert transport_says(fake("httpx._exceptions", "ConnectError")()) is False
    assert transport_says(fake("httpx._exceptions", "TransportError")()) is True


def test_a_wrapper_is_judged_by_what_it_wraps():
    """A ConnectionError of requests around a MaxRetryError around a NewConnectionError: nothing was sent."""
    refused = transport_error("urllib3.exceptions", "NewConnectionError", None)
    reset = transport_error("urllib3.exceptions", "ProtocolError", None)
    for reason, says in ((refused, Outcome.FAILED), (reset, Outcome.UNKNOWN)):
        exhausted = transport_error("urllib3.exceptions", "MaxRetryError", None)
        vars(exhausted)["reason"] = reason
        assert outcome(exhausted) is says
        assert outcome(transport_error("requests.exceptions", "ConnectionError", None, exhausted)) is says


def test_an_answer_with_an_error_status_is_no_transport_error():
    """HTTP 500 is an answer: nothing is known of the effect but what the step's author says."""
    error = transport_error("httpx", "HTTPStatusError", "httpx.HTTPError")
    assert transport_says(error) is None
    assert outcome(error) is Outcome.FAILED
    assert outcome(error, unknown=(type(error),)) is Outcome.UNKNOWN


REAL = [
    ("httpx", "ReadTimeout", True),
    ("httpx", "RemoteProtocolError", True),
    ("httpx", "ConnectError", False),
    ("httpx", "ConnectTimeout", False),
    ("httpx", "PoolTimeout", False),
]


@pytest.mark.parametrize(("module", "name", "sent"), REAL)
def test_the_names_are_those_of_the_library(module: str, name: str, sent: bool):  # noqa: FBT001
    """The table speaks of the real library's classes, not of the names that this test believes it has."""
    library = pytest.importorskip(module)
    assert transport_says(getattr(library, name)("x")) is sent


@pytest.mark.parametrize(
    ("name", "sent"),
    [("ReadTimeout", True), ("ConnectionError", True), ("ConnectTimeout", False), ("ProxyError", False)],
)
def test_the_names_are_those_of_requests(name: str, sent: bool):  # noqa: FBT001
    """As above, where requests is installed."""
    pytest.importorskip("requests")
    library = importlib.import_module("requests.exceptions")
    assert transport_says(getattr(library, name)("x")) is sent
