"""Columns of the tables in PostgreSQL, in order, each with the type that it is bound as.

Made from ``tables.py`` by ``python -m tools.store_sql``; edit the tables, not this file.
"""

RUN = {
    "num": "int8",
    "id": "text",
    "uid": "bytea",
    "name": "text",
    "version": "int8",
    "status": "text",
    "phase": "text",
    "owner": "text",
    "wake_at_ns": "int8",
    "deadline_at_ns": "int8",
    "paused": "int8",
    "input": "bytea",
    "output": "bytea",
    "error": "bytea",
    "reason": "text",
    "detail": "bytea",
    "traceparent": "text",
    "created_at_ns": "int8",
    "updated_at_ns": "int8",
    "ended_at_ns": "int8",
    "tags": "text",
    "retagged": "text",
    "awaits": "text",
    "restarts": "text",
}

START = {
    "num": "int8",
    "id": "text",
    "uid": "bytea",
    "name": "text",
    "version": "int8",
    "status": "text",
    "owner": "text",
    "wake_at_ns": "int8",
    "deadline_at_ns": "int8",
    "input": "bytea",
    "traceparent": "text",
    "created_at_ns": "int8",
    "tags": "text",
    "restarts": "text",
    "updated_at_ns": "int8",
}

UPDATE = {
    "status": "text",
    "phase": "text",
    "owner": "text",
    "wake_at_ns": "int8",
    "paused": "int8",
    "output": "bytea",
    "error": "bytea",
    "reason": "text",
    "detail": "bytea",
    "updated_at_ns": "int8",
    "ended_at_ns": "int8",
    "retagged": "text",
    "awaits": "text",
    "num": "int8",
}

ENTRY = {
    "run": "int8",
    "seq": "int8",
    "kind": "text",
    "key": "text",
    "attempt": "int8",
    "label": "text",
    "payload": "bytea",
    "error": "bytea",
    "started_at_ns": "int8",
    "at_ns": "int8",
    "due_at_ns": "int8",
    "worker": "text",
}

NUMBERS = 1048576
