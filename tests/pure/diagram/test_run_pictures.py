"""Pictures of runs: each step at its place, with what became of it, and counts over many runs."""

from typing import Any

import attrs
import pytest

from sagas import StepState
from sagas.diagram.coded import coded_picture
from sagas.diagram.graphs import graph_picture
from sagas.diagram.picture import Counts, Mark, Picture, length
from sagas.diagram.runs import observed_picture, run_picture
from tests.pure.diagram.scenes import coded, flow, lines, run, state, trip, undone

ORDER = """
await s.run(reserve)
if x > 1:
    await s.run(book)
await s.run(charge)
await s.run(ship)
"""


def marks(picture: Picture) -> dict[str, Mark]:
    return {mark.key: mark for mark in (*picture.nodes, *picture.undos)}


def definition(body: str) -> Picture:
    return coded_picture(coded(body))


def test_a_completed_run_on_its_definition():
    """Steps that ran have their state, attempts and duration; those of the other arm are not reached."""
    info = run(state("reserve", end=2.5), state("charge", begin=3, end=3.2, kind="pivot", attempts=3), state("ship"))
    drawn = run_picture(info, definition(ORDER))
    found = marks(drawn)
    assert drawn.title == "order o-1"
    assert drawn.subtitle == "version 1 · completed"
    assert (found["reserve"].state, found["reserve"].duration_s) == ("succeeded", 2.5)
    assert (found["charge"].state, found["charge"].attempts) == ("succeeded", 3)
    assert (found["book"].state, found["book~undo"].state) == ("unreached", "unreached")
    assert found["reserve~undo"].state == ""
    assert found["end/"].state == "succeeded"


def test_the_way_that_was_not_taken_is_faded():
    """Of a choice, the arm that the run took stands out."""
    drawn = run_picture(run(state("reserve"), state("charge"), state("ship")), definition(ORDER))
    faded = {edge.target for edge in drawn.edges if edge.faded}
    assert faded == {"book"} | {edge.target for edge in drawn.edges if edge.source == "book"}


def test_a_rollback_is_in_the_undo_lane():
    """What was undone says so at the step, and its compensation has a state, attempts and a duration of its own."""
    info = run(undone("reserve", attempts=2), undone("book", status="failed"), status="stuck")
    found = marks(run_picture(info, definition(ORDER)))
    assert (found["reserve"].state, found["reserve~undo"].state, found["reserve~undo"].attempts) == (
        "compensated",
        "succeeded",
        2,
    )
    assert found["reserve~undo"].duration_s == 1
    assert (found["book"].state, found["book~undo"].state) == ("compensation_failed", "compensation_failed")
    assert found["end/"].state == "unreached"


def test_a_step_that_is_skipped_or_whose_child_was_undone():
    """A skipped compensation is marked as skipped; a child has no compensation of its own, and counts as undone."""
    failed = state("reserve~undo", "failed", kind="compensation")
    info = run(
        state("reserve", "skipped", compensation=failed),
        state("booking", "compensated", kind="child"),
        status="resolved",
    )
    found = marks(run_picture(info, definition("await s.run(reserve)\nawait s.run(booking)")))
    assert found["reserve~undo"].state == "skipped"
    assert found["booking~undo"].state == "succeeded"


def test_an_undo_under_way():
    """While a compensation runs the step is as it was, and the undo lane says that it runs."""
    undo = state("reserve~undo", "running", 5, None, kind="compensation")
    info = run(state("reserve", compensation=undo), status="compensating")
    found = marks(run_picture(info, definition(ORDER)))
    assert (found["reserve"].state, found["reserve~undo"].state) == ("succeeded", "running")
    assert found["reserve~undo"].duration_s is None


def test_rounds_of_a_loop_stand_at_one_node():
    """A loop's steps are counted at its node: with the state of one that failed, else of one that is under way."""
    loop = definition("for item in items:\n    await s.run(book, item)")
    rounds = [state("book", end=1), state("book#2", begin=1, end=3), state("book#3", "running", 3, None)]
    found = marks(run_picture(run(*rounds, status="running"), loop))["book"]
    assert (found.times, found.state, found.duration_s) == (3, "running", None)
    rounds[1] = state("book#2", "failed", 1, 3)
    assert marks(run_picture(run(*rounds), loop))["book"].state == "failed"


def test_savepoints_and_branches_tell_steps_apart():
    """A step's scope says at which of several nodes of its name it stands, in any round of a loop."""
    body = "await s.run(book)\nfor i in items:\n    async with s.savepoint('courier'):\n        await s.run(book)"
    found = marks(run_picture(run(state("book"), state("courier/book"), state("courier#2/book")), definition(body)))
    assert (found["book"].times, found["courier/book"].times) == (1, 2)


@pytest.mark.parametrize(
    ("body", "steps", "reached"),
    [
        ("await s.run(book)\nawait s.run(look)\nawait s.run(book)", ["book", "look", "book#2"], ["book", "book#2"]),
        ("if x:\n    await s.run(look)\n    await s.run(book)\nelse:\n    await s.run(book)", ["book"], ["book#2"]),
        (
            "if x:\n    await s.run(look)\n    await s.run(book)\nelse:\n    await s.run(book)",
            ["look", "book"],
            ["book"],
        ),
    ],
)
def test_a_name_at_several_places_is_where_the_flow_leads(body: str, steps: list[str], reached: list[str]):
    """One key may stand at several places of a body; the steps before it say at which."""
    picture = run_picture(run(*(state(key) for key in steps)), definition(body))
    assert [mark.key for mark in picture.nodes if mark.label == "book" and mark.state == "succeeded"] == reached


def test_steps_that_the_definition_does_not_show_are_added():
    """They come after the node that could not be read, so that no step of a run is missing."""
    drawn = run_picture(run(state("reserve"), state("book")), definition("await elsewhere(s)"))
    assert "unreadable ?> reserve: seen in this run" in flow(drawn)
    assert {"reserve", "book"} <= marks(drawn).keys()
    undos = {undo.serves for undo in run_picture(run(undone("reserve")), definition("pass")).undos}
    assert undos == {"reserve"}


def test_a_graph_is_laid_under_by_its_keys():
    """A node that was skipped by its condition is not reached."""
    drawn = run_picture(
        run(state("car"), state("far"), state("pay", kind="pivot"), state("mail")), graph_picture(trip())
    )
    assert {key for key, mark in marks(drawn).items() if mark.state == "unreached"} == {"flight", "flight~undo"}


def test_a_run_alone_is_in_the_order_of_its_times():
    """Without a definition: what began after another had ended comes after it, what overlapped stands side by side."""
    steps = [state("a", end=1), state("b", begin=1, end=3), state("c", begin=2, end=4), state("d", begin=4, end=5)]
    assert flow(run_picture(run(*steps))) == lines(
        """
        start > a
        a > b
        a > c
        b > d
        c > d
        d > end
        """
    )


def test_many_beside_many_are_joined():
    """Where several steps wait for the same several, one join stands between them: not an edge for each pair."""
    first = [state(f"a#{n}", end=1) for n in range(1, 9)]
    then = [state(f"b#{n}", begin=2, end=3) for n in range(1, 9)]
    drawn = run_picture(run(*first, *then))
    assert [mark.kind for mark in drawn.nodes].count("join") == 1
    assert len(drawn.edges) == 8 * 4


def test_a_run_that_has_not_begun():
    """A run without steps is its start and its end."""
    assert flow(run_picture(run(status="pending"))) == "start > end"


def many(*outcomes: tuple[list[StepState], str]) -> list[Any]:
    return [run(*steps, status=status, run_id=f"o-{n}") for n, (steps, status) in enumerate(outcomes)]


def test_observed_counts_steps_undos_and_edges():
    """Each node, undo and edge has the number of runs that came there, failed there and were undone there."""
    good = [state("reserve"), state("charge"), state("ship")]
    long = [state("reserve"), state("book"), state("charge"), state("ship")]
    bad = [undone("reserve"), state("charge", "rejected")]
    worse = [undone("reserve"), undone("book", status="failed"), state("charge", "failed")]
    infos = many((good, "completed"), (good, "completed"), (long, "completed"), (bad, "compensated"), (worse, "stuck"))
    drawn = observed_picture(definition(ORDER), infos)
    found = {key: mark.counts for key, mark in marks(drawn).items() if mark.counts is not None}
    assert found == {
        "reserve": Counts(reached=5, undone=2),
        "reserve~undo": Counts(reached=2),
        "book": Counts(reached=2),
        "book~undo": Counts(reached=1, failed=1),
        "charge": Counts(reached=5, failed=2),
        "ship": Counts(reached=3),
    }
    counts = dict(zip(flow(drawn).splitlines(), (edge.count for edge in drawn.edges), strict=True))
    assert counts == {
        "start > reserve": 5,
        "reserve > choice": 5,
        "choice > book: yes": 2,
        "book > charge": 2,
        "choice > charge: no": 3,
        "charge > ship": 3,
        "ship > end": 3,
    }
    assert drawn.subtitle == "version 1 · 5 runs · 1 compensated · 3 completed · 1 stuck"


def test_observed_rounds_of_a_loop():
    """The edge to the next round counts the runs that took it."""
    loop = definition("for item in items:\n    await s.run(book, item)")
    infos = many(([], "completed"), ([state("book")], "completed"), ([state("book"), state("book#2")], "completed"))
    drawn = observed_picture(loop, infos)
    assert {edge.kind: edge.count for edge in drawn.edges if edge.source == "book"} == {"back": 1}
    assert [edge.count for edge in drawn.edges if edge.label == "next"] == [2]


def test_observed_of_a_graph():
    """An edge of a graph is taken where both of its ends were reached."""
    infos = many(([state("car"), state("far"), state("pay"), state("mail")], "completed"))
    drawn = observed_picture(graph_picture(trip()), infos)
    assert {edge.target for edge in drawn.edges if not edge.count} == {"flight"} | {
        edge.target for edge in drawn.edges if edge.source == "flight"
    } - {edge.target for edge in drawn.edges if edge.count} | {"pay"}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9996, "1 s"),
        (1.25, "1.2 s"),
        (59.94, "60 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_are_short(seconds: float, shown: str):
    """A duration has two figures at most."""
    assert length(seconds) == shown.replace("60 s", "1 min")


def test_every_state_of_a_step_can_be_drawn():
    """A status that pictures do not know is shown as unknown, a kind that they do not know as a step."""
    drawn = run_picture(run(attrs.evolve(state("odd", "novel"), kind="novel")))
    assert (marks(drawn)["odd"].state, marks(drawn)["odd"].kind) == ("unknown", "step")


def test_a_step_without_a_time_stands_beside_the_others():
    """What is not known to come after another step is not drawn after it, and none is left out."""
    steps = [state("a", started_at=None, status="pending", end=None), state("b"), state("c", begin=2, end=3)]
    assert sorted(flow(run_picture(run(*steps))).splitlines()) == [
        "a > end",
        "b > c",
        "c > end",
        "start > a",
        "start > b",
    ]


def test_a_step_beyond_the_last_of_its_places_stands_at_that():
    """A run of another version may have more of a name than the definition shows."""
    body = (
        "if x:\n    await s.run(look)\nelse:\n    await s.run(note)\nawait s.run(charge)\n" + "await s.run(book)\n" * 2
    )
    found = marks(run_picture(run(state("book"), state("book#2"), state("book#3")), definition(body)))
    assert (found["book"].times, found["book#2"].times) == (1, 2)


def taken(body: str, *steps: StepState) -> set[tuple[str, str]]:
    """The edges that a completed run took; gates by their kind."""
    drawn = observed_picture(definition(body), [run(*steps)])
    names = {
        mark.key: mark.kind if "/" in mark.key or mark.kind in ("start", "end") else mark.key for mark in drawn.nodes
    }
    return {(names[edge.source], names[edge.target]) for edge in drawn.edges if edge.count}


def test_a_round_that_ends_with_a_choice_is_counted():
    """Back from the choice to the head of the loop, where the step before it ran again."""
    body = "for item in items:\n    await s.run(book)\n    if x:\n        await s.run(note)"
    assert ("choice", "choice") in taken(body, state("book"), state("book#2"))
    assert ("note", "choice") not in taken(body, state("book"), state("book#2"))


def test_a_join_is_come_to_from_all_that_it_waits_for():
    """Each branch of a block that ran leads to its end."""
    body = "async with s.parallel() as p:\n    p.run(book)\n    p.run(reserve)"
    assert {("book", "join"), ("reserve", "join"), ("join", "end")} <= {
        (source, target.removesuffix("/")) for source, target in taken(body, state("book"), state("reserve"))
    }


def test_steps_that_the_definition_does_not_show_are_not_counted():
    """A picture of many runs has the definition's nodes only."""
    drawn = observed_picture(definition("await s.run(reserve)"), [run(state("reserve"), state("book"))])
    assert {key for key, mark in marks(drawn).items() if mark.counts and mark.counts.reached} == {"reserve"}


def test_a_child_of_waits_has_nothing_to_undo():
    """A child's steps are looked at, however often it is run and whatever else it does."""
    body = "await s.run(looking)\nawait s.sleep(1)\nawait s.run(booking)\nawait s.run(booking)"
    assert {undo.serves for undo in definition(body).undos} == {"booking", "booking#2"}
