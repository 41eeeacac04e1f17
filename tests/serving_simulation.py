"""A replica that serves requests one event at a time, in plain Python: what the closed forms are compared with."""

import heapq

import numpy as np


def simulate(*, rate, requests, steps, decode, prefill, slots, chunks=0, mixed=None, variation=0, seed=0):
    """Serve Poisson arrivals with continuous batching, first come first served, and time every request.

    Between two steps requests that have come are prefilled, one at a time, while there are slots: in a step of its
    own each, before decoding goes on; or, with chunks, along with the decoding of the others.

    Args:
        rate: requests a second.
        requests: how many; the first fifth is left out of the results.
        steps: decode steps of a request.
        decode: seconds of a decode step with n requests in it, at index n.
        prefill: seconds of a prefill step.
        slots: requests that fit.
        chunks: chunks of a prompt, 0 for a prefill step of its own.
        mixed: seconds of a step with a chunk and n requests decoding, at index n.
        variation: 0 for equal requests, 1 for exponential prompts and outputs, independent.
        seed: of the random numbers.

    Returns:
        Seconds to the first token and to the last of each request, and its decode steps.
    """
    random = np.random.default_rng(seed)
    arrival = np.cumsum(random.exponential(1 / rate, requests))
    sizes = random.exponential(1, (2, requests)) if variation else np.ones((2, requests))
    prompts = sizes[0] * (chunks or prefill)
    lengths = np.maximum(np.round(steps * sizes[1]), 1)
    first, last = np.zeros(requests), np.zeros(requests)
    now, done, next_, count, left, running = 0.0, 0, 0, 0, 0.0, []
    while done < requests:
        waiting = next_ < requests and arrival[next_] <= now
        if not left and waiting and len(running) < slots:
            if not chunks:
                now += prompts[next_]
                first[next_] = now
                heapq.heappush(running, (count + lengths[next_], next_))
                next_ += 1
                continue
            left = prompts[next_]
        elif not left and not running:
            now = arrival[next_]
            continue
        n = len(running)
        now += decode[n] + min(left, 1) * (mixed[n] - decode[n]) if left else decode[n]
        count += 1
        while running and running[0][0] <= count:
            last[heapq.heappop(running)[1]] = now
            done += 1
        if left:
            left = max(left - 1, 0)
            if not left:
                first[next_] = now
                heapq.heappush(running, (count + lengths[next_], next_))
                next_ += 1
    kept = slice(requests // 5, None)
    return (first - arrival)[kept], (last - first)[kept], lengths[kept]
