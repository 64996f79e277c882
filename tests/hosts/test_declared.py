"""What hosts declare that they cannot do, against what their clients do."""

import asyncio
from typing import Any

import pytest

from sagas.errors import Unsupported
from sagas.hosts.calls import HostClient
from sagas.hosts.declared import HOSTS, Host
from tools.hosts_page import CALLS, PAGE, render

each_host = pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)


def client_of(host: Host) -> Any:
    """A client of the host without the host: a call that reaches it fails."""
    return type("Client", (HostClient,), {"host": host})(None)


@each_host
def test_a_call_is_there_or_refused(host: Host):
    """Each call of an orchestrator is either the client's own or declared as unsupported, never both."""
    own = {call for call in CALLS if hasattr(HostClient, call)}
    assert own | host.unsupported.keys() >= set(CALLS)
    assert not own & host.unsupported.keys()


@each_host
def test_an_unsupported_call_names_the_means(host: Host):
    """It raises ``Unsupported`` with the declared words, before anything else is looked at."""
    for call, means in host.unsupported.items():
        with pytest.raises(Unsupported, match=f"{host.name} has no `{call}`") as refused:
            asyncio.run(getattr(client_of(host), call)("one"))
        assert refused.value.advice == means


@each_host
def test_a_name_that_no_orchestrator_has(host: Host):
    """It is no attribute, as of any object."""
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = client_of(host).nothing_of_that_name


def test_the_table_is_current():
    """docs/reference/hosts.md holds what ``python -m tools.hosts_page`` writes."""
    assert render() in PAGE.read_text(encoding="utf-8")
