"""Networks as graphs, and messages on them event by event: the slow truth behind the closed forms.

A network is a mapping from a node to its neighbours; ranks are the whole numbers from 0, switches are tuples. A
link has a capacity, in links of a chip. Nothing here comes from the package.
"""

import collections
import heapq
import itertools

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_flow, shortest_path


def grid_sides(n, dimensions):
    if n & (n - 1) == 0:
        bits = n.bit_length() - 1
        longer = bits % dimensions
        return [2 ** (bits // dimensions + 1)] * longer + [2 ** (bits // dimensions)] * (dimensions - longer)
    side = round(n ** (1 / dimensions))
    assert side**dimensions == n
    return [side] * dimensions


def grid(sides, wraps):
    """A torus or mesh; a ring has one side, a hypercube sides of two."""
    links = collections.defaultdict(dict)
    places = list(itertools.product(*map(range, sides)))
    rank = {place: i for i, place in enumerate(places)}
    for place in places:
        links[rank[place]]
        for axis, side in enumerate(sides):
            step = list(place)
            step[axis] += 1
            if step[axis] == side:
                if not wraps or side <= 2:
                    continue
                step[axis] = 0
            other = rank[tuple(step)]
            if other != rank[place]:
                links[rank[place]][other] = links[other][rank[place]] = 1.0
    return links


def fully_connected(n):
    return {i: {j: 1.0 for j in range(n) if j != i} for i in range(n)}


def tree(radix, tiers, keeps):
    """A full tree; a subtree of tier l has keeps^l links up, in links of a chip."""
    links = collections.defaultdict(dict)
    for tier in range(tiers):
        for i in range(radix ** (tiers - tier)):
            below = i if tier == 0 else ("switch", tier, i)
            above = ("switch", tier + 1, i // radix)
            links[below][above] = links[above][below] = keeps**tier
    return links


def dragonfly(group, groups):
    """Groups fully connected inside; chip (own - other - 1) mod groups of a group, folded, goes to another."""
    links = collections.defaultdict(dict)
    for g in range(groups):
        for i, j in itertools.combinations(range(group), 2):
            links[g * group + i][g * group + j] = links[g * group + j][g * group + i] = 1.0
    for g, other in itertools.combinations(range(groups), 2):
        here = g * group + (other - g - 1) % groups % group
        there = other * group + (g - other - 1) % groups % group
        links[here][there] = links[there][here] = 1.0
    return links


def ranks_of(links):
    return sorted(node for node in links if not isinstance(node, tuple))


def distances(links, source):
    found, queue = {source: 0}, collections.deque([source])
    while queue:
        node = queue.popleft()
        for other in links[node]:
            if other not in found:
                found[other] = found[node] + 1
                queue.append(other)
    return found


def mean_and_diameter(links):
    index = {node: i for i, node in enumerate(links)}
    ends = [(index[a], index[b]) for a, others in links.items() for b in others]
    graph = csr_matrix((np.ones(len(ends)), np.transpose(ends)), shape=(len(index), len(index)))
    ranks = [index[rank] for rank in ranks_of(links)]
    found = shortest_path(graph, unweighted=True, indices=ranks)[:, ranks]
    return found.sum() / (len(ranks) * (len(ranks) - 1)), found.max()


def cut_between(links, half):
    """The largest flow, and so the least cut, from one half of the ranks to the other."""
    index = {node: i for i, node in enumerate(links)}
    scale, size = 10_000, len(index) + 2
    rows, columns, data = [], [], []

    def join(a, b, capacity):
        rows.append(a)
        columns.append(b)
        data.append(round(capacity * scale))

    for node, others in links.items():
        for other, capacity in others.items():
            join(index[node], index[other], capacity)
    for rank in ranks_of(links):
        join(*((size - 2, index[rank]) if rank in half else (index[rank], size - 1)), 1000)
    graph = csr_matrix((np.array(data, np.int32), (rows, columns)), shape=(size, size))
    return maximum_flow(graph, size - 2, size - 1).flow_value / scale


def bisection(links, tries=0, seed=0):
    """The least cut over all halvings, or over those that a search by exchanges finds from many starts."""
    ranks = ranks_of(links)
    n = len(ranks)
    direct = len(ranks) == len(links)
    if n <= (12 if direct else 8):
        cut = _cut if direct else cut_between
        return min(cut(links, set(half)) for half in itertools.combinations(ranks, n // 2))
    if not direct:
        return cut_between(links, set(ranks[: n // 2]))
    rng = np.random.default_rng(seed)
    best = _cut(links, set(ranks[: n // 2]))
    matrix = np.zeros((n, n))
    for a, others in links.items():
        for b, capacity in others.items():
            matrix[a, b] = capacity
    laplacian = np.diag(matrix.sum(1)) - matrix
    _, vectors = np.linalg.eigh(laplacian)
    starts = [np.argsort(vectors[:, 1:5] @ rng.normal(size=4)) for _ in range(tries)]
    starts += [np.argsort(vectors[:, k]) for k in range(1, 5)]
    for order in starts:
        best = min(best, _exchange(matrix, order))
    return best


def _cut(links, half):
    return sum(c for a in half for b, c in links[a].items() if b not in half)


def _exchange(matrix, order):
    """Kernighan and Lin: exchange the best pair until none is better."""
    n = len(order)
    sign = np.ones(n)
    sign[order[: n // 2]] = -1
    while True:
        gain = -(matrix @ sign) * sign  # outer minus inner links
        a, b = np.flatnonzero(sign < 0), np.flatnonzero(sign > 0)
        gains = gain[a][:, None] + gain[b][None, :] - 2 * matrix[np.ix_(a, b)]
        i, j = np.unravel_index(np.argmax(gains), gains.shape)
        if gains[i, j] <= 1e-9:
            return matrix[sign < 0][:, sign > 0].sum()
        sign[a[i]], sign[b[j]] = 1, -1


class Simulation:
    """Messages with dependencies, each over its route; first come first served.

    A link of capacity c is c lanes as fast as a chip's link, each carrying one message at a time.

    A message leaves when all it depends on has arrived, waits out the software `overhead`, and its head moves a
    hop each `latency`; a lane of every link on the way is then busy for its bytes, so an undisturbed message takes
    overhead + hops latency + bytes per_byte (cut-through).
    """

    def __init__(self, links, *, overhead, latency, per_byte):
        self.links, self.overhead, self.latency, self.per_byte = links, overhead, latency, per_byte
        self.messages, self.routes = [], {}

    def send(self, source, target, size, after=(), route=None, delay=None):
        """Add a message; returns its number, to depend on."""
        route = route or self.route(source, target)
        self.messages.append((route, size, tuple(after), self.overhead if delay is None else delay))
        return len(self.messages) - 1

    def route(self, source, target):
        """One of the shortest ways, the same each time; ties are spread by the ends' numbers."""
        key = source, target
        if key not in self.routes:
            to = self.__dict__.setdefault("_to", {})
            if target not in to:
                to[target] = distances(self.links, target)
            node, way = source, [source]
            while node != target:
                nearer = [x for x in self.links[node] if to[target][x] == to[target][node] - 1]
                node = nearer[(hash((source, target)) if len(nearer) > 1 else 0) % len(nearer)]
                way.append(node)
            self.routes[key] = way
        return self.routes[key]

    def run(self):
        """Return when the last message has arrived."""
        waiting = [len(set(after)) for _, _, after, _ in self.messages]
        wakes = collections.defaultdict(list)
        for i, (_, _, after, _) in enumerate(self.messages):
            for j in set(after):
                wakes[j].append(i)
        ready = [0.0] * len(self.messages)
        free = {(a, b): [0.0] * max(int(c), 1) for a, others in self.links.items() for b, c in others.items()}
        events = [(m[3], i) for i, m in enumerate(self.messages) if waiting[i] == 0]
        heapq.heapify(events)
        last = 0.0
        while events:
            start, i = heapq.heappop(events)
            route, size, _, _ = self.messages[i]
            head, end = start, start
            for a, b in itertools.pairwise(route):
                busy, lanes = size * self.per_byte, free[a, b]
                lane = min(range(len(lanes)), key=lanes.__getitem__)
                head = max(head, lanes[lane])
                lanes[lane] = head + busy
                head += self.latency
                end = max(end, head + busy)
            last = max(last, end)
            for j in wakes[i]:
                waiting[j] -= 1
                ready[j] = max(ready[j], end)
                if waiting[j] == 0:
                    heapq.heappush(events, (ready[j] + self.messages[j][3], j))
        assert not any(waiting)
        return last
