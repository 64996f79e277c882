"""How an attempt ended: what its exception says about its effect outside.

Invariant: only a participant's own answer, or proof that nothing was sent, counts as "nothing happened". Whatever may
have happened is *unknown*, and stays so until somebody who knows says otherwise.
"""

from collections.abc import Mapping
from enum import StrEnum

DEFAULT_UNKNOWN: tuple[type[Exception], ...] = (TimeoutError, ConnectionError)


class Outcome(StrEnum):
    """How an attempt ended. Stored by value, as the label of its entry."""

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    """The participant said no: nothing happened, and asking again is useless."""
    FAILED = "failed"
    """Nothing happened."""
    UNKNOWN = "unknown"
    """The effect may have happened."""


NOTHING_SENT, MAYBE_SENT = False, True

# What the usual clients' transport errors say. By name, so that no client need be installed or imported; the first
# class of the exception's own method resolution order that is listed decides.
# Sources: httpx "Exceptions", requests.exceptions, urllib3.exceptions, aiohttp "Client exceptions",
# botocore.exceptions.
TRANSPORT: Mapping[str, bool] = {
    "httpx.ConnectError": NOTHING_SENT,
    "httpx.ConnectTimeout": NOTHING_SENT,
    "httpx.PoolTimeout": NOTHING_SENT,
    "httpx.UnsupportedProtocol": NOTHING_SENT,
    "httpx.LocalProtocolError": NOTHING_SENT,
    "httpx.TransportError": MAYBE_SENT,
    "httpx.DecodingError": MAYBE_SENT,
    "requests.exceptions.ConnectTimeout": NOTHING_SENT,
    "requests.exceptions.ProxyError": NOTHING_SENT,
    "requests.exceptions.ConnectionError": MAYBE_SENT,
    "requests.exceptions.Timeout": MAYBE_SENT,
    "requests.exceptions.ChunkedEncodingError": MAYBE_SENT,
    "requests.exceptions.ContentDecodingError": MAYBE_SENT,
    "urllib3.exceptions.NewConnectionError": NOTHING_SENT,
    "urllib3.exceptions.ConnectTimeoutError": NOTHING_SENT,
    "urllib3.exceptions.NameResolutionError": NOTHING_SENT,
    "urllib3.exceptions.ProtocolError": MAYBE_SENT,
    "urllib3.exceptions.TimeoutError": MAYBE_SENT,
    "urllib3.exceptions.MaxRetryError": MAYBE_SENT,
    "urllib3.exceptions.SSLError": MAYBE_SENT,
    "urllib3.exceptions.DecodeError": MAYBE_SENT,
    "aiohttp.client_exceptions.ClientConnectorError": NOTHING_SENT,
    "aiohttp.client_exceptions.ConnectionTimeoutError": NOTHING_SENT,
    "aiohttp.client_exceptions.ClientConnectionError": MAYBE_SENT,
    "aiohttp.client_exceptions.ClientPayloadError": MAYBE_SENT,
    "botocore.exceptions.EndpointConnectionError": NOTHING_SENT,
    "botocore.exceptions.ConnectTimeoutError": NOTHING_SENT,
    "botocore.exceptions.HTTPClientError": MAYBE_SENT,
    "botocore.exceptions.SSLError": MAYBE_SENT,
    "botocore.exceptions.IncompleteReadError": MAYBE_SENT,
    "botocore.exceptions.ResponseStreamingError": MAYBE_SENT,
}


def transport_says(error: BaseException) -> bool | None:
    """Whether the request behind a client's transport error may have been sent; None where it is no such error.

    A wrapper (requests' ConnectionError, urllib3's MaxRetryError) is judged by what it wraps where that is known to
    have sent nothing.
    """
    for inner in (error, getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            said = _listed(inner)
            if said is NOTHING_SENT:
                return NOTHING_SENT
            if inner is not error:
                reason = getattr(inner, "reason", None)
                if isinstance(reason, BaseException) and _listed(reason) is NOTHING_SENT:
                    return NOTHING_SENT
    return _listed(error)


def _listed(error: BaseException) -> bool | None:
    for cls in type(error).__mro__:
        root = cls.__module__.partition(".")[0]
        name = f"httpx.{cls.__qualname__}" if root == "httpx" else f"{cls.__module__}.{cls.__qualname__}"
        if name in TRANSPORT:
            return TRANSPORT[name]
    return None


def classify(
    error: BaseException,
    *,
    rejects: tuple[type[Exception], ...],
    unknown: tuple[type[Exception], ...],
    effect: bool,
    settles: bool,
) -> Outcome:
    """What ``error`` says about the effect of the attempt that raised it.

    Args:
        error: what the attempt raised.
        rejects: the participant's own answers.
        unknown: exceptions that leave it open.
        effect: False for a step that changes nothing outside, or whose effect nobody will undo: it has no unknown.
        settles: whether the step can settle an unknown outcome, so that doubt costs little.
    """
    if isinstance(error, rejects):
        return Outcome.REJECTED
    if not effect:
        return Outcome.FAILED
    if isinstance(error, ConnectionRefusedError):  # nobody listened, so nothing was sent
        return Outcome.FAILED
    said = transport_says(error)
    if said is NOTHING_SENT:
        return Outcome.FAILED
    if said is MAYBE_SENT or isinstance(error, unknown) or settles:
        return Outcome.UNKNOWN
    return Outcome.FAILED
