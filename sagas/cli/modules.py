"""A user's module: importing it by name or path, and finding its sagas and resources.

Invariant: a file is imported under the name that ``import`` itself would use, so that the classes of stored exceptions
are found again.
"""

import contextlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import durable_core
from sagas.cli.output import CommandError, clean
from sagas.model.definition import SagaDef

if TYPE_CHECKING:
    from sagas.outbox import Outbox

RESOURCES = "resources"
OURS = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], *durable_core.__path__))
"""The folders of our packages."""


def load(name: str) -> ModuleType:
    """Import a module, from the current directory first.

    Args:
        name: dotted name, or the path of a ``.py`` file.

    Raises:
        CommandError: it does not exist, or raised while it was imported.
    """
    is_path = name.endswith(".py")
    place, dotted = _place(Path(name)) if is_path else (Path.cwd(), name)
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the command itself
            module = importlib.import_module(dotted)
    except (Exception, SystemExit) as error:  # the border of the user's module: it may raise anything
        raise CommandError(_why(name, dotted, error)) from error
    found = getattr(module, "__file__", None)
    if is_path and (found is None or not Path(found).samefile(name)):
        raise CommandError(
            f"{name} cannot be imported as {dotted!r}: that is {found or 'a built-in module'}; rename the file"
        )
    return module


def _place(path: Path) -> tuple[Path, str]:
    """The directory to import a file from, and its dotted name."""
    if not path.is_file():
        raise CommandError(f"there is no file {path}; give the dotted name of a module, or the path of its .py file")
    full = path.resolve()
    parts, directory = [full.stem], full.parent
    while (directory / "__init__.py").is_file():
        parts.insert(0, directory.name)
        directory = directory.parent
    return directory, ".".join(parts)


def _why(name: str, dotted: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name is not None and f"{dotted}.".startswith(f"{error.name}."):
        return (
            f"there is no module {error.name!r} in {Path.cwd()} or among the installed packages; "
            "give the dotted name of a module there, or the path of its .py file"
        )
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    last = frames[-1] if frames else None
    where = f" at {last.filename}:{last.lineno}" if last is not None else ""
    return f"the module {name} cannot be imported: it raised {type(error).__name__}: {clean(str(error))}{where}"


def is_users(file: str) -> bool:
    """Whether a file of a traceback is the user's, and not one of ours or of the import system."""
    return not file.startswith(OURS) and "importlib" not in file


def sagas_of(modules: Sequence[ModuleType]) -> list[SagaDef[..., Any]]:
    """All sagas that these modules define or have imported.

    Raises:
        CommandError: they contain none.
    """
    found: dict[int, SagaDef[..., Any]] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, SagaDef):
                found[id(value)] = value  # pyright: ignore[reportUnknownArgumentType] - one object may have two names
    if not found:
        names = ", ".join(module.__name__ for module in modules)
        raise CommandError(f"{names} has no sagas; name the module with a function that is decorated with @saga(...)")
    return list(found.values())


def saga_at(target: str, form: str = "MODULE:NAME") -> SagaDef[..., Any]:
    """The saga that ``MODULE:NAME`` means; of several versions the newest. See ``versions_at``."""
    return max(versions_at(target, form), key=lambda each: each.version)


def versions_at(target: str, form: str = "MODULE:NAME") -> list[SagaDef[..., Any]]:
    """The variable that ``MODULE:NAME`` names, else all versions of the saga of that name.

    Args:
        target: a module and a name in it.
        form: what the command calls its argument, for the message.

    Raises:
        CommandError: there is none, or ``target`` is of another form.
    """
    module_name, colon, name = target.rpartition(":")
    if not colon or not module_name or not name:
        raise CommandError(f"{target!r} names no saga; give {form}, such as shop.orders:place-order")
    module = load(module_name)
    held: object = vars(module).get(name)
    if isinstance(held, SagaDef):
        return [held]
    sagas = sagas_of([module])
    found = [each for each in sagas if each.name == name]
    if not found:
        known = ", ".join(sorted({each.name for each in sagas}))
        if name in vars(module):
            raise CommandError(f"{target} is no saga but {_kind(held)}; the sagas of {module.__name__} are {known}")
        raise CommandError(f"{module.__name__} has no saga {name!r}; it has {known}")
    return found


def _kind(held: object) -> str:
    name = "module" if inspect.ismodule(held) else "class" if isinstance(held, type) else type(held).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def outboxes_of(modules: Sequence[ModuleType]) -> "list[Outbox[Any]]":
    """All outboxes that these modules define or have imported."""
    if "sagas.outbox" not in sys.modules:
        return []  # who has made one has loaded it
    from sagas.outbox import Outbox  # noqa: PLC0415 - who has no outbox does not load SQLAlchemy

    held = (value for module in modules for value in vars(module).values())
    return list({id(value): value for value in held if isinstance(value, Outbox)}.values())  # pyright: ignore[reportUnknownArgumentType]


def outbox_names(modules: Sequence[ModuleType]) -> list[str]:
    """``MODULE:OUTBOX`` of each of ``outboxes_of``, by the first variable that holds it."""
    return [
        next(f"{module.__name__}:{name}" for module in modules for name, value in vars(module).items() if value is each)
        for each in outboxes_of(modules)
    ]


def outbox_at(target: str) -> "Outbox[Any]":
    """The outbox that ``MODULE:OUTBOX`` means: the variable of a module.

    Raises:
        CommandError: there is none.
    """
    module_name, colon, name = target.rpartition(":")
    if not colon or not module_name or not name:
        raise CommandError(f"{target!r} names no outbox; give MODULE:OUTBOX, such as shop.orders:outbox")
    module = load(module_name)
    outboxes = {id(outbox): outbox for outbox in outboxes_of([module])}
    named = {variable: outboxes[id(value)] for variable, value in vars(module).items() if id(value) in outboxes}
    if name in named:
        return named[name]
    known = ", ".join(named)
    raise CommandError(f"{module.__name__} has no outbox {name!r}; it has {known or 'none: outbox = Outbox(engine)'}")


async def resources_of(module: ModuleType, stack: AsyncExitStack) -> list[object]:
    """The module's ``resources`` for its steps: a list, or a callable that returns, awaits or manages one.

    Args:
        module: a user's module; one without ``resources`` has none.
        stack: closes the context manager of the resources.

    Raises:
        CommandError: the result is no list.
    """
    given: Any = getattr(module, RESOURCES, None)
    if given is None or inspect.ismodule(given):
        return []
    if callable(given):
        given = given()
    if inspect.isawaitable(given):
        given = await given
    if hasattr(given, "__aenter__"):
        given = await stack.enter_async_context(given)
    elif hasattr(given, "__enter__"):
        given = stack.enter_context(given)
    if isinstance(given, list | tuple):
        return [*given]
    raise CommandError(
        f"{module.__name__}.{RESOURCES} is a {type(given).__name__}; make it a list, or a function that returns one: "
        "plain, async, or a context manager (@contextmanager, @asynccontextmanager)"
    )
