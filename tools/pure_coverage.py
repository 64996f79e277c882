"""Demands that tests cover the pure models, lines and branches: ``python -m tools.pure_coverage``.

Which modules are pure is said once, by the import contracts whose ids begin with ``pure-``; how many per cent of them
must be covered, by ``tool.pure-coverage`` in pyproject.toml.
"""

import sys
import tomllib
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "pyproject.toml"


def main() -> int:
    """Report what the last ``make coverage`` has not covered of them; the exit code."""
    tool = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))["tool"]
    contracts = [contract for contract in tool["importlinter"]["contracts"] if contract["id"].startswith("pure-")]
    modules = [module.replace(".", "/") for contract in contracts for module in contract["source_modules"]]
    measured = Coverage(config_file=str(SETTINGS))
    measured.load()
    files = [f"{module}{end}" for module in modules for end in (".py", "/*")]
    covered = measured.report(include=files, show_missing=True, skip_covered=True)
    least = tool["pure-coverage"]["at-least"]
    if covered < least:
        sys.stderr.write(f"Tests cover {covered:.2f} % of the pure models, and must cover {least} %.\n")
    return int(covered < least)


if __name__ == "__main__":
    sys.exit(main())
