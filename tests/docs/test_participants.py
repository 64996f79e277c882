"""The page about participants: its programs run in the order of the page, and print what it says."""

import os
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.docs.readme import BLOCK, ROOT
from tests.postgres_server import Server

PAGE = (ROOT / "docs/how-to/participants.md").read_text(encoding="utf-8")
BLOCKS = [code for language, code in BLOCK.findall(PAGE) if language == "python"]
DJANGO = [code for code in BLOCKS if "django" in code]


def run(folder: Path, *command: str) -> str:
    """What a Python program prints in a folder; a warning is an error."""
    done = forked.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_programs_do_what_they_say(tmp_path: Path):
    """Run as one module, they print what the page shows, and each part keeps its promise (see the module of checks)."""
    (tmp_path / "bank.py").write_text("".join(code for code in BLOCKS if code not in DJANGO), encoding="utf-8")
    (shown,) = [code for language, code in BLOCK.findall(PAGE) if language == "text"]
    assert run(tmp_path, "-m", "tests.docs.participants_checks") == f"{shown}all of them hold\n"


PROLOGUE = """
import sys
import django
from django.conf import settings
from sagas import participant
settings.configure(DATABASES={"default": %s})
django.setup()
"""
EPILOGUE = """
def book(fails=False):
    with django_session() as session:
        with once(session, "c2", request=1, answer=int) as call:
            if call.first:
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO payment (amount) VALUES (1)")
                call.answer = 1
        if fails:
            raise KeyError("rolled back by Django")
    return call.first

try:
    book(fails=True)
except KeyError:
    print(book(), book())
with connection.cursor() as cursor:
    cursor.execute("SELECT amount FROM payment ORDER BY amount")
    print([amount for amount, in cursor.fetchall()])
"""
TABLES = """
with django_session() as session:
    participant.metadata.create_all(session.connection())
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE payment (amount INTEGER)")
"""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_with_django(tmp_path: Path, database: str, request: pytest.FixtureRequest):
    """Effect and answer are in Django's transaction: they are rolled back with it, and a repeat finds the answer."""
    session, usage = DJANGO
    if database == "sqlite":
        settings: dict[str, object] = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{tmp_path}/django.db"}
    else:
        server: Server = request.getfixturevalue("server")
        settings = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "sagas"}
        settings |= {"HOST": "127.0.0.1", "PORT": str(server.port), "OPTIONS": {"options": "-csearch_path=pg_temp"}}
        session = session.replace(
            'create_engine("sqlite://",', 'create_engine("postgresql+psycopg://", use_native_hstore=False,'
        )
    program = PROLOGUE % settings + session + TABLES + usage + usage + EPILOGUE
    assert run(tmp_path, "-c", program) == "True False\n[1, 42]\n"
