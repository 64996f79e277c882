"""Does items in the order in which they wait for each other, side by side where they do not."""

from collections.abc import Callable, Collection, Coroutine, Hashable, Mapping
from typing import Any, TypeVar

from durable_core.layer import HostContext

N = TypeVar("N", bound=Hashable)
Release = Callable[[Hashable], None]


async def flow(
    ctx: HostContext,
    waits: Mapping[N, Collection[Hashable]],
    do: Callable[[N, Release], Coroutine[Any, Any, None]],
) -> None:
    """Do each item once all that it waits for was released; items that wait for nothing begin at once, in order.

    Args:
        ctx: the run.
        waits: what each item waits for.
        do: does one item, and releases what others wait for.
    """
    missing = {item: len(events) for item, events in waits.items()}
    waiting: dict[Hashable, list[N]] = {}
    for item, events in waits.items():
        for event in events:
            waiting.setdefault(event, []).append(item)

    def release(event: Hashable) -> None:
        for item in waiting.pop(event, ()):
            missing[item] -= 1
            if not missing[item]:
                group.spawn(do(item, release))

    async with ctx.group() as group:
        for item, count in missing.items():
            if not count:
                group.spawn(do(item, release))
    if any(missing.values()):
        raise RuntimeError("items wait for each other, or for what nobody releases")
