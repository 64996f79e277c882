"""Verbs on one saga, on several by their ids, or on all that filters find."""

import functools
import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import attrs
import typer

from sagas.bulk import BulkReport, refusal
from sagas.cli import output
from sagas.cli.arguments import Status, ids_and_steps, saga_ids
from sagas.cli.filters import Filters, Since, Tags, Version
from sagas.cli.options import Options, SagaName, ask, signed_command
from sagas.cli.output import CommandError

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

P = ParamSpec("P")
UNCHANGED = "nothing was changed"
SHOWN = 20
"""So many refusals are printed; ``--json`` has all."""

SagaIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...",
        help="The ids of sagas, as listed by `sagas list`; or use filters.",
        show_default=False,
        autocompletion=saga_ids,
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]... STEP",
        help="The ids of sagas, and the step as named by `sagas show`; with filters only the step.",
        show_default=False,
        autocompletion=ids_and_steps,
    ),
]
Attention = Annotated[bool, typer.Option("--attention", help="Only sagas that need attention.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With filters: only count.")]
FILTERS: Mapping[str, tuple[Any, Any]] = {
    "status": (Status, None),
    "saga": (SagaName, None),
    "version": (Version, None),
    "tag": (Tags, None),
    "since": (Since, None),
    "attention": (Attention, False),
}


@attrs.frozen(kw_only=True)
class Which:
    """The sagas that a verb is for, as they were typed."""

    ids: list[str]
    filters: Filters
    dry_run: bool

    def one(self, verb: str) -> str | None:
        """The only saga that is named; None where there are several, or filters.

        Raises:
            CommandError: no saga is named and nothing filters, or both are.
        """
        if bool(self.ids) == self.filters.given:
            how = "name sagas by their ids, or use filters" if not self.ids else "use ids or filters, not both"
            raise CommandError(f"{how}, as in `sagas {verb} --status stuck --saga NAME`; {UNCHANGED}")
        if self.ids and self.dry_run:
            raise CommandError(f"--dry-run counts what filters find, and ids were given; {UNCHANGED}")
        return self.ids[0] if len(self.ids) == 1 else None

    def with_step(self, verb: str) -> "tuple[Which, str]":
        """The same, and the step, which is the last word."""
        if len(self.ids) <= (not self.filters.given):
            raise CommandError(f"name the step too, as in `sagas {verb} ID STEP`; {UNCHANGED}")
        return attrs.evolve(self, ids=self.ids[:-1]), self.ids[-1]


def verb_command(function: Callable[Concatenate[Options, Which, P], None]) -> Callable[..., None]:
    """Make a command of ``function`` that takes ids or filters, and the options of every signed command."""
    return _verb_command(function, SagaIds)


def step_command(function: Callable[Concatenate[Options, Which, P], None]) -> Callable[..., None]:
    """The same for a verb whose last word is a step."""
    return _verb_command(function, Words)


def _verb_command(function: Callable[Concatenate[Options, Which, P], None], words: Any) -> Callable[..., None]:
    options, _, *own = inspect.signature(function, eval_str=True).parameters.values()
    named = {parameter.name for parameter in own}
    added = {name: how for name, how in FILTERS.items() if name not in named} | {"dry_run": (DryRun, False)}

    @functools.wraps(function)
    def run(given_options: Options, /, saga_ids: list[str] | None = None, **given: Any) -> None:
        filters = Filters(**{name: given[name] for name in FILTERS})
        which = Which(ids=saga_ids or [], filters=filters, dry_run=given["dry_run"])
        call: Callable[..., None] = function
        call(given_options, which, **{name: value for name, value in given.items() if name in named})

    first = Parameter("saga_ids", Parameter.POSITIONAL_OR_KEYWORD, annotation=words, default=None)
    keywords = [Parameter(name, Parameter.KEYWORD_ONLY, annotation=a, default=d) for name, (a, d) in added.items()]
    vars(run)["__signature__"] = Signature([options, first, *own, *keywords])
    return signed_command(run)


def give(
    options: Options,
    which: Which,
    verb: str,
    send: "Callable[[Orchestrator, str], Any]",
    **told: Any,
) -> None:
    """Give a verb to several sagas, and say what came of it. Exit code 1 where some refused it.

    Args:
        options: the command's.
        which: several ids, or filters.
        verb: its name.
        send: gives it to one saga.
        **told: what else ``Orchestrator.apply`` is told.
    """

    async def tell(orchestrator: "Orchestrator") -> BulkReport:
        if which.ids:
            return await _each(which.ids, lambda id: send(orchestrator, id))
        asked = which.filters.asked(orchestrator.engine.clock.now_ns())
        asked |= {**options.signed, **told}
        return await orchestrator.apply(verb, dry_run=which.dry_run, **asked)

    report = ask(options.address, tell)
    if options.json:
        about = {"verb": verb, **told, "dry_run": which.dry_run}
        output.document(about | attrs.asdict(report, recurse=False) | options.signed)
    else:
        _say(report, verb, which, options)
    raise typer.Exit(1 if report.refused else 0)


async def _each(ids: list[str], send: Callable[[str], Any]) -> BulkReport:
    refused: dict[str, str] = {}
    for id in dict.fromkeys(ids):
        if (reason := await refusal(send(id))) is not None:
            refused[id] = reason
    matched = len(set(ids))
    return BulkReport(matched=matched, done=matched - len(refused), refused=refused)


def _say(report: BulkReport, verb: str, which: Which, options: Options) -> None:
    sagas = f"{report.matched} saga{'' if report.matched == 1 else 's'}"
    if which.dry_run:
        output.say(f"{sagas} found{which.filters.words}; {UNCHANGED}, because this is a dry run.")
        return
    if not report.matched:
        output.say(f"No sagas found{which.filters.words}; {UNCHANGED}.")
        return
    output.say(f"{verb} is recorded for {report.done} of {sagas}. Their workers will apply it.")
    for id, reason in list(report.refused.items())[:SHOWN]:
        output.say(f"{id} refused it: {reason}")
    if len(report.refused) > SHOWN:
        output.say(f"... and {len(report.refused) - SHOWN} more; --json has all.")
    if report.refused:
        output.say("To see one:", command=f"sagas show {quote(next(iter(report.refused)))}{options.address.option}")
