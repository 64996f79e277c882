"""A participant that is killed while its call is under way: its effect is done, and nothing committed."""

import sys
import time

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from sagas.participant import once, undo


def main(url: str, options: str, what: str) -> None:
    """Reach the middle of a block, or its end just before the commit, and stay there."""
    engine = create_engine(url, connect_args={"options": options} if options else {})
    with Session(engine) as session:
        block = undo(session, "undo", of="late") if what == "undo" else once(session, "step", request="r", answer=int)
        with block as call:
            session.execute(text("INSERT INTO effect (key, by) VALUES ('step', 1)"))
            call.answer = 1 if what != "undo" else None
            if what == "once, in the block":
                stay()
        stay()


def stay() -> None:
    """Until killed."""
    print("here", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
