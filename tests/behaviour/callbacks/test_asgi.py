"""Answers over HTTP: by a client in the same process, and by sockets to a real server."""

import asyncio
import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from sagas import CallbackFailed, DefinitionError, Orchestrator, SagaCompensated, SagaStatus, StoreError, blocking
from sagas.asgi import callbacks
from tests import forked
from tests.behaviour.callbacks import callback_scenes as on
from tests.behaviour.callbacks.callback_scenes import kinds, on_stage, plain, waiting, watched

ROOT = Path(__file__).parents[3]
YES = {"ok": True, "by": "bob"}


def client_of(app: Any) -> httpx.AsyncClient:
    """A client of an app in this process."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def at_the_door(
    url: str, definition: Any = plain, *args: Any, **options: Any
) -> AsyncGenerator[tuple[httpx.AsyncClient, str, Any]]:
    """A client of the app of a worker's own orchestrator, and a waiting saga's token and handle."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, definition, *args)
        async with client_of(callbacks(orchestrator, **options)) as client:
            yield client, token, handle


async def test_an_answer_is_taken_once_and_repeating_it_is_harmless(url: str):
    """204, again 204 whatever the layout of the JSON, 409 for another answer, and the saga has the first."""
    async with at_the_door(url) as (client, token, handle):
        for body in ('{"ok": true, "by": "bob"}', '{"by":"bob","ok":true}'):
            taken = await client.post(
                "/complete", content=body, headers={**bearer(token), "Content-Type": "application/json"}
            )
            assert (taken.status_code, taken.content) == (204, b"")
        other = await client.post("/complete", json={**YES, "by": "eve"}, headers=bearer(token))
        assert other.status_code == 409
        assert (await client.post("/heartbeat", headers=bearer(token))).status_code == 409
        assert await handle.result(timeout=20) == "bob"


@pytest.mark.parametrize("how", ["json", "text"])
async def test_a_failure_is_raised_in_the_body(url: str, how: str):
    """``POST /fail`` with JSON or plain text: the body sees ``CallbackFailed`` with the message."""
    async with at_the_door(url) as (client, token, handle):
        if how == "json":
            failed = await client.post("/fail", json={"message": "tøo dear"}, headers=bearer(token))
        else:
            told = {**bearer(token), "Content-Type": "text/plain; charset=utf-8"}
            failed = await client.post("/fail", content="tøo dear".encode(), headers=told)
        assert failed.status_code == 204
        with pytest.raises(SagaCompensated) as raised:
            await handle.result(timeout=20)
        assert isinstance(raised.value.__cause__, CallbackFailed)
        assert raised.value.__cause__.answer == "tøo dear"


async def test_a_heartbeat_keeps_it_waiting(url: str):
    """``POST /heartbeat`` is journalled on its 204."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, watched, None)
        async with client_of(callbacks(orchestrator)) as client:
            for _ in range(3):
                await clock.advance(50)
                assert (await client.post("/heartbeat", headers=bearer(token))).status_code == 204
        assert await kinds(handle, "heartbeat") == 3
        assert (await handle.info()).status is SagaStatus.WAITING


async def test_unknown_forged_and_expired_look_the_same(url: str):
    """One status, one body, byte for byte, on all three paths."""
    async with on_stage(url) as (orchestrator, clock):
        _, token = await waiting(orchestrator, clock, plain)
        _, expired = await waiting(orchestrator, clock, plain, id="b")
        await orchestrator.cancel("b")
        await clock.idle()
        seen: set[tuple[int, bytes, str]] = set()
        async with client_of(callbacks(orchestrator)) as client:
            for wrong in (expired, token[:-1], "x", "f" * 30 + "-AAAA", "0" * 5000, token.swapcase()):
                for path, body in (("complete", YES), ("fail", {"message": "no"}), ("heartbeat", None)):
                    answer = await client.post(f"/{path}", json=body, headers=bearer(wrong))
                    seen.add((answer.status_code, answer.content, str(sorted(answer.headers.items()))))
        assert len(seen) == 1
        assert seen.pop()[0] == 404


BAD: list[tuple[int, str, dict[str, Any]]] = [
    (401, "complete", {"json": YES, "headers": {}}),
    (401, "complete", {"json": YES, "headers": {"Authorization": "{token}"}}),
    (401, "complete", {"json": YES, "headers": {"Authorization": "Bearer"}}),
    (401, "complete", {"json": YES, "headers": {"Authorization": "Bearer  "}}),
    (401, "complete", {"json": YES, "headers": {"Authorization": "Basic {token}"}}),
    (401, "complete", {"json": YES, "headers": [("Authorization", "Bearer {token}"), ("Authorization", "Bearer x")]}),
    (415, "complete", {"content": b"ok=1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}),
    (415, "complete", {"content": b"1"}),
    (415, "fail", {"content": b"no", "headers": {"Content-Type": "text/html"}}),
    (400, "complete", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    (400, "complete", {"content": b"", "headers": {"Content-Type": "application/json"}}),
    (400, "complete", {"content": b"NaN", "headers": {"Content-Type": "application/json"}}),
    (400, "complete", {"content": b'"\xff"', "headers": {"Content-Type": "application/json"}}),
    (400, "complete", {"content": b"[" * 3000, "headers": {"Content-Type": "application/json"}}),
    (400, "fail", {"content": b"\xff", "headers": {"Content-Type": "text/plain"}}),
    (422, "complete", {"json": {"ok": "perhaps"}}),
    (422, "complete", {"content": b"null", "headers": {"Content-Type": "application/json"}}),
    (422, "complete", {"content": b"1" * 100, "headers": {"Content-Type": "application/json"}}),
    (422, "fail", {"json": {"message": 7}}),
    (422, "fail", {"json": ["no"]}),
    (422, "fail", {"json": {"massage": "no"}}),
    (413, "complete", {"json": "x" * 5000}),
    (413, "fail", {"content": b"x" * 5000, "headers": {"Content-Type": "text/plain"}}),
    (404, "nowhere", {"json": YES}),
    (404, "", {"json": YES}),
]


@pytest.mark.parametrize(("status", "path", "request_"), BAD)
async def test_what_is_wrong_is_refused_and_changes_nothing(
    status: int, path: str, request_: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    """Each by its status, with a message for people and never a token in it; the saga keeps waiting."""
    caplog.set_level(logging.DEBUG)

    async with at_the_door("memory://", limit=4000) as (client, token, handle):
        before = len(await handle.history())
        given = request_.get("headers", {})
        pairs = [
            (name, value.format(token=token)) for name, value in (given.items() if isinstance(given, dict) else given)
        ]
        if status != 401:
            pairs += bearer(token).items()
        answer = await client.post(f"/{path}", **{**request_, "headers": pairs})
        assert answer.status_code == status, answer.text
        assert len(answer.json()["message"]) > 5
        assert (answer.headers.get("WWW-Authenticate") == "Bearer") is (status == 401)
        assert token not in answer.text
        assert token not in caplog.text
        assert len(await handle.history()) == before
        assert (await client.post("/complete", json=YES, headers=bearer(token))).status_code == 204


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_only_post_is_taken(method: str):
    """405, with what is allowed."""
    async with at_the_door("memory://") as (client, token, _handle):
        answer = await client.request(method, "/complete", headers=bearer(token))
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "9"])
def test_a_limit_that_is_no_number_of_bytes_is_refused(limit: Any):
    """No app is made that would refuse every body, or fail at the first request."""
    with pytest.raises(DefinitionError, match="limit="):
        callbacks(Orchestrator("memory://", worker=False), limit=limit)


async def test_a_body_without_a_length_is_cut_off_at_the_limit():
    """An endless body is refused after the limit, and is not read to its end."""
    sent = 0

    async def endless() -> AsyncGenerator[bytes]:
        nonlocal sent
        while sent < 1_000_000_000:
            sent += 1000
            yield b"1" * 1000

    async with on_stage("memory://") as (orchestrator, clock):
        _, token = await waiting(orchestrator, clock, plain)
        app, chunks, told = callbacks(orchestrator, limit=5000), endless(), list[Any]()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": await anext(chunks), "more_body": True}

        async def send(message: Any) -> None:
            told.append(message)

        headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/complete",
            "raw_path": b"/complete", "root_path": "", "scheme": "http", "query_string": b"", "headers": headers,
        }  # fmt: skip
        await app(scope, receive, send)
        assert told[0]["status"] == 413
        assert sent == 6000


async def test_it_can_be_mounted_beneath_a_prefix():
    """In another Starlette (or FastAPI) application, with its own paths beside it."""
    async with on_stage("memory://") as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, plain)
        async with client_of(Starlette(routes=[Mount("/hooks/sagas", callbacks(orchestrator))])) as client:
            assert (await client.post("/complete", json=YES, headers=bearer(token))).status_code == 404
            assert (await client.post("/hooks/sagas/complete", json=YES, headers=bearer(token))).status_code == 204
        assert await handle.result(timeout=20) == "bob"


async def test_it_takes_a_blocking_orchestrator(tmp_path: Path):
    """A web application that has one mounts that; the app's own loop is not blocked."""
    url = f"sqlite:///{tmp_path}/c.db"

    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, plain)
        outside = blocking.Orchestrator(url, worker=False)
        await asyncio.to_thread(outside.__enter__)
        try:
            async with client_of(callbacks(outside)) as client:
                wrong = await client.post("/complete", json=7, headers=bearer(token))
                assert wrong.status_code == 422
                assert (await client.post("/complete", json=YES, headers=bearer(token))).status_code == 204
        finally:
            await asyncio.to_thread(outside.__exit__, None, None, None)
        assert await handle.result(timeout=20) == "bob"


@pytest.mark.usefixtures("impatient")
async def test_without_a_worker_it_says_that_the_answer_is_kept(url: str):
    """202: durable, and nobody has checked it yet."""
    async with on_stage(url, worker=False) as (outside, clock):
        async with Orchestrator(url, sagas=on.SAGAS, clock=clock, grace=1) as first:
            _, token = await waiting(first, clock, plain)
        async with client_of(callbacks(outside)) as client:
            kept = await client.post("/complete", json=YES, headers=bearer(token))
            assert kept.status_code == 202
            assert (await client.post("/complete", json={**YES, "ok": False}, headers=bearer(token))).status_code == 409
        async with Orchestrator(url, sagas=on.SAGAS, clock=clock, grace=1):
            assert await (await outside.get("a")).result(timeout=20) == "bob"


async def test_a_store_that_does_not_answer_is_503(url: str):
    """With ``Retry-After``, and nothing of the store's troubles."""
    async with at_the_door(url) as (client, token, handle):
        store = handle._client.runtime.store

        async def broken(_num: int) -> None:
            raise StoreError("disk of host db-7 is on fire", transient=True)

        store.runs.find_num, works = broken, store.runs.find_num
        answer = await client.post("/complete", json=YES, headers=bearer(token))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "db-7" not in answer.text
        store.runs.find_num = works
        assert (await client.post("/complete", json=YES, headers=bearer(token))).status_code == 204


def test_importing_it_without_starlette_names_the_extra():
    """A clear ``ImportError``; the rest of the package needs no Starlette."""
    code = """
import sys
sys.modules["starlette"] = None
import sagas
try:
    import sagas.asgi
except ImportError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pip install 'durable-sagas[dashboard]'" in told


SERVER = """
import socket, sys
from contextlib import asynccontextmanager
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from sagas import Orchestrator
from sagas.asgi import callbacks

orchestrator = Orchestrator(sys.argv[1], worker=False)

@asynccontextmanager
async def lifespan(app):
    async with orchestrator:
        yield

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
app = Starlette(lifespan=lifespan, routes=[Mount("/callbacks", callbacks(orchestrator))])
uvicorn.Server(uvicorn.Config(app, log_level="trace", timeout_graceful_shutdown=1)).run(sockets=[listener])
"""


def serving(url: str, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as errors:
        return forked.Process(
            [sys.executable, "-c", SERVER, url],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=errors,
        )


@pytest.mark.slow
async def test_a_real_server_beside_a_real_worker(tmp_path: Path):
    """Uvicorn in a process of its own, the worker in this one: answers arrive, too much is cut, no log has a token."""
    url, log = f"sqlite:///{tmp_path}/c.db", tmp_path / "server.log"

    on.WORLD = on.World()
    async with Orchestrator(url, sagas=on.SAGAS, grace=1) as orchestrator:
        handle = await orchestrator.start(plain, id="a")
        while not on.WORLD.tokens:  # noqa: ASYNC110 - a step's own turn
            await asyncio.sleep(0.001)
        (token,) = on.WORLD.tokens
        server = serving(url, log)
        try:
            assert server.stdout is not None
            port = int(await asyncio.to_thread(server.stdout.readline))
            base = f"http://127.0.0.1:{port}/callbacks"
            async with httpx.AsyncClient(base_url=base, headers=bearer(token), trust_env=False, timeout=30) as client:
                assert (await client.post("/complete", json={"ok": 1})).status_code == 422
                assert (await client.post("/complete", json="x" * 2_000_000)).status_code == 413
                assert (await client.post("/heartbeat")).status_code == 204
                told = await asyncio.gather(*(client.post("/complete", json=YES) for _ in range(20)))
                assert {answer.status_code for answer in told} == {204}
                assert (await client.post("/complete", json={**YES, "ok": False})).status_code == 409
                assert await handle.result(timeout=20) == "bob"
                assert (await client.post("/complete", json=YES)).status_code == 204, "a repeat, after the end"
        finally:
            server.terminate()
            accesses, _ = server.communicate(timeout=20)
    written = log.read_text() + accesses.decode()
    assert re.search(r"POST /callbacks/complete.* 204", written)
    assert token not in written


def test_the_page_lists_what_the_app_answers():
    """docs/how-to/callbacks-over-http.md has a row for each path and each status."""
    page = (ROOT / "docs/how-to/callbacks-over-http.md").read_text()
    paths = {route.path for route in callbacks(Orchestrator("memory://", worker=False)).routes}  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `POST (/\w+)` \|", page, re.MULTILINE)) == paths
    statuses = {int(found) for found in re.findall(r"^\| (\d{3}) \|", page, re.MULTILINE)}
    assert statuses == {status for status, _, _ in BAD} | {202, 204, 405, 409, 503}
