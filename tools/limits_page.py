"""Writes docs/reference/limits.md: `python -m tools.limits_page`.

Invariant: each figure is a constant of the code, so the page cannot fall behind it.
"""

from pathlib import Path

import attrs

from durable_core.engine import slots, watch, writer
from durable_core.engine.settings import SHORTEST
from durable_core.model import codec, duration, keys, said
from durable_core.model import tags as tagged
from durable_core.replay.run import MANY_FAILURES
from durable_core.stores.postgres.schema import OLDEST_SERVER
from durable_core.stores.sqlite.schema import OLDEST_SQLITE
from sagas import asgi
from sagas.asl import limits as asl
from sagas.cli import health
from sagas.runtime import driver

PAGE = Path(__file__).parents[1] / "docs/reference/limits.md"
MIB = 1 << 20
SEPARATORS = " ".join(f"`{sign}`" for sign in sorted(keys.RESERVED))


@attrs.frozen
class Limit:
    """One figure."""

    of: str
    figure: str
    beyond: str
    """What happens there."""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for title, limits in LIMITS.items():
        parts += [f"## {title}\n", "| | At most | Beyond that |\n|---|---|---|"]
        parts += [f"| {each.of} | {each.figure} | {each.beyond} |" for each in limits]
        parts.append("")
    return "\n".join([*parts, UNLIMITED])


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _mib(size: int) -> str:
    return f"{size / MIB:g} MiB"


INTRODUCTION = """# Limits

Sizes and counts that the code enforces. `python -m tools.limits_page` writes this page from the code's constants.
Options such as `concurrency` and `threads` are [settings](settings.md).
"""

LIMITS = {
    "Values": [
        Limit(
            "One argument list, result, answer or status, as JSON",
            _mib(codec.DEFAULT_LIMIT),
            "[`PayloadError`](../errors/DC002.md). For an argument nothing was called; a result counts as unknown. "
            "Store large data elsewhere, and pass its address",
        ),
        Limit(
            "A duration, and a delay between attempts",
            f"{_count(duration.LONGEST_S / 86_400 / 366)} years",
            "[`DefinitionError`](../errors/DC001.md)",
        ),
    ],
    "Names": [
        Limit(
            "Characters of a saga's id",
            f"{_count(keys.LONGEST_ID)}, printable, without `/`",
            "`DefinitionError`; nothing was started",
        ),
        Limit(
            "Characters of the name of a saga, step, savepoint or callback",
            f"{_count(keys.LONGEST_NAME)}, printable, without {SEPARATORS}",
            "`DefinitionError`",
        ),
        Limit("A secret for callback tokens", f"at least {SHORTEST} bytes", "`DefinitionError`"),
    ],
    "Tags": [
        Limit("Tags of a saga", f"{tagged.MOST_TAGS}", "`PayloadError`; nothing was started or changed"),
        Limit("Characters of a tag's key", f"{tagged.LONGEST_KEY}", "As above"),
        Limit("Characters of its value", f"{tagged.LONGEST_VALUE}", "As above"),
    ],
    "Sagas": [
        Limit(
            "Levels of children in children",
            _count(driver.DEEPEST),
            "The saga is stuck: it seems to run itself forever",
        ),
        Limit(
            "Failed attempts of a step that is still retried",
            f"{MANY_FAILURES} in silence",
            "It needs attention: it is logged, listed, and passed to `on_attention`. The retries continue",
        ),
        Limit(
            "Waiting for a version that no worker serves",
            f"{_count(watch.GRACE_NS / 1e9)} s in silence",
            "As above",
        ),
    ],
    "Workers": [
        Limit(
            "A wait during which a saga stays in memory",
            f"{_count(slots.LINGER_NS / 1e9)} s",
            "It leaves memory, and costs a row",
        ),
        Limit(
            "Sagas that stay in memory while they wait",
            _count(slots.MOST_LINGERING),
            "A short wait costs a row too",
        ),
        Limit("Rows that wait to be written", _count(writer.BOUND), "New starts wait until there is room"),
        Limit(
            "Silence of the store before `--health` answers 503",
            f"{health.WELL_S:g} s",
            "The worker keeps trying, up to `--store-limit`",
        ),
    ],
    "Spans": [
        Limit("Attributes that a step's own code adds", _count(said.MOST_ATTRIBUTES), "Left out and counted"),
        Limit("Events of a step's own code", _count(said.MOST_EVENTS), "Left out and counted"),
        Limit("Attributes of an event", _count(said.MOST_OF_AN_EVENT), "Left out and counted"),
        Limit("Characters of an attribute's name", _count(said.LONGEST_NAME), "Cut"),
        Limit("Characters of a value", _count(said.LONGEST_TEXT), "Cut"),
        Limit("Items of a list", _count(said.MOST_ITEMS), "Cut"),
        Limit("Characters of a stack trace", _count(said.LONGEST_STACK), "Cut; its end is kept"),
    ],
    "HTTP": [
        Limit("A body at `sagas.asgi.callbacks`", f"{_mib(asgi.LIMIT)}, or `limit=`", "413"),
        Limit("Waiting for the store", f"{asgi.PATIENCE_S:g} s", "503 with `Retry-After`"),
    ],
    "AWS Step Functions": [
        Limit("A task's result", f"{asl.LARGEST_PAYLOAD >> 10} KiB", "Its outcome is unknown, and is settled as such"),
        Limit("A state machine's definition", _mib(asl.LARGEST_DEFINITION), "`sagas export asl` refuses it"),
        Limit(
            "Events of an execution", _count(asl.MOST_EVENTS), "`sagas export asl` refuses graphs that may get there"
        ),
    ],
}

UNLIMITED = f"""## Required versions

- Python 3.11 or newer, on Linux or another POSIX system.
- SQLite {".".join(map(str, OLDEST_SQLITE[:2]))} or newer, the one that Python was built with.
- PostgreSQL {OLDEST_SERVER} or newer.

## What has no limit of its own

The number of sagas in a store, of steps in a saga, of branches in a parallel block, of items in a `map`, and of workers
on a PostgreSQL store. [Speed](../explanation/speed.md) and [Scaling](../explanation/scaling.md) say how far we have
measured. A replay reads the whole journal of a saga, so split a loop of more than some ten thousand steps.
"""

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
