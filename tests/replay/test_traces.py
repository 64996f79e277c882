"""Whatever a saga does, its spans are the same at every prefix of its journal, whoever exports them."""

import asyncio
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from tests.replay.searching import covering, some
from tests.replay.test_replay_structures import FLAKY, NESTED, NODES, REJECT, SLEEP, STEP, Node, block, live
from tests.traces import check_trace, spans

EVERY = 1_000


SIGNALS = [(), ("cancel",), ("pause", "resume"), ("kill", "rollback"), ("pause", "cancel", "resume")]


@some
@covering(
    *(
        {"nodes": nodes, "seed": after, "signals": signals, "after": after}
        for nodes, signals, after in zip([*NESTED, NESTED[0]], SIGNALS, (0, 2, 3, 5, 6), strict=True)
    )
)
@given(
    nodes=st.lists(NODES, min_size=1, max_size=4),
    seed=st.integers(0, 999),
    signals=st.sampled_from(SIGNALS),
    after=st.integers(0, 6),
)
@example(nodes=[block("parallel", STEP, block("child", STEP, FLAKY), SLEEP), REJECT], seed=1, signals=(), after=0)
@example(
    nodes=[block("caught", STEP, block("parallel", STEP, STEP), REJECT), STEP],
    seed=3,
    signals=("kill", "rollback"),
    after=4,
)
@example(nodes=[block("child", block("child", STEP, block("savepoint", STEP))), REJECT], seed=5, signals=(), after=0)
def test_spans_at_every_prefix_are_those_of_the_whole(nodes: list[Node], seed: int, signals: Sequence[str], after: int):
    """At every prefix of a random saga's journal the spans so far begin those of the whole, by Jaeger's rules."""

    async def main() -> None:
        life = await live(nodes, seed, signals=signals, after=after)
        whole = check_trace(life.row, life.journal, prefixes=EVERY)
        assert whole[-1].name.startswith("outcome ")
        attempts = [span for span in whole if "saga.step.attempt" in span.attributes]
        assert len({span.attributes["saga.step.idempotency_key"] for span in attempts}) == len(
            {span.attributes["saga.step.key"] for span in attempts}
        )

    asyncio.run(main())


@some
@given(jumps=st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_no_clock_spoils_a_trace(jumps: list[int], seed: int):
    """However the clocks of its workers differ, no span of a saga is older than its parent or ends before it starts."""

    async def main() -> None:
        life = await live([block("caught", STEP, FLAKY, REJECT), SLEEP, STEP], seed)
        skewed = [
            entry._replace(
                at_ns=entry.at_ns + jumps[place % len(jumps)],
                started_at_ns=None if entry.started_at_ns is None else entry.started_at_ns - jumps[place % len(jumps)],
            )
            for place, entry in enumerate(life.journal)
        ]
        check_trace(life.row, skewed)
        assert [span.span_id for span in spans(life.row, skewed)] == [
            span.span_id for span in spans(life.row, life.journal)
        ]

    asyncio.run(main())
