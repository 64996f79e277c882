"""Writes the table of docs/reference/hosts.md: `python -m tools.hosts_page`.

Invariant: each cell is what a client's own declaration says, so the page cannot fall behind it.
"""

import re
from pathlib import Path

from sagas import Orchestrator
from sagas.hosts.declared import HOSTS, Host

PAGE = Path(__file__).parents[1] / "docs/reference/hosts.md"
OURS = frozenset({"engine", "register"})
"""What is of a process that runs sagas, and of no client."""
CALLS = [name for name in vars(Orchestrator) if not name.startswith("_") and name not in OURS]


def render() -> str:
    """The table: each call of an orchestrator, and what it comes to on each host."""
    rows = [["Call", *(host.name for host in HOSTS)], ["---", *("---" for _ in HOSTS)]]
    rows += [[f"`{call}`", *(cell(host, call) for host in HOSTS)] for call in CALLS]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def cell(host: Host, call: str) -> str:
    """What a call comes to on a host."""
    if call == "rollback" and host.not_killed:
        return f"✓; of a killed saga: {host.not_killed}"
    return host.unsupported.get(call, "✓")


def rewritten(page: str) -> str:
    """The page with the current table."""
    return re.sub(r"^\| Call \|(?:[^\n]*\|\n)+", lambda _: render(), page, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
