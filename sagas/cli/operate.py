"""Commands that tell a saga something: the operators' verbs, and answers to callbacks. Each is durable on exit.

Invariant: a callback's token is never printed, and need not be on the command line, where shells keep it and ``ps``
shows it.
"""

import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import msgspec
import typer

from durable_core.layer import AnswerReceipt, CallbackAddress, Client, Codec, Taken
from sagas.cli import output, snapshot
from sagas.cli.arguments import OneStep
from sagas.cli.many import UNCHANGED, Which, give, step_command, verb_command
from sagas.cli.options import Options, ask, command, json_of, signed_command
from sagas.cli.output import CommandError
from sagas.cli.snapshot import Snapshot
from sagas.model.verbs import OperatorAction

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

TOKEN = "SAGAS_TOKEN"  # noqa: S105 - the name of a variable

ALREADY = {
    "cancel": "is already rolled back, or being rolled back",
    "rollback": "is already rolled back, or being rolled back",
    "kill": "is already killed",
    "pause": "is already paused",
    "resume": "is not paused",
    "retry": "was already retried so",
    "skip": "has already skipped this step",
    "resolve": "was already given this outcome",
}
"""Why a verb has nothing to change."""

LATER: Mapping[tuple[str, bool | None], str] = {
    ("resolve", True): "apply it, if the result is one of the step's type; else the saga stays stuck, and its reason "
    "says why. To follow:"
}
"""What a worker does with a verb that this program, which knows no code of sagas, cannot judge to its end."""

Token = Annotated[
    str | None,
    typer.Option("--token", metavar="TOKEN", help=f"The callback's token; - reads it from stdin. [default: ${TOKEN}]"),
]
Saga = Annotated[
    str | None, typer.Option("--saga", metavar="ID", help="Instead of the token: the saga's id, with --name.")
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The callback's name; its second use in a saga is NAME#2.")
]


@attrs.frozen(kw_only=True)
class Action:
    """A verb about a saga, or about one of its steps."""

    verb: str
    saga_id: str
    step: str | None = None
    happened: bool | None = None
    """The outcome that ``resolve`` gives the step, with its ``result``."""
    result: Any = None

    async def send(self, orchestrator: "Orchestrator", signed: dict[str, str]) -> bool:
        """Write it to the store; False if it had been done already. No class of the user's is known here."""
        stored = Codec().encode(self.result, what=f"saga {self.saga_id}, step {self.step!r}: the result")
        action = OperatorAction(step=self.step, happened=self.happened, result=msgspec.Raw(stored), **signed)
        return await orchestrator.client.act(self.saga_id, self.verb, action)


@verb_command
def retry(options: Options, which: Which, *, step: OneStep = None) -> None:
    """Retry what a stuck saga failed on, after you fixed the cause."""
    act(options, which, "retry", step=step)


@step_command
def skip(options: Options, which: Which) -> None:
    """Count the compensation of a step as done: you undid it by hand.

    The step is the last word: `sagas skip ID STEP`; with filters the only one.
    """
    sagas, step = which.with_step("skip")
    act(options, sagas, "skip", step=step)


@step_command
def resolve(
    options: Options,
    which: Which,
    *,
    happened: Annotated[
        bool, typer.Option("--happened/--did-not-happen", help="What you found out.", show_default=False)
    ],
    result: Annotated[str | None, typer.Option(metavar="JSON", help="With --happened: the result of the step.")] = None,
) -> None:
    """Settle an unknown outcome of a step: whether it happened.

    The step is the last word: `sagas resolve ID STEP --happened`; with filters the only one.
    """
    sagas, step = which.with_step("resolve")
    if result is not None and not happened:
        raise CommandError(f"--result needs --happened: a step that did not happen has no result; {UNCHANGED}")
    value = None if result is None else json_of(result, what="--result", unchanged=UNCHANGED)
    act(options, sagas, "resolve", step=step, happened=happened, result=value)


@verb_command
def cancel(options: Options, which: Which) -> None:
    """Cancel a saga: roll back what it has done.

    Attempts under way end first. Refused after the pivot.
    """
    act(options, which, "cancel")


@verb_command
def rollback(options: Options, which: Which) -> None:
    """Undo what a stuck or killed saga has done.

    Refused after the pivot.
    """
    act(options, which, "rollback")


@verb_command
def kill(options: Options, which: Which) -> None:
    """End a saga at once, without undoing anything.

    `rollback` can undo it later.
    """
    act(options, which, "kill")


@verb_command
def pause(options: Options, which: Which) -> None:
    """Pause a saga: no new step starts until `resume`.

    Its deadline keeps running.
    """
    act(options, which, "pause")


@verb_command
def resume(options: Options, which: Which) -> None:
    """Continue a paused saga."""
    act(options, which, "resume")


@verb_command
def restart(
    options: Options,
    which: Which,
    *,
    new_id: Annotated[
        str | None, typer.Option("--new-id", metavar="ID", help="The id of the new saga. [default: random]")
    ] = None,
    corrected: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Arguments to replace: an object by parameter name.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(metavar="N", help="The version to start. [default: the ended saga's] With filters, a filter."),
    ] = None,
) -> None:
    """Begin ended sagas again, from their first step, under new ids.

    The ended saga stays, and `show` names each in the other. With filters, the new id is the old one and ~restarted.
    """
    given: Any = None if corrected is None else json_of(corrected, what="--input", unchanged=UNCHANGED)
    named = which
    if which.ids:  # of those that are named, --version says what to start
        named = attrs.evolve(which, filters=attrs.evolve(which.filters, version=None))
    saga_id = named.one("restart")
    if saga_id is None:
        if new_id is not None or given is not None:
            raise CommandError(f"--new-id and --input are for one saga; {UNCHANGED}")
        how: dict[str, Any] = {"version": version, **options.signed}
        give(options, named, "restart", lambda orchestrator, id: orchestrator.client.restart(id, **how))
        return
    _restart(options, saga_id, {"new_id": new_id, "input": given, "version": version, **options.signed})


def _restart(options: Options, saga_id: str, asked: dict[str, Any]) -> None:
    """Restart one saga, and say what happens next."""
    ref = ask(options.address, lambda orchestrator: orchestrator.client.restart(saga_id, **asked))
    if options.json:
        about = {"id": ref.id, "saga": ref.name, "version": ref.version, "restarted_from": saga_id}
        output.document(about | options.signed)
        return
    output.say(
        f"{ref.id} ({ref.name} v{ref.version}) begins {saga_id} again, and a worker that serves it will run it. "
        "To follow:",
        command=f"sagas show {quote(ref.id)}{options.address.option}",
    )


def act(
    options: Options,
    which: Which,
    verb: str,
    *,
    step: str | None = None,
    happened: bool | None = None,
    result: Any = None,
) -> None:
    """Give a verb to the sagas that are meant, and say what happens next.

    Raises:
        CommandError: no saga is meant; or the verb is about a whole saga, and a child was named.
        SagaNotFound: the only saga named is not there.
        WrongState: the only saga named refuses it.
    """
    about: dict[str, Any] = {"verb": verb, "step": step, "happened": happened, "result": result}
    saga_id = which.one(verb)
    if saga_id is not None:
        _act(options, Action(saga_id=saga_id, **about))
        return
    if result is not None and not which.ids:
        raise CommandError(f"--result is for sagas that are named by their ids; {UNCHANGED}")

    async def send(orchestrator: "Orchestrator", id: str) -> None:
        action = Action(saga_id=id, **about)
        _check_whole(action, await snapshot.take(orchestrator, id))
        await action.send(orchestrator, options.signed)

    give(options, which, verb, send, step=step, happened=happened)


def _act(options: Options, action: Action) -> None:
    """Send an action to one saga, and say what happens next."""

    async def send(orchestrator: "Orchestrator") -> tuple[Snapshot, bool]:
        before = await snapshot.take(orchestrator, action.saga_id)
        _check_whole(action, before)
        return before, not await action.send(orchestrator, options.signed)

    before, repeated = ask(options.address, send)
    info, root = before.info, before.root
    if options.json:
        about = {"id": info.id, "saga": info.saga, "version": info.version, "status_before": info.status}
        what = {"verb": action.verb, "step": action.step, "happened": action.happened, "repeated": repeated}
        output.document(about | what | options.signed)
        return
    if repeated:
        text = f"Nothing was changed: {action.saga_id} {ALREADY[action.verb]}. To see it:"
    else:
        text = (
            f"{action.verb} of {action.saga_id} is recorded. A worker that serves {root.saga} v{root.version} will "
            f"{LATER.get((action.verb, action.happened), 'apply it. To follow:')}"
        )
    output.say(text, command=f"sagas show {quote(action.saga_id)}{options.address.option}")


def _check_whole(action: Action, before: Snapshot) -> None:
    """Refuse a verb about a child as a whole."""
    root = before.root
    if before.is_child and action.step is None:
        raise CommandError(
            f"{action.saga_id} is part of the saga {root.id}, and `{action.verb}` applies to a whole saga, so "
            f"{UNCHANGED}; use `sagas {action.verb} {quote(root.id)}`"
        )


@signed_command
def complete_callback(
    options: Options,
    value: Annotated[str, typer.Argument(metavar="JSON", help="The answer, of the type that the saga declares.")],
    *,
    token: Token = None,
    saga: Saga = None,
    name: Name = None,
) -> None:
    """Answer a callback with a value."""
    answer = json_of(value, what="the answer", unchanged=UNCHANGED, example="yes")
    taken = _answer(
        options, (token, saga, name), lambda client, which: client.complete(which, answer, **options.signed)
    )
    _say_taken(options, taken, "completed", "is answered")


@signed_command
def fail_callback(
    options: Options,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="The reason; the saga sees it.")] = "",
    *,
    token: Token = None,
    saga: Saga = None,
    name: Name = None,
) -> None:
    """Answer a callback with a failure.

    The saga's body sees CallbackFailed, and the saga is rolled back unless the body catches it.
    """
    taken = _answer(options, (token, saga, name), lambda client, which: client.fail(which, message, **options.signed))
    _say_taken(options, taken, "failed", "is answered with a failure")


@command
def heartbeat(options: Options, *, token: Token = None, saga: Saga = None, name: Name = None) -> None:
    """Report that somebody still works on the answer.

    For a callback that is declared with heartbeat=.
    """
    taken = _answer(options, (token, saga, name), lambda client, which: client.beat(which))
    _say_taken(options, taken, "heartbeat", "has your heartbeat")


def _answer(
    options: Options,
    which: tuple[str | None, str | None, str | None],
    send: Callable[[Client[Any, Any], CallbackAddress], Awaitable[AnswerReceipt]],
) -> AnswerReceipt:
    """Answer the callback of this token, or of this saga and name.

    Raises:
        CallbackError: there is no such callback, it has another answer, or the saga no longer waits for it.
        PayloadError: the value is not of the declared type.
    """
    asked = _callback(*which)
    return ask(options.address, lambda orchestrator: send(orchestrator.client, asked))


def _callback(token: str | None, saga: str | None, name: str | None) -> CallbackAddress:
    """The callback that is named by the options or by the environment."""
    if saga is not None or name is not None:
        if token is not None or saga is None or name is None:
            raise CommandError(f"name the callback with --token, or with both --saga and --name; {UNCHANGED}")
        return CallbackAddress(run_id=saga, name=name)
    if token == "-":  # noqa: S105 - stands for stdin
        token = (getpass.getpass("token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    found = token or os.environ.get(TOKEN)
    if not found:
        raise CommandError(
            f"no callback given: set {TOKEN} to its token, pipe the token to --token -, or use --saga and --name"
        )
    return CallbackAddress(token=found)


def _say_taken(options: Options, answer: AnswerReceipt, kind: str, done: str) -> None:
    if options.json:
        output.document({"id": answer.run_id, "callback": answer.key, "kind": kind, "taken": answer.taken})
    elif answer.taken is Taken.KEPT:
        output.say(
            f"Kept for callback {answer.key} of {answer.run_id}, because no worker has accepted it yet. The next "
            "worker that serves the saga will check that it has the declared type, and accept it."
        )
    else:
        output.say(f"Callback {answer.key} of {answer.run_id} {done}.")
