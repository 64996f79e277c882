"""The benchmarks run, and what they start ends as it should; their figures are nobody's claim here."""

import asyncio
from pathlib import Path

from benchmarks.__main__ import TARGETS
from benchmarks.waiting import w6
from benchmarks.workloads import store_in


def test_waiting_sagas_at_a_small_scale(tmp_path: Path):
    """W6 with 300 sagas: those that fall due or are answered end, the rest wait on, and every figure is listed."""
    figures = asyncio.run(w6(store_in(tmp_path), waiting=300, due=30))
    assert {name for workload, name in TARGETS if workload == "W6"} == set(figures)
    assert all(figure > 0 for figure in figures.values())
