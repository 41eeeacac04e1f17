"""Collective algorithms as messages with dependencies, for `networks.Simulation`. Nothing comes from the package."""

import itertools

from tests import networks


def cycles(name, ranks):
    """Directed cycles through all ranks that share no link, as lists of ranks."""
    if name == "ring":
        return [list(range(ranks)), list(range(ranks))[::-1]]
    if name == "fully-connected" and ranks % 2:  # Walecki's
        half, hub, found = (ranks - 1) // 2, ranks - 1, []
        for k in range(half):
            zigzag = [(k + (i + 1) // 2 * (-1) ** (i + 1)) % (ranks - 1) for i in range(ranks - 1)]
            found += [[hub, *zigzag], [hub, *zigzag][::-1]]
        return found
    return [list(range(ranks))]


def ring(sim, size, orders, passes):
    """Each cycle carries its share; `passes` is 1 for a gather, 2 for an all-reduce."""
    for order in orders:
        n = len(order)
        chunk, before = size / len(orders) / n, [()] * n
        for _ in range(passes * (n - 1)):
            sent = [sim.send(order[i], order[(i + 1) % n], chunk, before[i]) for i in range(n)]
            before = [(sent[i - 1],) for i in range(n)]


def grid_ring(sim, size, sides, wraps, passes):
    """Dimension by dimension, a stream for every port, each taking the dimensions in an order of its own."""
    places = list(itertools.product(*map(range, sides)))
    rank = {place: i for i, place in enumerate(places)}
    axes = [a for a, side in enumerate(sides) if side > 1]
    ways = (1, -1) if wraps and min(sides) > 2 else (1,)
    for turn in range(len(axes)):
        for way in ways:
            order = axes[turn:] + axes[:turn]
            held, phases = size / len(axes) / len(ways), []
            for axis in order:
                held /= sides[axis]
                phases.append((axis, held))
            if passes == 2:
                phases += phases[::-1]
            before = {place: () for place in places}
            for axis, chunk in phases:
                side = sides[axis]

                def step(place, by, axis=axis, side=side):
                    other = list(place)
                    other[axis] = (other[axis] + by) % side
                    return tuple(other)

                for _ in range(side - 1):
                    sent = {p: sim.send(rank[p], rank[step(p, way)], chunk, before[p]) for p in places}
                    before = {p: (sent[step(p, -way)],) for p in places}


def doubling(sim, size, ranks):
    before = [()] * ranks
    for j in range(ranks.bit_length() - 1):
        sent = [sim.send(i, i ^ 2**j, size, before[i]) for i in range(ranks)]
        before = [(sent[i], sent[i ^ 2**j]) for i in range(ranks)]


def halving(sim, size, ranks, passes):
    before = [()] * ranks
    rounds = [(j, size / 2 ** (j + 1)) for j in range(ranks.bit_length() - 1)]
    for j, part in rounds + (rounds[::-1] if passes == 2 else []):
        sent = [sim.send(i, i ^ 2**j, part, before[i]) for i in range(ranks)]
        before = [(sent[i], sent[i ^ 2**j]) for i in range(ranks)]


def direct(sim, size, ranks, part=1.0, passes=1):
    """Every pair at once: a part of the size each. Twice: the second time after all that a rank received."""
    before = [()] * ranks
    for _ in range(passes):
        got = [[] for _ in range(ranks)]
        for k in range(1, ranks):
            for i in range(ranks):
                got[(i + k) % ranks].append(sim.send(i, (i + k) % ranks, size * part, before[i]))
        before = [tuple(x) for x in got]


def in_network(sim, size, links, segments):
    """Switches add what comes from below, pass it up, and send the sum back down, a segment at a time."""
    above = {
        node: next(
            o for o in others if isinstance(o, tuple) and (not isinstance(node, tuple) or o[1] > node[1])
        )
        for node, others in links.items()
        if any(isinstance(o, tuple) and (not isinstance(node, tuple) or o[1] > node[1]) for o in others)
    }
    below = {}
    for node, parent in above.items():
        below.setdefault(parent, []).append(node)
    order = sorted(below, key=lambda s: s[1])
    for _ in range(segments):
        part = size / segments
        arrived = {node: () for node in networks.ranks_of(links)}
        up = {node: sim.send(node, above[node], part) for node in arrived}
        for switch in order:
            got = tuple(up[child] for child in below[switch])
            if switch in above:
                up[switch] = sim.send(switch, above[switch], part, got, delay=0.0)
            else:
                top = got
        down = {order[-1]: top}
        for switch in order[::-1]:
            for child in below[switch]:
                down[child] = (sim.send(switch, child, part, down[switch], delay=0.0),)


def multicast(sim, size, links):
    """The root's message copied by the switches: every rank's copy takes the way of a single message."""
    for rank in networks.ranks_of(links)[1:]:
        sim.send(0, rank, 0.0)
    sim.send(0, networks.ranks_of(links)[-1], size)


def binomial(sim, size, ranks):
    """Halve the distance each round."""
    has, distance = {0: ()}, ranks // 2
    while distance:
        new = {i + distance: (sim.send(i, i + distance, size, after),) for i, after in has.items()}
        has = {i: (*after, *new[i + distance]) for i, after in has.items()} | new
        distance //= 2


def scatter_gather(sim, size, ranks):
    scattered = [sim.send(0, i, size / ranks) for i in range(1, ranks)]
    for k in range(1, ranks):
        for i in range(ranks):
            sim.send(i, (i + k) % ranks, size / ranks, scattered)


def double_tree(sim, size, ranks, segments):
    """Two binary trees over all ranks but a root of their own, the leaves of one inside the other (Sanders et al.)."""
    for shift in (0, 1):
        parent, children = _in_order(ranks - 1)
        name = [(i + shift) % (ranks - 1) for i in range(ranks - 1)]
        top = next(i for i in range(ranks - 1) if parent[i] is None)
        for _ in range(segments):
            part, up = size / 2 / segments, {}
            for i in sorted(range(ranks - 1), key=_height):
                got = tuple(up[c] for c in children[i])
                target = ranks - 1 if parent[i] is None else name[parent[i]]
                up[i] = sim.send(name[i], target, part, got)
            down = {top: (sim.send(ranks - 1, name[top], part, (up[top],)),)}
            for i in sorted(range(ranks - 1), key=lambda i: -_height(i)):
                for c in children[i]:
                    down[c] = (sim.send(name[i], name[c], part, down[i]),)


def _height(i):
    return ((i + 1) & -(i + 1)).bit_length()


def _in_order(n):
    """The in-order binary tree of n = 2^k - 1 nodes from 0."""
    parent, children = [None] * n, [[] for _ in range(n)]
    for i in range(n):
        step = (i + 1) & -(i + 1)
        above = ((i + 1 - step) | (2 * step)) - 1 if step * 2 <= n else None
        if above is not None and above < n:
            parent[i] = above
            children[above].append(i)
    return parent, children
