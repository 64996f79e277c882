"""A run as one line of JSON, for the time after it was purged.

Invariants: the same row and journal give the same line, byte for byte, so that a line written twice can be told and
dropped; and what is read back from a line equals what it was made from.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from durable_core.errors import PayloadError
from durable_core.model.duration import iso
from durable_core.model.entry import Entry
from durable_core.model.run import RunRecord

VERSION = 1
"""Of the line's form, in its field ``archive``."""
BYTES = "_base64"
"""Behind the name of a field that holds bytes which are not JSON."""


def line_of(record: RunRecord, entries: Sequence[Entry]) -> bytes:
    """The line, with its end."""
    run = _fields({field.name: getattr(record, field.name) for field in attrs.fields(RunRecord)})
    journal = [_fields({name: value for name, value in entry._asdict().items() if name != "run"}) for entry in entries]
    return msgspec.json.encode({"archive": VERSION, "run": run, "journal": journal}) + b"\n"


def read_line(line: bytes) -> tuple[RunRecord, list[Entry]]:
    """What ``line`` was made from.

    Raises:
        PayloadError: it is no such line, or of a newer release.
    """
    try:
        found: dict[str, Any] = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        version = msgspec.json.decode(found["archive"])
        if version != VERSION:
            raise PayloadError(f"a line of an archive has the form {version!r}; this release reads {VERSION}")
        run: dict[str, Any] = _values(found["run"], RUN_TYPES)
        rows: list[msgspec.Raw] = msgspec.json.decode(found["journal"], type=list[msgspec.Raw])
        journal = [_values(row, ENTRY_TYPES) for row in rows]
        return RunRecord(**run), [Entry(run=run["num"], **entry) for entry in journal]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise PayloadError(
            f"a line of an archive could not be read ({type(error).__name__}: {error}); "
            "one that a crash has cut short is followed by a whole one of the same run"
        ) from error


RUN_TYPES: Mapping[str, Any] = {field.name: field.type for field in attrs.fields(RunRecord)}
ENTRY_TYPES: Mapping[str, Any] = {name: type_ for name, type_ in Entry.__annotations__.items() if name != "run"}


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it stands in the line: times twice, for people and exactly; JSON as JSON; what is not set, left out."""
    written: dict[str, Any] = {}
    for name, value in row.items():
        if value is None:
            continue  # a null would say that a step returned None
        if name == "uid":
            written[name] = value.hex()
        elif isinstance(value, bytes):
            written |= _payload(name, value)
        else:
            if name.endswith("at_ns"):
                written[name.removesuffix("_ns")] = iso(value)
            written[name] = value
    return written


def _payload(name: str, value: bytes) -> dict[str, Any]:
    try:
        value.decode()
        msgspec.json.decode(value, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {f"{name}{BYTES}": base64.b64encode(value).decode()}
    if b"\n" in value or b"\r" in value:  # only between values: within a text JSON spells them out
        return {f"{name}{BYTES}": base64.b64encode(value).decode()}
    return {name: msgspec.Raw(value)}


def _values(row: msgspec.Raw, types: Mapping[str, Any]) -> dict[str, Any]:
    """The row that ``_fields`` was given."""
    written: dict[str, msgspec.Raw] = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
    return {name: _value(name, type_, written) for name, type_ in types.items()}


def _value(name: str, type_: Any, written: Mapping[str, msgspec.Raw]) -> Any:
    if f"{name}{BYTES}" in written:
        return base64.b64decode(msgspec.json.decode(written[f"{name}{BYTES}"], type=str), validate=True)
    if name not in written and isinstance(None, type_):
        return None
    if name == "uid":
        return bytes.fromhex(msgspec.json.decode(written[name], type=str))
    if type_ in (bytes, bytes | None):
        return bytes(written[name])
    return msgspec.json.decode(written[name], type=type_)
