"""Where a saga needs a person: it parks, says what happened and which verbs mend it, and takes the verb that comes."""

import msgspec

from durable_core.layer import HostContext, JournalEntry, check_text


class OperatorAction(msgspec.Struct):
    """An operator's verb, as it is journalled."""

    step: str | None = None
    happened: bool | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    verb: str = ""
    reason: str = ""
    actor: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("actor", "note", "reason"):
            check_text(getattr(self, name), f"{name}=")


def verdict_of(entry: JournalEntry) -> OperatorAction:
    """The verb that a ``signalled`` entry holds."""
    return verdict_named(entry.key, entry.payload or b"{}")


def verdict_named(verb: str, payload: bytes) -> OperatorAction:
    """The verb of this name, with what was said about it."""
    verdict = msgspec.json.decode(payload, type=OperatorAction)
    verdict.verb = verb
    return verdict


async def ask(ctx: HostContext, key: str, reason: str, steps: tuple[str, ...]) -> OperatorAction:
    """Park until an operator's verb is about one of ``steps``, or about all that is stuck; it may have come already."""
    for early in ctx.unheard:
        if early.step in steps:
            ctx.unheard.remove(early)
            return early  # type: ignore[no-any-return]  # only verdicts are kept there
    verdict: OperatorAction = await ctx.park(key, f"saga {ctx.id}: {reason}", steps)
    return verdict


def hand_out(ctx: HostContext, verdict: OperatorAction) -> None:
    """Give the verb to whoever is parked on its step; without a step, to all.

    Of two verbs that are taken up together the first may be what the second one's step is parked after.
    """
    found = [key for key, steps in ctx.parked().items() if verdict.step is None or verdict.step in steps]
    for key in found:
        ctx.unpark(key, verdict)
    if not found and ctx.catching_up and verdict.step is not None:
        ctx.unheard.append(verdict)


def told(error: BaseException | None) -> str:
    """An exception for a message."""
    return "no error recorded" if error is None else f"{type(error).__name__}: {error}"
