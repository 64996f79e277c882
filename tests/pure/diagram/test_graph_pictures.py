"""Pictures of graphs: exactly their nodes and references."""

import pytest

from sagas import SagaGraph
from sagas.diagram.formats import drawn, picture_of
from sagas.diagram.graphs import graph_picture
from tests.pure.diagram.scenes import Trip, car, far, flight, flow, lines, mail, pay, trip


def test_a_graph_is_its_nodes_and_references():
    """One node for each of the graph's, one edge for each that it waits for; what waits for nothing begins."""
    assert flow(graph_picture(trip())) == lines(
        """
        start > car
        start > far
        far ?> flight: if true
        car > pay
        flight > pay
        pay > mail
        mail > end
        """
    )


def test_what_nothing_waits_for_comes_before_the_pivot():
    """The pivot runs alone, after all that does not depend on it: so it is drawn, though no reference says so."""
    g = SagaGraph("trip", version=1, input=Trip)
    g.step(car, g.input)
    booked = g.step(flight, g.input)
    g.pivot(pay, g.input, booked)
    g.returns()
    assert "car > pay" in flow(graph_picture(g))
    assert "car > end" not in flow(graph_picture(g))


def test_the_undo_lane_and_the_pivot():
    """Each step with a compensation has it, a pivot and what comes after has none."""
    picture = graph_picture(trip())
    assert {undo.serves: undo.label for undo in picture.undos} == {"car": "cancel_car", "flight": "cancel_flight"}
    assert [mark.key for mark in picture.nodes if mark.note == "point of no return"] == ["pay"]


def test_drawing_leaves_the_graph_open():
    """A graph that was drawn can be added to, and its picture then has the new node."""
    g = SagaGraph("trip", version=1, input=Trip)
    booked = g.step(car, g.input)
    assert g.diagram("dot")
    g.pivot(pay, g.input, booked)
    assert "pay" in g.diagram("dot")


def test_a_faulty_graph_is_drawn_as_well():
    """A cycle, a reference of another graph and no node at all: the picture shows what is there."""
    g = SagaGraph("trip", version=1, input=Trip)
    after = [trip().lookup(far, Trip("Rome"))]  # of another graph
    one = g.lookup(far, g.input, after=after)
    after.append(g.lookup(far, g.input, after=[one]))
    edges = flow(graph_picture(g))
    assert "far > far#2" in edges
    assert "far#2 > far" in edges
    for form in ("mermaid", "dot", "svg", "bpmn"):
        assert g.diagram(form)
        assert SagaGraph("empty", version=1).diagram(form)


def test_a_graph_within_a_graph_is_one_node():
    """A child is a node, undone whole; one with a pivot is the point of no return."""
    g = SagaGraph("outer", version=1, input=Trip)
    inner = SagaGraph("inner", version=1, input=Trip)
    inner.step(car, inner.input)
    inner.returns()
    g.step(inner, g.input)
    paid = g.pivot(trip(), g.input)
    g.retriable(mail, paid)
    picture = picture_of(g)
    assert [(mark.key, mark.kind, mark.note) for mark in picture.nodes if mark.kind == "child"] == [
        ("inner", "child", ""),
        ("trip", "child", "point of no return"),
    ]
    assert [undo.serves for undo in picture.undos] == ["inner"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "form", "count"),
    [("wide", "mermaid", 10_000), ("long", "dot", 10_000), ("long", "svg", 2_000), ("wide", "bpmn", 2_000)],
)  # both kinds are laid out, by the same code for both formats, in a time that grows with their size
def test_thousands_of_nodes(kind: str, form: str, count: int):
    """A graph of thousands of nodes is drawn in every format, each node once; where none is placed, of ten thousand."""
    g = SagaGraph("large", version=1, input=Trip)
    refs = [g.lookup(far, g.input)]
    for place in range(1, count):
        before = [refs[place // 2], refs[place * 7 // 8]] if kind == "wide" else [refs[place // 2], refs[-1]]
        refs.append(g.lookup(far, g.input, after=before))
    assert drawn(graph_picture(g), form).count("far#") >= count - 1


def test_a_sleep_says_how_long():
    """In the words of a run's durations."""
    g = SagaGraph("nap", version=1)
    g.returns(g.sleep(90))
    assert [mark.note for mark in graph_picture(g).nodes if mark.kind == "sleep"] == ["1 min 30 s"]


def test_a_child_is_undone_for_a_step_in_it_that_is():
    """Whatever else it does: waits have nothing to undo."""
    child = SagaGraph("child", version=1, input=Trip)
    child.returns(child.step(car, child.input, after=[child.sleep(1)]))
    g = SagaGraph("parent", version=1, input=Trip)
    g.returns(g.step(child, g.input))
    assert [undo.serves for undo in graph_picture(g).undos] == ["child"]
