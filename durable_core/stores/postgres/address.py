"""A PostgreSQL address, taken apart: what goes to the driver, what is ours, and what may be shown.

Invariant: ``Place.shown`` has neither user nor password, and it is all of an address that a message repeats.
"""

import os
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

import attrs

from durable_core.errors import StoreError

PASSED = frozenset(
    (
        "application_name",
        "host",
        "passfile",
        "password",
        "port",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslpassword",
        "sslrootcert",
        "target_session_attrs",
        "user",
    )
)
"""Options of the address that the driver takes."""
VALUES: Mapping[str, tuple[str, ...]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
}
"""What such an option may be."""
FILES: Mapping[str, str] = {
    "passfile": "PGPASSFILE",
    "sslcert": "PGSSLCERT",
    "sslcrl": "PGSSLCRL",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
}
"""Options that name a file, and the variables of the environment that stand in for them."""
LONGEST_SCHEMA = 63
"""Bytes of a name in PostgreSQL; a longer one is cut there, silently."""
FORM = "Give postgresql://user:password@host:5432/database"
ESCAPES = "@ as %40, : as %3A, / as %2F, ? as %3F, # as %23, [ as %5B, ] as %5D, % as %25"


@attrs.frozen
class Place:
    """The address of a store."""

    dsn: str = attrs.field(repr=False)
    """For the driver; it may hold a password."""
    shown: str
    """For people: host, database and schema."""
    schema: str | None
    """The schema asked for; None is the role's own first one."""


def unreadable(dsn: str) -> str | None:
    """The first option of an address whose file cannot be read; None where all can be."""
    given = dict(parse_qsl(urlsplit(dsn).query))
    for option, variable in FILES.items():
        path = given.get(option) or os.environ.get(variable)
        if path and not os.access(path, os.R_OK):
            return option if option in given else variable
    return None


def place_of(url: str, options: Mapping[str, str]) -> Place:
    """Take ``url`` apart; ``options`` win over those in its query.

    Raises:
        StoreError: it is no such address, or has an option that nobody knows.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # its text would repeat a part of what may be the password
        raise _unreadable() from None
    if parts.netloc.count("@") > 1 or ("@" not in parts.netloc and "@" in parts.path + parts.query + parts.fragment):
        # A special character in the password: what follows it would pass for something that may be shown.
        raise _unreadable()
    given = dict(parse_qsl(parts.query, keep_blank_values=True)) | dict(options)
    schema = given.pop("schema", None)
    unknown = sorted(given.keys() - PASSED)
    if unknown or parts.fragment:
        raise StoreError(
            f"the PostgreSQL address has unknown options: {', '.join(unknown) or '#'}. Known here: schema, "
            f"{', '.join(sorted(PASSED))}. {FORM}"
        )
    for option, allowed in VALUES.items():
        if given.get(option, allowed[0]) not in allowed:
            raise StoreError(f"the option {option} is one of {', '.join(allowed)}; it was given {given[option]!r}")
    if not all(each.isdecimal() for each in given.get("port", "1").split(",")):
        raise StoreError(f"the option port is a number; it was given {given['port']!r}")
    if schema is not None and (not schema or "\0" in schema or len(schema.encode()) > LONGEST_SCHEMA):
        raise StoreError(f"the option schema is a name of 1 to {LONGEST_SCHEMA} bytes; it was given {schema!r}")
    shown = given.get("host", host) or "the local server"
    number = given.get("port", port)
    shown += f":{number}" if number else ""
    shown += parts.path if len(parts.path) > 1 else ""
    dsn = parts._replace(scheme="postgresql", query=urlencode(given)).geturl()
    return Place(dsn, f"{shown} (schema {schema})" if schema else shown, schema)


def _unreadable() -> StoreError:
    return StoreError(
        "the PostgreSQL address cannot be read, perhaps because of a special character in its user or password",
        f"Write such a character percent-encoded: {ESCAPES}. {FORM}",
    )
