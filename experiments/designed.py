"""Co-designed chips, built from catalogue parts so that the uncertainties of the catalogue apply to them too."""

import dataclasses

import jax

import jaxcost as jc
from jaxcost.edge.studies.study_file import read_study
from jaxcost.explore.space.spaces import Space


@dataclasses.dataclass(frozen=True)
class Built:
    """A co-designed chip: what it was made of, and by what the co-design moved every number of that."""

    base: str
    memory: str
    efficiency: str
    factor: jc.System
    plan: jc.Plan
    batch: float
    value: float

    @property
    def like(self) -> str:
        """The chip of the catalogue that it began as."""
        return self.base.rpartition("-")[0]

    @property
    def chips(self) -> float:
        return float(self.plan.tp * self.plan.dp)

    def load(self) -> jc.System:
        """Load what it is made of, and move it."""
        made = _parts(self.base, self.memory, self.efficiency)
        return jax.tree.map(lambda x, factor: x * factor, made, self.factor)


def _parts(base: str, memory: str, efficiency: str) -> jc.System:
    made = jc.by_parts(jc.load_system(base, efficiency=efficiency))
    return jc.replace_at(made, "chip.memory", jc.load_memory(memory, stacks=1))


def spread_out(space: Space, chips: int) -> Space:
    """The same designs with attention by data and experts by expert parallelism: latents are cut by no other."""
    plan = jc.replace(space.base.plan, tp=1.0, dp=float(chips), ep=float(chips))
    return dataclasses.replace(space, base=jc.replace(space.base, plan=jc.canonical(plan)))


def built(study: str, efficiency: str, target: float) -> Built:
    """The cheapest chip of a study within another time per token, one start a memory."""
    asked = read_study(study)
    limits = [
        dataclasses.replace(limit, high=target) if limit.metric == "tpot" else limit for limit in asked.limits
    ]
    space = spread_out(asked.space, int(asked.space.systems[0].rpartition("-")[2].removeprefix("x")))
    found = jc.codesign(space, asked.objective, limits, starts=1)
    assert not found.failed, found.failed
    base, memory = str(found.choices["system"]), str(found.choices["system.chip.memory"])
    parts = _parts(base, memory, efficiency)

    def moved(x, of) -> float:
        assert float(of) or not float(x), "what is not there cannot be moved"
        return float(x) / float(of) if float(of) else 1.0

    factor = jax.tree.map(moved, found.design.system, parts)
    batch = float(found.design.traffic.batch)
    return Built(base, memory, efficiency, factor, found.design.plan, batch, found.value)
