"""The log of a worker on stderr: lines for people, or an object of JSON a line."""

import json
import logging
from datetime import UTC, datetime

import typer

from sagas.tracing import STEP_FIELDS, StepLogs

LINES = "%(asctime)s %(levelname)s %(name)s: %(message)s%(saga)s"


class Objects(logging.Formatter):
    """One object a line: ``{"at", "level", "logger", "message"}``, and ``"error"`` where there is a traceback.

    What was logged within a step has ``saga_id``, ``saga_step``, ``saga_attempt``, ``trace_id``, ``span_id`` besides.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, str | int] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in STEP_FIELDS:
            value = getattr(record, name, "")
            if value:
                told[name] = value
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def begin(level: str, *, as_json: bool) -> None:
    """Log what is at least of ``level`` to stderr."""
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise typer.BadParameter(f"{level!r} is none of debug, info, warning, error", param_hint="--log-level")
    handler = logging.StreamHandler()
    handler.addFilter(StepLogs())
    logging.basicConfig(level=levels[level.upper()], format=LINES, handlers=[handler])
    if as_json:
        handler.setFormatter(Objects())
