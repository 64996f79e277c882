"""What `sagas.fastapi` makes of errors and keys; the how-to pages' tests show it in whole applications."""

from typing import Any

import attrs
import httpx
import pytest
from fastapi import FastAPI, Request, Response

from sagas import (
    CallbackNotFound,
    DefinitionError,
    KeyReused,
    Orchestrator,
    PayloadError,
    Saga,
    SagaNotFound,
    SagaPastPivot,
    SagasError,
    SagaStuck,
    StoreError,
    Undone,
    saga,
)
from sagas.fastapi import IdempotencyKey, SagaState, accepted, lifespan, problems


async def asked(app: FastAPI, path: str, **headers: str) -> httpx.Response:
    """One request; what the application raises is its 500."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        return await http.get(path, headers=headers)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SagaNotFound("no saga 'a'", run_id="a"), 404),
        (CallbackNotFound("no callback"), 404),
        (SagaPastPivot("past", run_id="a", status="running"), 409),
        (Undone("too late", key="k"), 410),
        (KeyReused("first used for SECRET", key="k"), 422),
        (PayloadError("not a number"), 422),
        (StoreError("postgresql://SECRET refused", transient=True), 503),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_an_error_is_a_problem(error: SagasError, status: int):
    """It has its status, its page, its code and its message, but nothing of other callers and of the database."""
    app = FastAPI()
    problems(app)

    @app.get("/")
    async def fails() -> None:
        raise error

    answer = await asked(app, "/")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == error.page
    assert (problem["title"], problem["status"], problem["code"]) == (type(error).__name__, status, error.code)
    assert problem["detail"] == error.message or "SECRET" in error.message
    assert "SECRET" not in answer.text
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


async def test_an_error_of_a_user_s_own_class():
    """A subclass has the status of its nearest class."""

    class Vanished(SagaNotFound):
        """The application's own."""

    app = FastAPI()
    problems(app)

    @app.get("/")
    async def fails() -> None:
        raise Vanished("gone", run_id="a")

    assert (await asked(app, "/")).status_code == 404


@pytest.mark.parametrize("error", [DefinitionError("wrong"), SagaStuck("stuck", run_id="a", reason="r")])
async def test_a_fault_of_the_application(error: SagasError):
    """Other errors are not the caller's: 500, and the server's log has them."""
    app = FastAPI()
    problems(app)

    @app.get("/")
    async def fails() -> None:
        raise error

    assert (await asked(app, "/")).status_code == 500


async def test_an_orchestrator_that_was_never_entered_is_a_fault_of_the_application():
    """500, and no invitation to try again; the log says what to write."""
    orchestrator = Orchestrator("memory://", sagas=[buy])
    app = FastAPI()
    problems(app)

    @app.get("/")
    async def start() -> str:
        return (await orchestrator.start(buy, 1)).id

    answer = await asked(app, "/")
    assert (answer.status_code, answer.headers.get("retry-after")) == (500, None)
    with pytest.raises(StoreError, match=r"this orchestrator is not open.*lifespan\(orchestrator\)"):
        await orchestrator.start(buy, 1)


async def test_the_key_of_a_request():
    """The header is the key, with or without quotation marks; without it, or with what is none, 400."""
    app = FastAPI()

    @app.get("/")
    def told(key: IdempotencyKey) -> str:
        return key

    assert (await asked(app, "/", **{"Idempotency-Key": "a-1"})).json() == "a-1"
    assert (await asked(app, "/", **{"Idempotency-Key": '"a-1"'})).json() == "a-1"
    for wrong in ({}, {"Idempotency-Key": ""}, {"Idempotency-Key": "k" * 256}, {"Idempotency-Key": '"'}):
        answer = await asked(app, "/", **wrong)
        assert answer.status_code == 400
        assert "Idempotency-Key" in answer.json()["detail"]


async def test_a_missing_key_is_a_problem_too():
    """With `problems`, it is answered as the errors of sagas are, and says what to send."""
    app = FastAPI()
    problems(app)

    @app.get("/")
    def told(key: IdempotencyKey) -> str:
        return key

    answer = await asked(app, "/")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    missing = "the header Idempotency-Key is missing; send the same one with each repeat of this request"
    assert answer.json() == {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": missing}


@attrs.frozen
class Receipt:
    """A saga's result."""

    number: int


@saga("buy", version=1)
async def buy(s: Saga, number: int) -> Receipt:
    """Ends at once."""
    s.set_status({"number": number})
    return Receipt(number)


async def test_a_start_is_accepted_and_its_state_is_shown():
    """202 with the address of the state, which has the result as plain JSON; the lifespan opens and closes."""
    orchestrator = Orchestrator("memory://", sagas=[buy])
    app = FastAPI(lifespan=lifespan(orchestrator))

    @app.get("/start/{id}")
    async def start(id: str, request: Request) -> Response:
        handle = await orchestrator.start(buy, 7, id=id)
        await handle.result(timeout=30)
        return accepted(id, request.url_for("show", id=id))

    @app.get("/sagas/{id}")
    async def show(id: str) -> SagaState:
        return SagaState.of(await orchestrator.info(id))

    async with app.router.lifespan_context(app):
        answer = await asked(app, "/start/a")
        assert (answer.status_code, answer.headers["location"]) == (202, "http://app/sagas/a")
        assert answer.json() == {"id": "a", "url": "http://app/sagas/a"}
        state: dict[str, Any] = (await asked(app, "/sagas/a")).json()
    assert state.pop("result") == {"number": 7}
    assert state.pop("detail") == {"number": 7}
    assert state == {"id": "a", "saga": "buy", "status": "completed", "cause": None, "reason": None}
