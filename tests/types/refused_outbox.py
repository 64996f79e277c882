"""What a user's type checker must refuse of an outbox. Checked, never run.

Above a wrong line stand the rules that report it. Both checkers must report exactly these lines by these rules.
"""

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from sagas import Saga, saga
from sagas.outbox import Outbox


@saga("order", version=1)
async def order(s: Saga, what: str) -> str:
    """Of a text."""
    return what


def wrong(session: Session) -> None:
    """Each of these is refused at run time as well."""
    outbox = Outbox(create_engine("sqlite://"))
    # error: mypy[misc] pyright[reportCallIssue, reportArgumentType]
    outbox.start(session, order, 7)
    # error: mypy[arg-type] pyright[reportCallIssue]
    outbox.start(session, order)
    # error: mypy[call-overload] pyright[reportCallIssue, reportArgumentType]
    outbox.start(session, "order", "tea")
    # error: mypy[type-var] pyright[reportArgumentType]
    Outbox("sqlite:///shop.db")
