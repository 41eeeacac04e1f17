"""Event simulator of continuous batching in plain Python: the reference that the replay in JAX is compared with.

Every step is simulated by itself, in the order of time. The policy, complete:

Requests are in the order of their arrivals: arrival a, prompt n, output o, hit h <= n - 1 (prompt tokens in the prefix
cache, of which some come from a slower tier). Policy: budget of T tokens a step (0: no limit), N sequences (0: no
limit), mixed or prefill first, pages of B tokens, a pool of `pages` pages, reserve in [0, 1], swap or recompute, D
drafts with acceptance p. A running request has len (KV tokens), g (tokens emitted), need (prompt tokens still to
compute; 0: it decodes) and pages. The queue of a replica is in the order of arrivals; a preempted request returns to
its front. The victim is always the running request that arrived last, so the queue stays in order.

At an instant t: first every step that ends at t ends, on all replicas; then requests are released (below); then every
replica without a step forms one, lowest number first, if it has a request running or waiting:

1. A head of the queue with ceil((n + o - 1) / B) > pages of the pool is rejected: it leaves and is never served. This
   holds whenever a request becomes the head while a step is formed, also in 4, whatever the limits are.
2. Growth: grow = sum over all decoding requests of max(0, ceil(min(len + 1 + D, n + o - 1) / B) - pages). While grow
   is above the free pages, the running request that arrived last is preempted: its pages are freed; with swap and
   g >= 1 its len KV tokens are kept elsewhere and the step takes len x swap_seconds more; otherwise len = 0. Prefill
   first: only where the step will decode, that is if no prompt is partly computed and no head can be admitted. After
   a preemption the step admits nothing.
3. A request whose prompt is partly computed continues: it computes p = min(need, budget left). The budget of prompts is
   max(0, T - S) in a mixed step, with S requests that decode in it, otherwise T.
4. Admission, while there is budget left, fewer than N requests run, nothing was preempted in this step, and the head
   fits: sum of charges of the running + charge of the head <= pages of the pool. charge = max(pages of the
   request, ceil((target + reserve (o - g)) / B)), at most ceil((n + o - 1) / B); target is n + g for the head, len +
   need for a running request. The charge of a decoding request is at least its pages with the growth of 2. An admitted
   request takes ceil((n + g) / B) pages, has len = h and need = n + g - h, and computes p = min(need, budget left); the step takes (slow hit
   tokens) x load_seconds more, each time. A swapped request returns with its len, takes ceil(len / B) pages and no
   budget, the step takes len x swap_seconds more, and it decodes from the next step on.
5. Prefill first: if the step computes prompt tokens or a swapped request returned, nothing decodes; otherwise all
   decoding requests do. Mixed: those that decoded at the start of the step and were not preempted do. Those that
   decode take the pages of their growth now.
6. The step takes the time of the tables plus what was added above: with P > 0 prompt tokens mixed[S, C / S, P, r / P]
   (first knot of the context where S = 0), with P = 0 and S > 0 decode[S, C / S], otherwise 0. C: KV tokens of the
   decoding requests before the step; r = sum over chunks of p (start + (p + 1) / 2), start: KV tokens before the chunk.
   At its end every decoding request emits e = min(1 + accepted, o - g) tokens, len += e; accepted = number of j in
   1..D with u < p^j, u = uniform(seed, index of the request, g). A request whose prompt is complete emits a token,
   len = n + g before it. A request with g = o leaves and frees its pages.

First token: end of the step that emits it. Admitted: start of the step that first admitted the request. Longest gap:
the longest time between two steps that emitted tokens of the request.

Release: a request is released at its arrival, in order, on the replica that the router chooses then: round robin (index
modulo replicas), an explicit list of replicas, or least loaded: the replica with the fewest requests released and neither
finished nor rejected at that instant, the lowest number among equals. Closed loop of c: a request is released only
while fewer than c are outstanding on all replicas; its arrival is then the time of its release. A rejection releases too,
at once: the next request may be in the step that is being formed.

Two pools: the prefill pool serves every request with output 1. A request with output 1 ends there; every other arrives
in the decode pool at the end of its prefill + prompt tokens x transfer_seconds. The decode pool takes requests in the
order of these arrivals (ties by index), and round robin counts in it; random numbers and explicit lists use the index in
the workload. The request comes with g = 1 and len = n, is admitted as a swapped request that returns, but without
its seconds, and its first token is at the start of the step that first admits it. The decode pool has no prefix cache:
a request preempted by recompute computes n + g tokens there. A closed loop of two pools is refused.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from jaxcost.explore.replay.randomness import uniform
from tests.replay_inputs import Policy, Requests, Tables
from tests.replay_state import Request, Step


class Replica:
    """One engine: its queue, its running requests and its step."""

    def __init__(self, number: int, policy: Policy, tables: Tables, on_rejection: Callable[[float], None]):
        self.number, self.policy, self.tables, self.on_rejection = number, policy, tables, on_rejection
        self.queue: list[Request] = []
        self.running: list[Request] = []  # in the order of arrivals
        self.outstanding = 0
        self.step: Step | None = None

    def count_pages(self, tokens: float) -> int:
        return math.ceil(tokens / self.policy.block)

    def count_free_pages(self) -> int:
        return self.policy.pages - sum(r.pages for r in self.running)

    def count_grown_pages(self, r: Request) -> int:
        """Return the pages that a request has once it decodes in a step."""
        return max(r.pages, self.count_pages(min(r.cached + 1 + self.policy.drafts, r.final_tokens)))

    def count_growth(self) -> int:
        return sum(self.count_grown_pages(r) - r.pages for r in self.running if r.decodes)

    def charge(self, r: Request, target: int) -> int:
        reserved = target + self.policy.reserve * (r.output - r.emitted)
        return min(max(r.pages, self.count_pages(reserved)), self.count_pages(r.final_tokens))

    def fits(self, head: Request, returned: list[Request]) -> bool:
        charges = 0
        for r in self.running:
            decodes = r.decodes and r not in returned
            charges += max(self.charge(r, r.cached + r.need), self.count_grown_pages(r) if decodes else 0)
        return charges + self.charge(head, head.prompt + head.emitted) <= self.policy.pages

    def form_step(self, time: float) -> None:
        """Form the step that starts now, unless nothing runs or waits once oversized heads are rejected."""
        self.reject_heads(time)
        if not (self.running or self.queue):
            return
        step = Step(self.number, time)
        decoding = [r for r in self.running if r.decodes]
        step.grow = self.count_growth()
        if self.policy.mixed or not self.has_prefill_work():
            self.preempt(step)
        decoding = [r for r in decoding if r not in step.preempted]
        budget = self.compute_prompt_budget(len(decoding))
        budget = self.continue_prompt(step, budget)
        if not step.preempted:
            self.admit(step, budget)
        if self.policy.mixed or not (step.prompt_tokens or step.returned):
            step.decoding = decoding
        self.start_step(step)

    def reject_heads(self, time: float) -> None:
        while self.queue and self.count_pages(self.queue[0].final_tokens) > self.policy.pages:
            self.queue.pop(0).rejected = True
            self.outstanding -= 1
            self.on_rejection(time)

    def compute_prompt_budget(self, decoding: int) -> float:
        budget = self.policy.budget or math.inf
        return max(0, budget - decoding) if self.policy.mixed else budget

    def can_admit(self, budget: float, returned: list[Request]) -> bool:
        has_slot = self.policy.sequences == 0 or len(self.running) < self.policy.sequences
        return budget > 0 and has_slot and bool(self.queue) and self.fits(self.queue[0], returned)

    def has_prefill_work(self) -> bool:
        return any(not r.decodes for r in self.running) or self.can_admit(self.compute_prompt_budget(0), [])

    def preempt(self, step: Step) -> None:
        while step.grow > self.count_free_pages():
            victim = self.running.pop()
            victim.pages = 0
            victim.preemptions += 1
            if self.policy.swap and victim.emitted >= 1:
                victim.swapped = True
                step.extra_seconds += victim.cached * self.policy.swap_seconds
            else:
                victim.cached = 0
            self.queue.insert(0, victim)
            step.preempted.append(victim)
            step.grow = self.count_growth()

    def continue_prompt(self, step: Step, budget: float) -> float:
        for r in (r for r in self.running if not r.decodes):
            budget = self.compute_chunk(step, r, budget)
        return budget

    def compute_chunk(self, step: Step, r: Request, budget: float) -> float:
        """Add a chunk of a prompt to the step and return the budget left."""
        if tokens := int(min(r.need, budget)):
            step.chunks.append((r, r.cached, tokens))
            r.chunks += 1
        return budget - tokens

    def admit(self, step: Step, budget: float) -> None:
        while self.can_admit(budget, step.returned):
            head = self.queue.pop(0)
            self.running.append(head)
            if math.isnan(head.admitted):
                head.admitted = step.start
            if head.swapped:
                self.return_swapped(step, head)
            else:
                head.pages = self.count_pages(head.prompt + head.emitted)
                head.cached = head.hit
                head.need = head.prompt + head.emitted - head.hit
                step.extra_seconds += head.slow_hit * self.policy.load_seconds
                budget = self.compute_chunk(step, head, budget)
            self.reject_heads(step.start)

    def return_swapped(self, step: Step, r: Request) -> None:
        r.swapped = False
        r.pages = self.count_pages(r.cached)
        step.returned.append(r)
        if r.received and math.isnan(r.first):
            r.first = r.last_emission = step.start
        else:
            step.extra_seconds += r.cached * self.policy.swap_seconds

    def start_step(self, step: Step) -> None:
        for r in step.decoding:
            r.pages = self.count_grown_pages(r)
        step.running = len(self.running)
        step.pages = self.policy.pages - self.count_free_pages()
        seconds, step.joules = self.evaluate_step(step)
        step.end = step.start + (seconds + step.extra_seconds)
        self.step = step

    def evaluate_step(self, step: Step) -> tuple[float, float]:
        sequences, tokens = len(step.decoding), step.prompt_tokens
        context = (
            sum(r.cached for r in step.decoding) / sequences if sequences else self.tables.mixed_context[0]
        )
        if tokens:
            pairs = sum(p * (start + (p + 1) / 2) for _, start, p in step.chunks)
            return self.tables.evaluate_mixed(sequences, context, tokens, pairs / tokens)
        return self.tables.evaluate_decode(sequences, context) if sequences else (0.0, 0.0)

    def end_step(self) -> Step:
        """Emit the tokens of the step and let finished requests leave."""
        assert self.step is not None
        step, self.step = self.step, None
        for r in step.decoding:
            tokens = min(1 + self.count_accepted(r), r.output - r.emitted)
            r.cached += tokens
            r.emit(tokens, step.end)
            step.emitted += tokens
        for r, _, tokens in step.chunks:
            r.cached += tokens
            r.need -= tokens
            if r.need == 0:
                r.emit(1, step.end)
                step.emitted += 1
        self.outstanding -= sum(r.emitted == r.output for r in self.running)
        self.running = [r for r in self.running if r.emitted < r.output]
        return step

    def count_accepted(self, r: Request) -> int:
        if self.policy.drafts == 0:
            return 0
        u = draw_numbers(self.policy.seed, r.index, r.output)[r.emitted]
        return sum(u < self.policy.acceptance**j for j in range(1, self.policy.drafts + 1))


@cache
def draw_numbers(seed: int, index: int, output: int) -> list[float]:
    """Return uniform(seed, index, g) for all g below `output`."""
    return uniform(seed, index, np.arange(output)).tolist()


@dataclass(frozen=True)
class Result:
    """Times (s) of every request in the order of the workload, and the totals; nan where it never came to that."""

    arrival: list[float]
    admitted: list[float]
    first: list[float]
    finish: list[float]
    longest_gap: list[float]
    preemptions: list[int]
    rejected: list[bool]
    replica: list[int]
    chunks: list[int]
    steps: int
    joules: float
    prompt_tokens: int  # computed, again after a preemption
    emitted_tokens: int
    peak_pages: int  # of the replica that used most
    log: list[Step]  # every step, in the order of their ends
    pools: tuple["Result", ...] = ()  # prefill and decode pool


class Pool:
    """Replicas behind a router, with the clock that they share."""

    def __init__(self, requests: list[Request], policy: Policy, tables: Tables):
        self.policy, self.waiting = policy, list(requests)
        self.replicas = [Replica(i, policy, tables, self.release) for i in range(policy.replicas)]
        self.log: list[Step] = []

    def simulate(self) -> None:
        time = 0.0
        while (time := self.find_next_time(time)) < math.inf:
            for replica in self.replicas:
                if replica.step and replica.step.end == time:
                    self.log.append(replica.end_step())
            self.release(time)
            while idle := [r for r in self.replicas if not r.step and (r.running or r.queue)]:
                idle[0].form_step(time)

    def find_next_time(self, time: float) -> float:
        ends = [r.step.end for r in self.replicas if r.step]
        release = [max(time, self.waiting[0].arrival)] if self.may_release() else []
        return min(ends + release, default=math.inf)

    def may_release(self) -> bool:
        outstanding = sum(r.outstanding for r in self.replicas)
        return bool(self.waiting) and (self.policy.concurrency == 0 or outstanding < self.policy.concurrency)

    def release(self, time: float) -> None:
        """Route the requests that have arrived and that the closed loop lets in."""
        while self.may_release() and self.waiting[0].arrival <= time:
            r = self.waiting.pop(0)
            r.arrival = time
            r.replica = self.route(r)
            self.replicas[r.replica].queue.append(r)
            self.replicas[r.replica].outstanding += 1

    def route(self, r: Request) -> int:
        if self.policy.router == "round_robin":
            return r.position % self.policy.replicas
        if self.policy.router == "least_loaded":
            return min(self.replicas, key=lambda replica: (replica.outstanding, replica.number)).number
        assignment = self.policy.router
        assert not isinstance(assignment, str)
        return assignment[r.index]


PER_REQUEST = (
    "arrival",
    "admitted",
    "first",
    "finish",
    "longest_gap",
    "preemptions",
    "rejected",
    "replica",
    "chunks",
)


def build_result(requests: list[Request], log: list[Step]) -> Result:
    columns: dict[str, Any] = {name: [getattr(r, name) for r in requests] for name in PER_REQUEST}
    return Result(
        **columns,
        steps=len(log),
        joules=sum(step.joules for step in log),
        prompt_tokens=sum(step.prompt_tokens for step in log),
        emitted_tokens=sum(step.emitted for step in log),
        peak_pages=max((step.pages for step in log), default=0),
        log=log,
    )


def simulate(requests: Requests, policy: Policy, tables: Tables) -> Result:
    """Return the times of requests on the replicas of one pool."""
    columns = (requests.arrival, requests.prompt, requests.output, requests.hit, requests.slow_hit)
    states = [Request(i, i, *row) for i, row in enumerate(zip(*columns, strict=True))]
    pool = Pool(states, policy, tables)
    pool.simulate()
    return build_result(states, pool.log)


def simulate_decode_pool(arrivals: dict[int, float], requests: Requests, policy: Policy, tables: Tables):
    """Return the states and the steps of requests (index -> arrival) whose prompts are computed."""
    states = []
    for position, index in enumerate(sorted(arrivals, key=lambda i: (arrivals[i], i))):
        prompt, output = requests.prompt[index], requests.output[index]
        r = Request(index, position, arrivals[index], prompt, output, 0, 0, received=True)
        r.emitted, r.cached, r.swapped = 1, prompt, True
        states.append(r)
    pool = Pool(states, policy, tables)
    pool.simulate()
    return states, pool.log


def simulate_pools(
    requests: Requests,
    prefill: tuple[Policy, Tables],
    decode: tuple[Policy, Tables],
    transfer_seconds: float = 0,
) -> Result:
    """Return the times of requests on a prefill pool and a decode pool; transfer_seconds per prompt token.

    Arrival, admitted, replica and chunks are those of the prefill pool, longest gap and preemptions those of the decode
    pool, totals are sums. `pools` has the results of each; the decode pool's in the order in which requests came to it.
    """
    if prefill[0].concurrency or decode[0].concurrency:
        raise ValueError("a closed loop with two pools is not simulated")
    first = simulate(replace(requests, output=[1] * len(requests.output)), *prefill)
    arrivals = {
        i: end + requests.prompt[i] * transfer_seconds
        for i, end in enumerate(first.finish)
        if not first.rejected[i] and requests.output[i] > 1
    }
    states, log = simulate_decode_pool(arrivals, requests, *decode)
    second = build_result(states, log)
    combined = ("first", "finish", "longest_gap", "rejected", "preemptions")
    columns = {name: list(getattr(first, name)) for name in combined}
    for r in states:  # the prefill pool, where nothing decodes, has preempted none of them
        for name in combined:
            columns[name][r.index] = getattr(r, name)
    sums = ("steps", "joules", "prompt_tokens", "emitted_tokens", "log")
    return replace(
        first,
        **columns,
        **{name: getattr(first, name) + getattr(second, name) for name in sums},
        peak_pages=max(first.peak_pages, second.peak_pages),
        pools=(first, second),
    )
