"""What clients of hosts can do, as data: the words of ``Unsupported`` and the table of docs/reference/hosts.md.

Invariant: needs no host's library.
"""

from collections.abc import Mapping

import attrs


@attrs.frozen
class Host:
    """A host by what it cannot do."""

    name: str
    unsupported: Mapping[str, str]
    """Calls of ``Orchestrator`` that its client has not, each with the host's own means."""
    not_killed: str
    """Its means instead of a rollback of a killed saga; empty where the client has that."""


TEMPORAL = Host(
    "Temporal",
    unsupported={
        "list": "Use `temporal workflow list --query \"WorkflowType = '<saga>'\"`; `info` shows one saga",
        "count": "Use `temporal workflow count --query \"WorkflowType = '<saga>'\"`",
        "scan": "Use `temporal workflow list`, and `info` for each saga",
        "apply": 'Use `temporal workflow signal --query ... --name operator --input \'{"verb": "retry"}\'`',
        "versions": "Use `temporal worker deployment list`, and `temporal task-queue describe`",
        "purge": "The retention period of the namespace removes closed executions",
        "restart": "Start the saga again under a new id",
        "send_event": "Use a callback",
    },
    not_killed="The execution of a killed saga is closed: `temporal workflow reset` begins anew from before the kill",
)
HOSTS = (TEMPORAL,)
"""In the order of the table."""
