"""Calls that answer differently when a saga is run again: warned of wherever they run, whatever they are called."""

import re

import pytest

from sagas.check.impure import instead_of
from tests.pure.bodies import Read

IMPURE = [
    ("import time", "time.time()", "s.now()"),
    ("import time as tm", "tm.time()", "s.now()"),
    ("from time import time as now", "now()", "s.now()"),
    ("from time import sleep", "sleep(1)", "await s.sleep(...)"),
    ("import time", "time.perf_counter()", "s.now()"),
    ("import time", "time.monotonic_ns()", "s.now()"),
    ("import time", "time.localtime()", "s.now()"),
    ("import time", "time.strftime('%Y')", "s.now()"),
    ("import datetime as d", "d.datetime.now()", "s.now()"),
    ("from datetime import datetime, UTC", "datetime.now(UTC)", "s.now()"),
    ("from datetime import datetime as dt", "dt.utcnow()", "s.now()"),
    ("from datetime import datetime", "datetime.today()", "s.now()"),
    ("from datetime import date", "date.today()", "s.now().date()"),
    ("import datetime\nclass Mine(datetime.datetime): ...", "Mine.now()", "s.now()"),
    ("import random", "random.random()", "s.random()"),
    ("from random import choice as pick", "pick([1])", "s.random()"),
    ("import random", "random.shuffle([])", "s.random()"),
    ("import random", "random.uniform(1, 2)", "s.random()"),
    ("import uuid", "uuid.uuid4()", "s.uuid()"),
    ("from uuid import uuid1 as fresh", "fresh()", "s.uuid()"),
    ("import os", "os.urandom(8)", "s.random()"),
    ("import secrets", "secrets.token_hex()", "s.uuid()"),
    ("import secrets", "secrets.randbelow(3)", "s.random()"),
    ("import secrets", "secrets.choice([1])", "s.random()"),
    ("import httpx", "httpx.get('x')", "a step"),
    ("from httpx import post as send", "send('x')", "a step"),
    ("", "open('x')", "a step"),
    ("import io", "io.open('x')", "a step"),
    ("", "input()", "a step"),
    ("opened = open", "opened('x')", "a step"),
    ("clock = __import__('time').time", "[clock() for _ in 'x']", "s.now()"),
]


@pytest.mark.parametrize(("head", "call", "instead"), IMPURE, ids=[f"{head}; {call}" for head, call, _ in IMPURE])
def test_impure_calls_are_warned_of_by_what_they_call(head: str, call: str, instead: str):
    """Whatever the body calls it, a function whose answer differs is told with its place and what to use instead."""
    seen = Read(f"x = {call}", head)
    (warning,) = seen.scan.warnings
    spelled = re.sub(r"^\[|\(.*", "", call)
    assert warning == (
        f"{seen.path}:{seen.first}: the body calls {spelled}(), which answers differently when the saga is run again "
        f"from its journal; use {instead}"
    )
    assert seen.scan.faults == ()


@pytest.mark.parametrize(
    "call", ["import time as tm; tm.time()", "from time import time as t; t()", "t = time.time; t()"]
)
def test_impure_calls_are_known_through_names_of_the_body(call: str):
    """An import, and another name, in the body are followed."""
    (warning,) = Read(call, "import time").scan.warnings
    assert "s.now()" in warning


def test_impure_calls_are_found_everywhere_that_runs():
    """In a helper, a lambda, a child and an argument of a step; not in a helper that nobody calls."""
    head = """
import time
@saga("child", version=1)
async def child(s: Saga): return time.time_ns()
    """
    body = """
    def stamp(): return time.time()
    key = lambda: time.monotonic()
    def unused(): return time.process_time()
    await s.run(a, time.perf_counter())
    await s.run(child)
    return stamp()
    """
    found = {warning.split("calls ")[1].split("()")[0] for warning in Read(body, head).scan.warnings}
    assert found == {"time.time", "time.monotonic", "time.perf_counter", "time.time_ns"}


PURE = [
    ("", "print('x')"),
    ("def open(x): ...", "open('x')"),
    ("class time:\n    @staticmethod\n    def time(): ...", "time.time()"),
    ("import time", "time.gmtime(0)"),
    ("import time", "time.strftime('%Y', k)"),
    ("import time", "time.strptime('1', '%d')"),
    ("from datetime import datetime", "datetime.fromisoformat('2024-01-01')"),
    ("from datetime import date", "date.fromisoformat('2024-01-01')"),
    ("import random\nrandom_of_mine = random.Random(1)", "random_of_mine.random()"),
    ("import secrets", "secrets.compare_digest('a', 'b')"),
    ("import uuid", "uuid.uuid5(k, 'x')"),
    ("import uuid", "uuid.UUID(int=1)"),
    ("import time", "s.now()"),
    ("import time", "(lambda time: time.time())(k)"),
    ("import time", "[time.time() for time in k]"),
    ("import httpx", "httpx.URL('x')"),
]


@pytest.mark.parametrize(("head", "call"), PURE, ids=[f"{head}; {call}" for head, call in PURE])
def test_other_calls_are_not_warned_of(head: str, call: str):
    """A call that answers the same, or that only looks like one that does not, is left alone."""
    assert Read(f"x = {call}", head).scan.warnings == ()


def test_a_callable_that_cannot_be_compared_is_left_alone():
    """An object of somebody's is never hashed or compared to find out what it is."""

    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self) -> None: ...

        def __eq__(self, other: object) -> bool:
            raise AssertionError

    assert instead_of(Odd(), 0) is None
    assert instead_of(Odd().__call__, 0) is None
    assert instead_of(Odd, 0) is None
