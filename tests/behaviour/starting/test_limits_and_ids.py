"""What is no number of sagas, and what is no id, is refused wherever one is given, and nothing is done."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from durable_core import Context, DefinitionError, Engine, durable
from durable_core.engine.retention import Purging
from durable_core.model.run import RunQuery
from sagas import Orchestrator, Saga, blocking, saga
from sagas.cli import main


@saga("order", version=1)
async def order(s: Saga) -> None: ...


@durable("job", version=1)
async def job(ctx: Context) -> None: ...


BAD_LIMITS = [-1, True, False, 1.0, "3", 1 << 63]
BAD_IDS = ["a/b", "/", "a/", "/b"]


async def listed(limit: Any) -> None:
    async with Orchestrator("memory://", sagas=[order]) as running:
        await running.list(limit=limit)


async def purged(limit: Any) -> None:
    async with Orchestrator("memory://", sagas=[order]) as running:
        await running.purge(older_than=0, limit=limit)


async def counted(limit: Any) -> None:
    async with Orchestrator("memory://", sagas=[order]) as running:
        await running.purge(older_than=0, limit=limit, dry_run=True)


async def listed_by_the_core(limit: Any) -> None:
    async with Engine("memory://", [job]) as engine:
        await engine.list(limit=limit)


async def purged_by_the_core(limit: Any) -> None:
    async with Engine("memory://", [job]) as engine:
        await engine.runs.purge(before_ns=1, limit=limit)


async def blocked(limit: Any) -> None:
    def call() -> None:
        with blocking.Orchestrator("memory://", sagas=[order]) as running:
            running.list(limit=limit)

    await asyncio.to_thread(call)


@pytest.mark.parametrize("limit", BAD_LIMITS)
@pytest.mark.parametrize("call", [listed, purged, counted, listed_by_the_core, purged_by_the_core, blocked])
async def test_a_bad_limit_is_refused(call: Callable[[Any], Awaitable[None]], limit: object):
    """Negative, a bool, no whole number, or too large for a store: DefinitionError, which names what was given."""
    with pytest.raises(DefinitionError, match="limit=") as refused:
        await call(limit)
    assert repr(limit) in str(refused.value)


async def test_a_limit_of_none_is_all_and_of_zero_none():
    """What is a number of sagas, or None, is taken as it stands."""
    async with Orchestrator("memory://", sagas=[order], worker=False) as running:
        for number in range(120):
            await running.start(order, id=str(number))
        assert [len(await running.list(limit=limit)) for limit in (None, 0, 1, 1_000)] == [120, 0, 1, 120]
        assert len(await running.list()) == 100


@pytest.mark.parametrize("limit", BAD_LIMITS)
def test_the_rule_is_that_of_the_query_itself(limit: Any):
    """No query or purge with a bad limit can be made, so no layer above can forget to look."""
    for made in (RunQuery(), Purging(before_ns=1, id_retention_ns=None)):
        with pytest.raises(DefinitionError, match="limit="):
            attrs.evolve(made, limit=limit)


@pytest.mark.parametrize("command", [("list",), ("purge", "--older-than", "1d")])
@pytest.mark.parametrize("limit", ["-1", "0", "true", "1.5"])
def test_commands_refuse_a_bad_limit(
    command: tuple[str, ...], limit: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """Exit code 2, and the message names `--limit`."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--limit", limit, "--store", f"sqlite:///{tmp_path}/sagas.db"])
    assert ended.value.code == 2
    assert "--limit" in capsys.readouterr().err


@pytest.mark.parametrize("id", BAD_IDS)
@pytest.mark.parametrize("worker", [True, False])
async def test_an_id_that_could_be_a_childs_address_is_refused(id: str, worker: bool):  # noqa: FBT001
    """`t/kid` is the child `kid` of `t`, so no saga and no run of the core may be started under an id with `/`."""
    async with Orchestrator("memory://", sagas=[order], worker=worker) as running:
        with pytest.raises(DefinitionError, match="/") as refused:
            await running.start(order, id=id)
        assert repr(id) in str(refused.value)
        assert await running.count() == 0
    async with Engine("memory://", [job], worker=worker) as engine:
        with pytest.raises(DefinitionError, match="/"):
            await engine.start(job, id=id)
        assert await engine.count() == 0


def test_the_command_start_refuses_such_an_id(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Exit code 2, the reason on stderr, and no saga in the store."""
    module = tmp_path / "shop_of_slashes.py"
    module.write_text('from sagas import saga\n@saga("order", version=1)\nasync def order(s): ...\n', encoding="utf-8")
    store = f"sqlite:///{tmp_path}/sagas.db"
    for id in BAD_IDS:
        with pytest.raises(SystemExit) as ended:
            main(["start", "order", "--module", str(module), "--id", id, "--store", store])
        assert ended.value.code == 2
        assert repr(id) in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["list", "--store", store])
    assert "No saga" in capsys.readouterr().out
