"""Demands that tests cover every line and branch of the pure models: ``python -m tools.pure_coverage``.

Which modules are pure is said once, by the import contracts whose ids begin with ``pure-``.
"""

import sys
import tomllib
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).parents[1]
WHOLE = 100


def pure_modules() -> list[str]:
    """The modules that the contracts keep pure, as patterns of their files."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    modules = [
        module for contract in contracts if contract["id"].startswith("pure-") for module in contract["source_modules"]
    ]
    return [f"{module.replace('.', '/')}{end}" for module in modules for end in (".py", "/*")]


def main() -> int:
    """Report what the last ``make coverage`` has not covered of them; the exit code."""
    measured = Coverage(config_file=str(ROOT / "pyproject.toml"))
    measured.load()
    covered = measured.report(include=pure_modules(), show_missing=True, skip_covered=True)
    if covered < WHOLE:
        sys.stderr.write(f"The pure models are covered by {covered:.2f} %, and all of their code must be.\n")
    return int(covered < WHOLE)


if __name__ == "__main__":
    sys.exit(main())
