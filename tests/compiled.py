"""What does not change while tests run is made once in each process: a saga is read once, not by each orchestrator.

Reading is a quarter of the time of a test whose sagas live and die many times. `pure/test_scan.py` reads by itself.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from sagas.check.fingerprint import fingerprint
from sagas.check.scan import Scan, scan
from sagas.model.definition import SagaDef


@pytest.fixture(scope="session", autouse=True)
def read_once() -> Iterator[None]:
    """Keep what the reader has found of each saga."""
    found: dict[SagaDef[..., Any], str] = {}

    def kept(definition: SagaDef[..., Any], read: Scan) -> str:
        if definition not in found:
            found[definition] = fingerprint(definition, read)
        return found[definition]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sagas.runtime.binding.scan", cache(scan))
        patch.setattr("sagas.runtime.saga.fingerprint", kept)
        yield
