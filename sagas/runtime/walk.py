"""Runs a saga that is declared as a graph: one body for all of them.

Invariant: a node begins once all that it waits for has ended, in the order of the journal, so a replay begins the same
nodes in the same order. Each node has the key that the graph gives it, whatever runs beside it.
"""

from collections.abc import Collection, Hashable
from typing import Any

from durable_core import Fault
from sagas.model.definition import is_saga, is_step
from sagas.model.graph import GraphDef, Node, Ref
from sagas.model.phases import Phase
from sagas.runtime.flow import Release, flow
from sagas.runtime.saga import Saga, driver_of


class Walk:
    """One graph as it runs: the values that its nodes have brought so far."""

    __slots__ = ("_ctx", "_definition", "_driver", "_keys", "_saga", "_tokens", "_values")

    def __init__(self, definition: GraphDef[...], saga: Saga, given: tuple[Any, ...]) -> None:
        self._definition = definition
        self._saga = saga
        self._driver = driver_of(saga)
        self._ctx = self._driver.ctx
        self._keys = {node: self._ctx.claim_key(node.name) for node in definition.nodes}
        self._values: dict[Node | None, Any] = {None: given[0] if given else None}
        self._tokens: dict[Node, str | None] = {}

    async def run(self) -> Any:
        """Run all nodes; returns the output."""
        plan = self._definition.plan
        first, pivots, last = plan.stages
        await self._stage(first)
        self._refuse_two([node for node in pivots if node.when is None or self._holds(node, node.when)])
        for node in pivots:
            await self._node(node, _nobody)  # alone: what would run beside it could neither be undone nor go forward
        await self._stage([node for node in last if node not in pivots])
        output = self._definition.output
        return None if output is None else self._value(output)

    def _refuse_two(self, chosen: Collection[Node]) -> None:
        """Two pivots whose conditions are both true: the first one would happen, and the second one never could."""
        if len(chosen) > 1:
            names = " and ".join(repr(node.key) for node in chosen)
            self._ctx.refuse(
                Fault(
                    f"saga {self._ctx.id}: the conditions of the pivots {names} are all true; a saga has one point "
                    "of no return. None of them has begun",
                    f"Run `sagas rollback {self._ctx.id}`, and give the graph a new version whose conditions exclude "
                    "each other",
                )
            )

    async def _stage(self, nodes: Collection[Node]) -> None:
        """Run these nodes, those that do not depend on each other side by side."""
        mine = set(nodes)
        if mine:
            await flow(self._ctx, {node: [e for e in node.waits_for() if e[0] in mine] for node in nodes}, self._node)

    async def _node(self, node: Node, release: Release) -> None:
        if node.when is None or self._holds(node, node.when):
            self._values[node] = await self._outcome(node, release)
        else:
            self._values[node] = self._tokens[node] = None
            release((node, True))
        release((node, False))

    def _holds(self, node: Node, when: Ref[Any]) -> bool:
        """Whether the node's condition is true; that of a node that was skipped itself is not."""
        value = self._value(when)
        if value is None or isinstance(value, bool):
            return bool(value)
        way_back = (
            "" if self._driver.phase is Phase.PAST_PIVOT else f"; or undo it with `sagas rollback {self._ctx.id}`"
        )
        return self._ctx.refuse(
            Fault(
                f"saga {self._ctx.id}: the condition of {node.described} is {when.described}, whose result is a "
                f"{type(value).__name__}, not a bool, so it has not begun",
                f"Put a @lookup between them that takes this result and returns a bool, then run `sagas retry "
                f"{self._ctx.id}`: it goes on with the graph loaded then{way_back}",
            )
        )

    async def _outcome(self, node: Node, release: Release) -> Any:
        key = self._keys[node]
        if node.span is not None:
            return await self._ctx.sleep(node.span, key=key)
        if node.kind == "callback":
            return await self._callback(node, key, release)
        args = tuple(map(self._value, node.args))
        kwargs = {name: self._value(value) for name, value in node.kwargs.items()}
        if is_step(node.what_runs):
            return await self._driver.run_in_branch(node.what_runs, args, kwargs, key)
        assert is_saga(node.what_runs)  # noqa: S101 - a node runs nothing else
        return await self._driver.run_child(self._saga, node.what_runs, args, kwargs, key)

    async def _callback(self, node: Node, key: str, release: Release) -> Any:
        pending = self._ctx.callback(node.name, node.answer, timeout=node.timeout, heartbeat=node.heartbeat, key=key)
        self._tokens[node] = pending.token
        release((node, True))
        return await self._ctx.wait_for(pending)

    def _value(self, given: Any) -> Any:
        """What an argument stands for."""
        if not isinstance(given, Ref):
            return given
        return self._tokens[given.node] if given.is_token and given.node is not None else self._values[given.node]


def _nobody(event: Hashable) -> None:
    """Nothing waits for a pivot within its stage."""
