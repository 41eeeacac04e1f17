"""A space over a cheap function of a design, for tests of the machinery around the model.

`python -m tests.cheap_sweep FOLDER BLOCK [SECONDS]` is one of several processes that sweep it; each takes so many
seconds more for a block.
"""

import hashlib
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxcost as jc
from jaxcost.explore.sweep import Best, Constraint, Distribution, Feasibility, Pareto, TopK

METRICS = ("tpot", "usd_per_mtok", "margins.worst")
FAST = (Constraint("margins.worst", low=0.0), Constraint("tpot", high=9.0))
REDUCE = {
    "top": TopK("tpot", 12, where=FAST),
    "dearest": TopK("usd_per_mtok", 1, largest=True, where=()),
    "front": Pareto(("tpot", "usd_per_mtok")),
    "best": Best("usd_per_mtok", by=("model", "plan.tp")),
    "spread": Distribution("usd_per_mtok"),
    "reasons": Feasibility(("margins.worst",)),
}


def cheap(design: jc.Design) -> jax.Array:
    """Whole-number arithmetic with many ties, the same to the bit however it is compiled."""
    batch, tp, dp = design.traffic.batch, design.plan.tp, design.plan.dp
    speed = (tp * 37 + dp * 11) % 13 + 1
    cost = (batch * 17 + tp * 29 + dp * dp) % 509 + speed
    return jnp.stack([speed, cost, (batch * 7 + dp) % 5 - 1])


def space(*sizes: int) -> jc.Space:
    """Two models by three axes."""
    system = jc.stack([jc.System()])
    paths = ("traffic.batch", "plan.tp", "plan.dp")
    return jc.Space(
        base=jc.canonical(jc.Design(system=system, model=jc.stack([jc.Model(), jc.Model()]))),
        axes=tuple(
            jc.Axis(path=path, values=jnp.arange(1.0, n + 1.0)) for path, n in zip(paths, sizes, strict=True)
        ),
        systems=("a-system",),
        models=("a-model", "another"),
    )


def run(folder: str | None, *sizes: int, **options) -> jc.Outcome:
    """Sweep it as a child process would: from nothing, or from what the folder holds."""
    return jc.run_sweep(
        space(*sizes), REDUCE, folder=folder, resume=True, metrics=METRICS, evaluation=cheap, **options
    )


def digest(results: dict) -> dict[str, str]:
    """Name the content of every result."""
    return {
        name: hashlib.sha256(b"".join(np.asarray(v).tobytes() for v in vars(r).values())).hexdigest()
        for name, r in results.items()
    }


def main(folder: str, block: str, seconds: str = "0") -> int:
    """Sweep as one of several processes; the exit status."""
    pause = float(seconds)
    try:
        found = run(folder, 100, 60, 10, block=int(block), every=0, progress=lambda _: time.sleep(pause))
    except jc.RunError as error:
        print(error, file=sys.stderr)
        return error.status
    if jax.process_index() == 0:
        print(json.dumps({"now": found.now, "digest": digest(found.results)}))
    return 0


if __name__ == "__main__":
    from jaxcost.edge.jobs import workers

    workers.worker_started()
    status = main(*sys.argv[1:])
    workers.exit_worker(status)
    raise SystemExit(status)
