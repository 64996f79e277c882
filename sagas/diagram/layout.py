"""Where the nodes and edges of a picture go: layers along the flow, and places across it.

After Sugiyama, Tagawa & Toda (1981): layers by longest path, fewer crossings by barycentres, then places as near to the
neighbours as there is room. Invariant: linear in nodes and edges, but for sorting, so that ten thousand nodes are drawn
in seconds; no two nodes overlap.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import attrs

from sagas.diagram.picture import Edge, Picture

SWEEPS = 12
COUNTED = 4_000
"""Edges up to which crossings are counted, to keep the best order; in a larger picture the last one is taken."""
CROWDED = 4
"""Nodes that a layer has before some are moved to later ones."""
REACH = 40
"""Layers that are looked at for each."""
BENDS = 20_000
"""Places of long edges, all in all. In a very large picture the longest edges go straight."""
TURN, OFFSET = 9.0, 10.0
"""How far an edge against the flow goes beyond its layer, and how far it keeps from the edges along it."""
LOOSE = 0.01
"""How much a node without neighbours wants to stay where it is."""
KINK = 30.0
"""How far two may be out of line and be put into one."""
STRAIGHT = 8.0
"""How much more an edge between two bends pulls than one between two nodes."""


@attrs.frozen
class Cell:
    """The room that a node takes."""

    along: float
    """Its length in the direction of the flow."""
    out: float
    """Where edges leave it, from its beginning."""
    before: float
    """Across the flow, from the line of its edges to its first side."""
    after: float
    """To its other side."""


@attrs.frozen
class Gaps:
    """The room between things."""

    layers: float
    nodes: float
    bends: float


Neighbours = Sequence[Sequence[int]] | Mapping[int, Sequence[int]]
Point = tuple[float, float]
"""Along and across the flow."""


@attrs.frozen
class Track:
    """The way of one edge."""

    edge: Edge
    points: tuple[Point, ...]
    back: bool
    """It goes against the flow, beside the nodes: from the side of its source to the side of its target."""


@attrs.frozen(kw_only=True)
class Layout:
    """Where everything is."""

    places: Mapping[str, Point]
    """The beginning of each node, on the line of its edges."""
    tracks: Sequence[Track]
    length: float
    breadth: float
    layers: int


def laid_out(
    picture: Picture, cell: Callable[[str], Cell], gaps: Gaps, *, centred: bool = False, rails_first: bool = False
) -> Layout:
    """Lay a picture out.

    Args:
        picture: its nodes and edges; the undo lane is part of the nodes' cells.
        cell: the room of each node, by its key.
        gaps: the room between them.
        centred: put each node into the middle of its layer instead of its beginning.
        rails_first: edges against the flow run before the nodes, not after them.
    """
    net = _Net.of(picture)
    net.add_bends()
    _reduce_crossings(net)
    room = [cell(key) for key in net.keys]
    across = _Places(net, room, gaps).placed()
    starts, ends = _along(net, room, gaps)
    frame = _Frame(net=net, room=room, across=across, starts=starts, ends=ends, centred=centred)
    tracks = [*frame.forward(), *frame.rails(gaps.bends, first=rails_first)]
    return _moved(frame, tracks, room)


@attrs.define(eq=False)
class _Net:
    """Nodes and bends by number; bends come after the nodes."""

    keys: list[str]
    layer: list[int]
    up: list[list[int]]
    down: list[list[int]]
    forward: list[tuple[Edge, int, int]]
    against: list[tuple[Edge, int, int]]
    order: list[list[int]]
    """The nodes and bends of each layer, from one side to the other."""
    ways: dict[int, list[int]] = attrs.field(factory=dict[int, list[int]])
    """The bends of each forward edge, by its place among them."""

    @classmethod
    def of(cls, picture: Picture) -> "_Net":
        keys = [node.key for node in picture.nodes]
        number = {key: place for place, key in enumerate(keys)}
        numbered = [(edge, number[edge.source], number[edge.target]) for edge in picture.edges]
        ahead = [each for each in numbered if each[0].kind != "back" and each[1] != each[2]]
        closing = _closing(len(keys), [(source, target) for _, source, target in ahead])
        forward = [each for place, each in enumerate(ahead) if place not in closing]
        kept = {id(each[0]) for each in forward}
        pairs = [(source, target) for _, source, target in forward]
        layer = _balanced(_layers(len(keys), pairs), pairs)
        return cls(
            keys=keys,
            layer=layer,
            up=[[] for _ in keys],
            down=[[] for _ in keys],
            forward=forward,
            against=[each for each in numbered if id(each[0]) not in kept],
            order=[[] for _ in range(max(layer, default=-1) + 1)],
        )

    def add_bends(self) -> None:
        """Cut each long edge into pieces from one layer to the next, as far as there are bends to give."""
        left = BENDS
        spans = [
            (self.layer[target] - self.layer[source], place) for place, (_, source, target) in enumerate(self.forward)
        ]
        for span, place in sorted(spans):
            _, source, target = self.forward[place]
            if span - 1 > left:
                continue
            left -= span - 1
            way = [self._bend(self.layer[source] + step) for step in range(1, span)]
            self.ways[place] = way
            for one, other in pairwise([source, *way, target]):
                self.down[one].append(other)
                self.up[other].append(one)
        self._first_order()

    def _bend(self, layer: int) -> int:
        self.layer.append(layer)
        self.up.append([])
        self.down.append([])
        return len(self.layer) - 1

    def _first_order(self) -> None:
        """In the order of a walk that goes deep first: what belongs together stands together."""
        seen = [False] * len(self.layer)
        for root in sorted(range(len(self.layer)), key=lambda number: self.layer[number]):
            todo = [root]
            while todo:
                number = todo.pop()
                if not seen[number]:
                    seen[number] = True
                    self.order[self.layer[number]].append(number)
                    todo += reversed(self.down[number])


def _closing(size: int, edges: Sequence[tuple[int, int]]) -> set[int]:
    """The edges that close a cycle, by their place: those to a node on the way that a walk has come."""
    after: list[list[tuple[int, int]]] = [[] for _ in range(size)]
    for place, (source, target) in enumerate(edges):
        after[source].append((target, place))
    state = [0] * size  # not seen, on the way, done
    found: set[int] = set()
    for root in range(size):
        if state[root]:
            continue
        state[root] = 1
        way = [(root, iter(after[root]))]
        while way:
            number, rest = way[-1]
            target, place = next(rest, (-1, -1))
            if target < 0:
                state[number] = 2
                way.pop()
            elif state[target] == 1:
                found.add(place)
            elif not state[target]:
                state[target] = 1
                way.append((target, iter(after[target])))
    return found


def _layers(size: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The length of the longest path to each node."""
    after: list[list[int]] = [[] for _ in range(size)]
    missing = [0] * size
    for source, target in edges:
        after[source].append(target)
        missing[target] += 1
    layer = [0] * size
    ready = [number for number in range(size) if not missing[number]]
    for number in ready:  # which grows
        for target in after[number]:
            layer[target] = max(layer[target], layer[number] + 1)
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    return layer


def _balanced(layer: list[int], edges: Sequence[tuple[int, int]]) -> list[int]:
    """Move nodes from crowded layers to later ones, as far as what comes after them allows."""
    after: list[list[int]] = [[] for _ in layer]
    for source, target in edges:
        after[source].append(target)
    crowd = [0] * (max(layer, default=-1) + 1)
    for each in layer:
        crowd[each] += 1
    for number in sorted(range(len(layer)), key=lambda each: -layer[each]):
        own = layer[number]
        last = min((layer[target] for target in after[number]), default=own + 1)
        if crowd[own] > CROWDED and last - own > 1:
            best = min(range(own, min(last, own + REACH)), key=lambda each: (max(crowd[each], CROWDED), each))
            crowd[own], crowd[best] = crowd[own] - 1, crowd[best] + 1
            layer[number] = best
    return layer


# -- fewer crossings ---------------------------------------------------------------------------------------------------


def _reduce_crossings(net: _Net) -> None:
    """Order each layer by the middle of its neighbours, down and up in turn."""
    counts = sum(map(len, net.down)) <= COUNTED
    best, fewest = [[*layer] for layer in net.order], _crossings(net) if counts else 0
    place = [0] * len(net.layer)
    for layer in net.order:
        _number(layer, place)
    for sweep in range(SWEEPS if counts else SWEEPS // 3):
        neighbours, layers = (net.up, net.order) if sweep % 2 == 0 else (net.down, net.order[::-1])
        for layer in layers:
            layer.sort(key=lambda number: _middle(neighbours[number], place, place[number]))
            _number(layer, place)
        if counts and (crossings := _crossings(net)) < fewest:
            best, fewest = [[*layer] for layer in net.order], crossings
    if counts:
        net.order[:] = best


def _middle(neighbours: Sequence[int], place: Sequence[int], own: int) -> float:
    return sum(place[each] for each in neighbours) / len(neighbours) if neighbours else own


def _number(layer: Iterable[int], place: list[int]) -> None:
    for position, number in enumerate(layer):
        place[number] = position


def _crossings(net: _Net) -> int:
    """How many pairs of edges cross, by inversions in a Fenwick tree (Barth, Juenger & Mutzel 2002)."""
    place = [0] * len(net.layer)
    for layer in net.order:
        _number(layer, place)
    total = 0
    for upper, lower in pairwise(net.order):
        tree = [0] * (len(lower) + 1)
        seen = 0
        for number in upper:
            targets = [place[each] for each in net.down[number]]
            for target in targets:
                total += seen - _sum_to(tree, target + 1)
            for target in targets:
                _add_at(tree, target + 1)
            seen += len(targets)
    return total


def _sum_to(tree: Sequence[int], place: int) -> int:
    total = 0
    while place:
        total += tree[place]
        place -= place & -place
    return total


def _add_at(tree: list[int], place: int) -> None:
    while place < len(tree):
        tree[place] += 1
        place += place & -place


# -- places across the flow --------------------------------------------------------------------------------------------


class _Places:
    """Finds a place across the flow for each node and bend: near its neighbours, and apart from those beside it."""

    def __init__(self, net: _Net, room: Sequence[Cell], gaps: Gaps) -> None:
        self._net = net
        self._nodes = len(room)
        size = len(net.layer)
        self._before = [room[each].before if each < self._nodes else 0.0 for each in range(size)]
        self._after = [room[each].after if each < self._nodes else 0.0 for each in range(size)]
        self._gaps = gaps
        self._across = [0.0] * size
        self._apart = [self._distances(layer) for layer in net.order]

    def placed(self) -> list[float]:
        """The places, by number."""
        for layer, apart in zip(self._net.order, self._apart, strict=True):
            middle = (apart[-1] if apart else 0.0) / 2
            for number, distance in zip(layer, apart, strict=True):
                self._across[number] = distance - middle
        net, sweeps = self._net, SWEEPS if len(self._across) <= COUNTED else SWEEPS // 3
        both = [[*up, *down] for up, down in zip(net.up, net.down, strict=True)]
        for sweep in range(sweeps):
            neighbours = both if sweep >= sweeps - 2 else net.up if sweep % 2 == 0 else net.down
            places = range(len(net.order))
            for place in places if sweep % 2 == 0 else reversed(places):
                self._place(place, neighbours)
        for place, layer in enumerate(net.order):
            self._place(place, {number: self._chained(number) for number in layer}, stay=1.0)
        return self._across

    def _distances(self, layer: Sequence[int]) -> list[float]:
        """How far each must at least be from the first of its layer."""
        found = [0.0] if layer else []
        for one, other in pairwise(layer):
            is_bend = one >= self._nodes or other >= self._nodes
            gap = self._gaps.bends if is_bend else self._gaps.nodes
            found.append(found[-1] + self._after[one] + gap + self._before[other])
        return found

    def _chained(self, number: int) -> Sequence[int]:
        """What is almost straight before it, where nothing else is: at last the two stand in one line."""
        above = self._net.up[number]
        if len(above) != 1 or self._pull(number, above[0]) != STRAIGHT:
            return ()
        return above if abs(self._across[above[0]] - self._across[number]) < KINK else ()

    def _place(self, place: int, neighbours: Neighbours, stay: float = LOOSE) -> None:
        layer, apart = self._net.order[place], self._apart[place]
        wanted = [self._wanted(number, neighbours[number], stay) for number in layer]
        found = _ascending(
            [want - distance for (want, _), distance in zip(wanted, apart, strict=True)], [pull for _, pull in wanted]
        )
        for number, base, distance in zip(layer, found, apart, strict=True):
            self._across[number] = base + distance

    def _wanted(self, number: int, neighbours: Sequence[int], stay: float) -> tuple[float, float]:
        """Where it would stand alone, and how much that matters; ``stay``: to one without neighbours."""
        if not neighbours:
            return self._across[number], stay
        pulls = [self._pull(number, each) for each in neighbours]
        total = sum(pulls)
        return sum(self._across[each] * pull for each, pull in zip(neighbours, pulls, strict=True)) / total, total

    def _pull(self, one: int, other: int) -> float:
        """How much an edge between these wants to be straight: a bend, or one node that follows one node."""
        up, down = self._net.up, self._net.down
        if one >= self._nodes and other >= self._nodes:
            return STRAIGHT
        upper, lower = (one, other) if self._net.layer[one] < self._net.layer[other] else (other, one)
        return STRAIGHT if len(down[upper]) == 1 and len(up[lower]) == 1 else 1.0


def _ascending(wanted: Sequence[float], pulls: Sequence[float]) -> list[float]:
    """The ascending numbers that are nearest to these, by pooling neighbours that are out of order (Kruskal 1964)."""
    pools: list[tuple[float, float, int]] = []
    for want, pull in zip(wanted, pulls, strict=True):
        total, weight, members = want * pull, pull, 1
        while pools and pools[-1][0] / pools[-1][1] > total / weight:
            before = pools.pop()
            total, weight, members = total + before[0], weight + before[1], members + before[2]
        pools.append((total, weight, members))
    return [total / weight for total, weight, members in pools for _ in range(members)]


# -- the whole ---------------------------------------------------------------------------------------------------------


def _along(net: _Net, room: Sequence[Cell], gaps: Gaps) -> tuple[list[float], list[float]]:
    """Where each layer begins and ends along the flow."""
    starts: list[float] = []
    ends: list[float] = []
    at = 0.0
    for layer in net.order:
        length = max((room[number].along for number in layer if number < len(room)), default=0.0)
        starts.append(at)
        ends.append(at + length)
        at += length + gaps.layers
    return starts, ends


@attrs.frozen(kw_only=True)
class _Frame:
    """Everything that has its place by now, and from which the ways of the edges follow."""

    net: _Net
    room: Sequence[Cell]
    across: Sequence[float]
    starts: Sequence[float]
    ends: Sequence[float]
    centred: bool

    def begin(self, number: int) -> float:
        """Where a node begins along the flow."""
        layer = self.net.layer[number]
        spare = self.ends[layer] - self.starts[layer] - self.room[number].along
        return self.starts[layer] + (spare / 2 if self.centred else 0.0)

    def forward(self) -> Iterable[Track]:
        """The ways of the edges along the flow: straight within a layer, bent between two of them."""
        net = self.net
        for place, (edge, source, target) in enumerate(net.forward):
            points = [(self.begin(source) + self.room[source].out, self.across[source])]
            points.append((self.ends[net.layer[source]], self.across[source]))
            for bend in net.ways.get(place, ()):
                points += [(at[net.layer[bend]], self.across[bend]) for at in (self.starts, self.ends)]
            points.append((self.starts[net.layer[target]], self.across[target]))
            points.append((self.begin(target), self.across[target]))
            yield Track(edge, tuple(dict.fromkeys(points)), back=False)

    def rails(self, gap: float, *, first: bool) -> Iterable[Track]:
        """The ways against the flow, beside all that stands in their layers, the short ones nearest."""
        net, sign = self.net, -1.0 if first else 1.0
        sides = [self._side(layer, sign) for layer in net.order]
        spans = sorted(net.against, key=lambda each: abs(net.layer[each[1]] - net.layer[each[2]]))
        for edge, source, target in spans:
            low, high = sorted((net.layer[source], net.layer[target]))
            beside = max(sides[low : high + 1]) + gap
            sides[low : high + 1] = [beside] * (high - low + 1)
            rail = sign * beside
            points = [*self._leaving(source, rail, sign), *self._arriving(target, rail, sign)]
            yield Track(edge, tuple(points), back=True)

    def _leaving(self, number: int, rail: float, sign: float) -> list[Point]:
        """From a node to the rail beside it: from its side, or where others stand there, from its end."""
        if self._is_outer(number, sign):
            along = self.begin(number) + self.room[number].out * 0.65
            return [(along, self._edge(number, sign)), (along, rail)]
        across = self.across[number] + sign * OFFSET
        along = self.ends[self.net.layer[number]] + TURN
        return [(self.begin(number) + self.room[number].out, across), (along, across), (along, rail)]

    def _arriving(self, number: int, rail: float, sign: float) -> list[Point]:
        if self._is_outer(number, sign):
            along = self.begin(number) + self.room[number].out * 0.35
            return [(along, rail), (along, self._edge(number, sign))]
        across = self.across[number] + sign * OFFSET
        along = self.starts[self.net.layer[number]] - TURN
        return [(along, rail), (along, across), (self.begin(number), across)]

    def _is_outer(self, number: int, sign: float) -> bool:
        """Whether nothing stands between a node and the rails."""
        layer = self.net.order[self.net.layer[number]]
        return layer[-1 if sign > 0 else 0] == number

    def _edge(self, number: int, sign: float) -> float:
        return self.across[number] + (self.room[number].after if sign > 0 else -self.room[number].before)

    def _side(self, layer: Sequence[int], sign: float) -> float:
        nodes = len(self.room)
        sides = [self._edge(each, sign) if each < nodes else self.across[each] for each in layer]
        return max((sign * side for side in sides), default=0.0)


def _moved(frame: _Frame, tracks: Sequence[Track], room: Sequence[Cell]) -> Layout:
    """Everything so that it begins at 0."""
    across = frame.across[: len(room)]
    bends = [point[1] for track in tracks for point in track.points]
    low = min((*(at - cell.before for at, cell in zip(across, room, strict=True)), *bends), default=0.0)
    high = max((*(at + cell.after for at, cell in zip(across, room, strict=True)), *bends), default=0.0)
    places = {key: (frame.begin(number), across[number] - low) for number, key in enumerate(frame.net.keys)}
    return Layout(
        places=places,
        tracks=[
            attrs.evolve(track, points=tuple((along, place - low) for along, place in track.points)) for track in tracks
        ],
        length=frame.ends[-1] if frame.ends else 0.0,
        breadth=high - low,
        layers=len(frame.starts),
    )
