"""Names that a reference page shows, as mkdocstrings reads them."""

import functools
import importlib
from typing import Any


def resolved(path: str) -> Any:
    """The object of a dotted path; a module comes before an attribute of the same name."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[length:], found)
    raise AssertionError(f"{path} is on a page and in no module")
