"""Which durable functions this process serves, by name and version."""

from durable_core.errors import DefinitionError
from durable_core.model.spec import DurableFunction


class Registry:
    """Durable functions by name and version; versions live side by side."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, int], DurableFunction] = {}
        self._newest: dict[str, DurableFunction] = {}
        self.fresh: list[DurableFunction] = []
        """What was added and is not announced yet."""

    def add(self, function: DurableFunction) -> None:
        """Register ``function``; the same object twice is harmless, two under one name and version are refused."""
        key = (function.name, function.version)
        known = self._functions.get(key)
        if known is not None and known is not function:
            raise DefinitionError(
                f"two different durable functions are named {function.name!r} version {function.version}; "
                "give one another name, or a new version"
            )
        if known is None:
            self.fresh.append(function)
        self._functions[key] = function
        newest = self._newest.get(function.name)
        if newest is None or newest.version <= function.version:
            self._newest[function.name] = function

    def renew(self) -> None:
        """Have all of it announced again: the worker has another name."""
        self.fresh = list(self._functions.values())

    def served(self) -> list[tuple[str, int]]:
        """The ``(name, version)`` pairs that may be claimed."""
        return list(self._functions)

    def find(self, name: str, version: int | None = None) -> DurableFunction | None:
        """The function of this name and version, or its newest version; None where it is not registered here."""
        return self._newest.get(name) if version is None else self._functions.get((name, version))

    def get(self, name: str, version: int | None = None) -> DurableFunction:
        """The function of this name and version, or its newest version.

        Raises:
            DefinitionError: there is none; the message lists what there is.
        """
        found = self.find(name, version)
        if found is None:
            known = ", ".join(sorted(f"{known} v{number}" for known, number in self._functions)) or "none"
            asked = name if version is None else f"{name} v{version}"
            raise DefinitionError(
                f"{asked!r} is not registered here; registered are: {known}. "
                "Register it, check the name, or start a worker that serves it"
            )
        return found
