"""The oracle's network: topologies, collectives and where messages go, in plain Python."""

import math


def log2_ceil(n):
    rounds = 0
    while 2**rounds < n * (1 - 1e-9):
        rounds += 1
    return rounds


class Place:
    """n ranks on one level of a fabric: rounds, hops and loads, counted side by side and tier by tier."""

    NAMES = ("ring", "full", "switch", "fat", "tree", "torus", "mesh", "cube", "dragonfly")

    def __init__(self, link, n, level):
        self.n, self.kind = n, self.NAMES[round(link.topology)]
        self.sides, self.tiers, self.branches, self.narrowing = [], 1, n, 1.0
        self.grid = self.kind in ("ring", "torus", "mesh", "cube")
        self.treelike = self.kind in ("switch", "fat", "tree")
        bits = log2_ceil(n)
        if self.grid:
            d = {"ring": 1, "cube": max(bits, 1)}.get(self.kind, round(link.dimensions))
            if abs(n - 2**bits) < 1e-6:
                self.sides = [2.0 ** (bits // d + (1 if i < bits % d else 0)) for i in range(d)]
            else:
                q = n ** (1 / d)
                self.sides = [float(round(q)) if abs(q - round(q)) < 1e-4 * q else q] * d
        self.wrapped = self.kind in ("ring", "torus") and n > level - 0.5
        if self.kind in ("fat", "tree"):
            self.tiers = max(1, math.ceil(math.log(max(n, 1)) / math.log(max(link.radix, 2)) - 1e-4))
            self.branches = n ** (1 / self.tiers)
            self.narrowing = self.branches if self.kind == "tree" else 1 / link.taper
        self.group = min(max(link.radix, 2), n)
        self.groups = n / self.group

    def ports(self):
        n = self.n
        if n <= 1:
            return 0.0
        if self.grid:
            return sum(min(q - 1, 2 if self.wrapped else 1) for q in self.sides)
        if self.kind == "full":
            return n - 1
        return 1.0 if self.treelike else self.group - 1 + math.ceil((self.groups - 1) / self.group)

    def diameter(self):
        if self.n <= 1:
            return 0.0
        if self.grid:
            return sum(math.floor(q / 2) if self.wrapped else q - 1 for q in self.sides)
        if self.kind == "full":
            return 1.0
        return 2.0 * self.tiers if self.treelike else (3.0 if self.groups > 1 and self.group > 1 else 1.0)

    def mean_hops(self):
        n = self.n
        if n <= 1:
            return 0.0
        if self.grid:
            each = [math.floor(q * q / 4) / q if self.wrapped else (q * q - 1) / (3 * q) for q in self.sides]
            return sum(each) * n / max(n - 1, 1)
        if self.kind == "full":
            return 1.0
        if self.treelike:
            r, h = self.branches, self.tiers
            return 2 * sum(1 - (r**tier - 1) / max(n - 1, 1) for tier in range(h))
        a = self.group
        return ((a - 1) + (n - a) * (3 - 2 / a)) / max(n - 1, 1)

    def busiest(self):
        """Messages over the busiest link when every rank sends one to every other."""
        n, r, h, s = self.n, self.branches, self.tiers, self.narrowing
        if n <= 1:
            return 0.0
        if self.grid:
            longest = max(self.sides)
            ways = min(longest - 1, 2 if self.wrapped else 1)
            even = abs(longest / 2 - math.floor(longest / 2)) == 0
            cut = (n / longest if even else (n - 1) / max(longest - 1, 1)) * ways
            return math.floor(n / 2) * math.ceil(n / 2) / cut
        if self.treelike:
            return max(n - 1, n * (1 - 1 / r) * s ** (h - 1))
        return 1.0 if self.kind == "full" or self.groups <= 1 else self.group**2

    def ring(self):
        n = self.n
        if self.grid:
            steps = sum(q - 1 for q in self.sides)
            hops = steps if self.wrapped else sum(2 * (q - 1) - min(q - 1, 1) for q in self.sides)
            return steps, hops, max(self.ports(), 1)
        if self.treelike:
            r = self.branches
            cycle = 2 * (n - 1) * r / (r - 1) if r != 1 else 2 * (n - 1)
            return n - 1, cycle - 2, 1
        ports = 2 * math.floor((n - 1) / 2) if self.kind == "full" else min(n - 1, 2)
        return n - 1, n - 1, max(ports, 1)

    def doubling(self):
        n, r, h, s = self.n, self.branches, self.tiers, self.narrowing
        rounds = log2_ceil(n)
        if self.grid:
            steps, q = sum(q - 1 for q in self.sides), max(*self.sides, 2.0)
            return rounds, steps, steps, max(math.log2(max(self.sides)), 1) / 2 * (1 - 1 / n) / (1 - 1 / q)
        if self.kind == "full":
            return rounds, rounds, rounds, (n - 1) / n
        if self.treelike:
            doubled = rounds / h * sum(s**tier for tier in range(h))
            halved = (1 - 1 / r) * sum((s / r) ** tier for tier in range(h))
            return rounds, rounds * (h + 1), doubled, halved
        inside, outside = math.log2(self.group), math.log2(self.groups)
        halved = 1 - 1 / self.group + 1 - 1 / self.groups
        return rounds, inside + 3 * outside, inside + self.group * outside, halved


class Network:
    """The three levels of a system's fabric."""

    def __init__(self, system):
        f, self.chip = system.fabric, system.chip
        self.fabric = f
        self.links = (f.package, f.scale_up, f.scale_out)
        package = min(f.package_chips, system.chips)
        domain = min(max(f.domain, package), max(system.chips, package))
        self.sizes = (package, domain / package, system.chips / domain)
        built = max(f.domain, f.package_chips) / max(f.package_chips, 1)
        self.costs = []
        for link, size, wired in zip(self.links, self.sizes, (f.package_chips, built, 0.0), strict=True):
            whole = max(wired, size)
            links = max(Place(link, whole, whole).ports(), 1)
            busy = min(max(link.background, 0.0), 0.999)
            per_byte = wait = 0.0
            if link.bandwidth:
                per_byte = 1 / (link.bandwidth * self.chip.efficiency.link * (1 - busy))
                per_byte = max(per_byte, (1 - link.sram_landing) * 2 / self.chip.memory.bandwidth)
                wait = busy / (2 * (1 - busy)) * f.background_message * links / link.bandwidth
            self.costs.append(
                (
                    link.overhead + (1 - link.sram_landing) * 2 * self.chip.memory.latency,
                    link.latency + wait,
                    per_byte * links,
                )
            )

    def counts(self, ranks, stride=1.0, repeats=1.0, every=1.0):
        def within(chips):
            return min(max(chips / stride, 1), ranks) * min(max(chips / every, 1), repeats)

        inner = within(max(self.fabric.package_chips, 1))
        both = max(within(max(self.fabric.domain, self.fabric.package_chips)), inner)
        return inner, both / inner, ranks * repeats / both

    def wait(self, ranks):
        f = self.fabric
        if ranks <= 1 or f.jitter == 0:
            return 0.0
        if f.timeout == 0:
            m = ranks + 0.5 + 1 / (24 * ranks + 12)
            return f.jitter * (0.5772156649015329 + math.log(m))
        u = 1 - math.exp(-f.timeout / f.jitter)
        return f.jitter * math.fsum(u**k / k for k in range(1, round(ranks) + 1))

    def start(self, counts):
        ranks = counts[0] * counts[1] * counts[2]
        return sum(link.launch for link, n in zip(self.links, counts, strict=True) if n > 1) + self.wait(
            ranks
        )

    def adds(self, k):
        return self.links[k].in_network > 0.5 and round(self.links[k].topology) in (2, 3, 4)

    def times(self, k, n, size):
        """(gather, all-reduce, all-reduce in few rounds) on one level."""
        if n <= 1:
            return 0.0, 0.0, 0.0
        place, (o, t, b) = Place(self.links[k], n, self.sizes[k]), self.costs[k]
        far, cross = o + place.diameter() * t, place.busiest()
        rounds, hops, ports = place.ring()
        lg, lg_hops, doubled, halved = place.doubling()
        ring = rounds * o + hops * t + size * (n - 1) / n / ports * b
        halving = lg * o + lg_hops * t + size * halved * b
        direct = far + size * cross / n * b
        quick = [lg * o + lg_hops * t + size * doubled * b, far + size * cross * b]
        options = [2 * ring, 2 * halving, 2 * direct]
        if place.treelike:
            options.append(2 * (lg * o + lg_hops * t) + 2 * size * b)
        if self.adds(k):
            quick.append(far + size * b)
        return min(ring, halving, direct), min(options + quick), min(quick)

    def neighbour(self, k, n):
        place = Place(self.links[k], n, self.sizes[k])
        return place.ring()[1] / (n - 1) if place.treelike and n > 1 else 1.0

    def all_reduce(self, size, counts, scattered=False):
        if counts[0] * counts[1] * counts[2] <= 1:
            return 0.0, (0.0, 0.0, 0.0)
        used = [k for k in range(3) if counts[k] > 1]
        held, shares, everything, sent = size, 0.0, 0.0, [0.0, 0.0, 0.0]
        for k, n in enumerate(counts):
            if n <= 1:
                continue
            gather, reduce, _ = self.times(k, n, held)
            last = k == used[-1] and not scattered
            shares += reduce if last else 2 * gather
            everything += self.times(k, n, size)[2]
            once = self.adds(k) and last
            sent[k] = (held if once else 2 * (held - held / n)) * self.neighbour(k, n)
            held /= n
        seconds = min(shares, everything) if len(used) > 1 and not scattered else shares
        return (2 if scattered else 1) * self.start(counts) + seconds, tuple(sent)

    def all_to_all(self, sizes, counts, hottest):
        if counts[0] * counts[1] * counts[2] <= 1:
            return 0.0, (0.0, 0.0, 0.0)
        seconds, sent = self.start(counts), [0.0, 0.0, 0.0]
        for k, (n, size) in enumerate(zip(counts, sizes, strict=True)):
            if n > 1:
                place, (o, t, b) = Place(self.links[k], n, self.sizes[k]), self.costs[k]
                seconds += o + place.diameter() * t + size * hottest * place.busiest() / max(n - 1, 1) * b
                sent[k] = size * place.mean_hops()
        return seconds, tuple(sent)

    def neighbour_message(self, size, span):
        f = self.fabric
        k = 0 if span <= f.package_chips else 1 if span <= max(f.domain, f.package_chips) else 2
        place, (o, t, b) = Place(self.links[k], self.sizes[k], self.sizes[k]), self.costs[k]
        hops = place.diameter() if place.treelike else 1
        sent = [0.0, 0.0, 0.0]
        sent[k] = size * hops
        return self.links[k].launch + o + hops * t + size * b, tuple(sent)


def copies(groups, experts, k):
    """Expected number of groups of experts that a token's k choices fall into."""
    missed = min(max(1 - experts / groups / max(experts - (k - 1) / 2, 1), 1e-9), 1.0)
    return groups * (1 - missed**k)


def hottest(ranks, picks, experts, skew):
    if ranks <= 1:
        return 1.0
    c = (skew * ranks / max(experts, 1) + ranks / max(picks, 1e-6)) * (1 - 1 / ranks) / 9
    x = math.sqrt(-2 * math.log(0.625 / (ranks + 0.25)))
    z = x - (2.30753 + 0.27061 * x) / (1 + 0.99229 * x + 0.04481 * x * x)
    return min(max((1 - c + z * math.sqrt(c)) ** 3, 1), ranks)
