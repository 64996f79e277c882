"""Names of a package that are loaded from their modules on first use: a program pays only for those that it uses."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, later: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package; a name that it has loaded is an ordinary attribute from then on.

    Args:
        package: the package, by its ``__name__``.
        later: its names, by the module that each is loaded from.
    """
    homes = {name: module for module, names in later.items() for name in names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return load
