"""Which exception class a stored name means: by module and qualified name, among the classes that are here already.

Invariant: nothing is imported and no module's ``__getattr__`` is called. ``__main__`` is the module of the same file:
a script's class is found by a program that imports the script, and the other way round. A class that is local to a
function is found in the process that has raised it, while it exists.
"""

import sys
import weakref
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

_MAIN: Final = "__main__"
_raised: Final["weakref.WeakValueDictionary[str, type[BaseException]]"] = weakref.WeakValueDictionary()
"""Local classes that this process has stored, by address; the latest of each."""


def address_of(cls: type) -> str:
    """``module:qualname``."""
    return f"{cls.__module__}:{cls.__qualname__}"


def home_of(cls: type) -> str:
    """The file of the script that defines ``cls``; empty for a class of an imported module, which its name finds."""
    return _file_of(sys.modules.get(_MAIN)) if cls.__module__ == _MAIN else ""


def remember(cls: type[BaseException]) -> None:
    """Keep a class that no name leads to, as long as it exists."""
    if "<locals>" in cls.__qualname__:
        _raised[address_of(cls)] = cls


def find_class(address: str, home: str, prefer: Sequence[type[BaseException]]) -> type[Exception] | None:
    """The class stored under ``address``, where it is here already and is an ``Exception``.

    Args:
        address: its module and qualified name.
        home: the file of the script that it was defined in, where it was one.
        prefer: classes to take first where module and name are those of the stored one, and to fall back on, by
            name alone, where its own module is not imported here.
    """
    module, _, qualname = address.partition(":")
    found: object = next((cls for cls in prefer if address_of(cls) == address and _is_at(home, cls)), None)
    if found is None:
        modules = (_held(each, qualname) for each in _modules(module, home))
        found = next((each for each in modules if each is not None), None) or _raised.get(address)
    if found is None:
        # By name alone, but not a builtin's: another library's ConnectionError is not the builtin one.
        namesakes = (cls for cls in prefer if cls.__qualname__ == qualname and cls.__module__ != "builtins")
        found = next(namesakes, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _is_at(home: str, cls: type) -> bool:
    """Whether a class has the home that was stored; an older release stored none."""
    return not home or _same_file(home, home_of(cls))


def _modules(name: str, home: str) -> list[ModuleType]:
    """The modules here that are, or may be, the module ``name`` of the process that stored it; the surest first."""
    main = sys.modules.get(_MAIN)
    if name == _MAIN:
        here = main is not None and (not home or _same_file(home, _file_of(main)))
        mains = [main] if main is not None and here else []
        return [*mains, *(_imported_from(home) if home else ())]
    found = sys.modules.get(name)
    if found is not None:
        return [found]
    # What runs as a script, or by ``python -m``, is imported as ``__main__`` only.
    spec = getattr(getattr(main, "__spec__", None), "name", None)
    return [main] if main is not None and (spec == name or _is_named(_file_of(main), name)) else []


def _imported_from(home: str) -> list[ModuleType]:
    """The imported modules whose file is ``home``; else those whose name the end of its path spells."""
    modules = [(name, module) for name, module in list(sys.modules.items()) if name != _MAIN and _is_module(module)]
    exact = [module for _, module in modules if _file_of(module) == home]
    named = (each for each in modules if _is_named(home, each[0]) and _is_named(_file_of(each[1]), each[0]))
    return exact or [module for _, module in sorted(named, key=lambda each: -each[0].count("."))]


def _is_module(module: Any) -> bool:
    return isinstance(module, ModuleType)


def _file_of(module: object) -> str:
    """The source of a module, with forward slashes; empty where it has none."""
    file = getattr(module, "__dict__", {}).get("__file__")
    return file.replace("\\", "/") if isinstance(file, str) else ""


def _same_file(one: str, other: str) -> bool:
    """Whether two paths are of one file, perhaps on two machines: then at least its name is the same."""
    return one == other or bool(one and other and one.rpartition("/")[2] == other.rpartition("/")[2])


def _is_named(file: str, name: str) -> bool:
    """Whether a module called ``name`` may have ``file`` as its source: ``shop/orders.py`` for ``shop.orders``."""
    stem, _, kind = file.rpartition(".")
    parts = stem.removesuffix("/__init__").split("/")
    names = name.split(".")
    return kind == "py" and parts[-len(names) :] == names


def _held(module: ModuleType, qualname: str) -> object:
    """What a module holds under ``qualname``. Reads namespaces only, as a ``__getattr__`` may import."""
    found: object = module
    for part in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found
