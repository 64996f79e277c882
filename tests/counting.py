"""How much work something is, whatever the machine: the functions of Python that it calls."""

import sys
from collections.abc import Generator
from contextlib import contextmanager


class Work:
    """A count of calls, generators that go on included."""

    def __init__(self) -> None:
        self.calls = 0

    def called(self, frame: object, event: str, given: object) -> None:
        """As ``sys.setprofile`` wants it."""
        self.calls += event == "call"


@contextmanager
def counted() -> Generator[Work]:
    """Count within the block, in this thread."""
    work, before = Work(), sys.getprofile()
    sys.setprofile(work.called)
    try:
        yield work
    finally:
        sys.setprofile(before)
