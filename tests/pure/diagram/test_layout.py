"""The layout: nothing overlaps, everything goes forward, and the same picture is laid out the same."""

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from sagas.diagram.layout import Cell, Gaps, Layout, laid_out
from sagas.diagram.picture import Edge, Mark, Picture

GAPS = Gaps(layers=30, nodes=20, bends=10)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    """Any nodes with any edges: also in circles, to themselves and to nowhere."""
    size = draw(st.integers(1, 14))
    number = st.integers(0, size - 1)
    pairs = draw(st.lists(st.tuples(number, number, st.sampled_from(["flow", "flow", "flow", "back"])), max_size=30))
    return Picture(
        title="any",
        nodes=tuple(Mark(key=str(place), label=f"n{place}", kind="step") for place in range(size)),
        edges=tuple(Edge(source=str(one), target=str(other), kind=kind) for one, other, kind in pairs),  # type: ignore[arg-type]
    )


def cell(key: str) -> Cell:
    """Cells of several sizes, by the number in the key."""
    number = int(key)
    return Cell(along=20.0 + number % 3 * 10, out=20.0, before=10.0, after=10.0 + number % 4 * 15)


def boxes(layout: Layout) -> dict[str, tuple[float, float, float, float]]:
    """The rectangle of each node: along from and to, across from and to."""
    return {
        key: (along, along + cell(key).along, across - cell(key).before, across + cell(key).after)
        for key, (along, across) in layout.places.items()
    }


@given(picture=pictures())
def test_no_two_nodes_overlap(picture: Picture):
    """Every node has its place, apart from all others, within the whole."""
    layout = laid_out(picture, cell, GAPS)
    found = boxes(layout)
    assert found.keys() == {mark.key for mark in picture.nodes}
    for one, other in combinations(found.values(), 2):
        assert one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] + 1e-6 or other[3] <= one[2] + 1e-6
    for along, end, across, side in found.values():
        assert -1e-6 <= along <= end <= layout.length + 1e-6
        assert -1e-6 <= across <= side <= layout.breadth + 1e-6


@given(picture=pictures())
def test_every_edge_has_a_way(picture: Picture):
    """Each edge has one way; it goes forward, but for those that close a circle, which run beside the nodes."""
    layout = laid_out(picture, cell, GAPS)
    assert sorted(id(track.edge) for track in layout.tracks) == sorted(map(id, picture.edges))
    for track in layout.tracks:
        if not track.back:
            assert all(one[0] <= other[0] for one, other in pairwise(track.points))
            assert layout.places[track.edge.source][0] < layout.places[track.edge.target][0]


@given(picture=pictures())
def test_a_way_against_the_flow_crosses_no_node(picture: Picture):
    """An edge back to an earlier node goes around all nodes: it touches only those that it joins."""
    layout = laid_out(picture, cell, GAPS)
    found = boxes(layout)
    for track in layout.tracks:
        others = [box for key, box in found.items() if key not in (track.edge.source, track.edge.target)]
        for one, other in pairwise(track.points if track.back else ()):
            low, high = sorted((one[0], other[0]))
            left, right = sorted((one[1], other[1]))
            for box in others:
                apart = high <= box[0] or box[1] <= low or right <= box[2] + 1e-6 or box[3] <= left + 1e-6
                assert apart


@given(picture=pictures(), centred=st.booleans(), rails_first=st.booleans())
def test_the_same_picture_is_laid_out_the_same(picture: Picture, centred: bool, rails_first: bool):  # noqa: FBT001
    """A layout depends on nothing but the picture and the options."""
    one, other = (laid_out(picture, cell, GAPS, centred=centred, rails_first=rails_first) for _ in range(2))
    assert one == other


def test_a_chain_is_a_straight_line():
    """Nodes of one size that follow each other stand in one line, beside another such line."""
    nodes = tuple(Mark(key=str(place), label="n", kind="step") for place in range(9))
    pairs = ["01", "02", "13", "34", "45", "26", "57", "67", "78"]
    edges = tuple(Edge(source=one, target=other) for one, other in pairs)
    layout = laid_out(Picture(title="", nodes=nodes, edges=edges), lambda _: cell("0"), GAPS)
    across = {key: round(place[1], 3) for key, place in layout.places.items()}
    assert across["1"] == across["3"] == across["4"] == across["5"]
    assert across["2"] == across["6"]
    assert across["7"] == across["8"]


def test_crowded_layers_give_nodes_to_later_ones():
    """Many nodes that need not be early are spread over the layers, so that a picture is not wider than it must be."""
    chain = [(f"{n}", f"{n + 1}") for n in range(9)]
    loose = [pair for n in range(10, 30) for pair in (("0", f"{n}"), (f"{n}", "9"))]
    nodes = tuple(Mark(key=str(place), label="n", kind="step") for place in range(30))
    edges = tuple(Edge(source=one, target=other) for one, other in [*chain, *loose])
    layout = laid_out(Picture(title="", nodes=nodes, edges=edges), cell, GAPS)
    starts = [place[0] for place in layout.places.values()]
    assert max(starts.count(start) for start in starts) <= 5
