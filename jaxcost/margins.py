"""The margin of every constraint of a design."""

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import row, stack, total, unstack, where
from jaxcost.core.pytree import Scalar
from jaxcost.physics.compute.shards import can_shard
from jaxcost.physics.economics.area import Build
from jaxcost.physics.economics.thermal import Heat, limit, resistance
from jaxcost.physics.memory.hierarchy import Hierarchy, Tiers
from jaxcost.report import Margins, Power, Timing
from jaxcost.spec.chip import Chip
from jaxcost.spec.fabric import Fabric
from jaxcost.spec.memory import TIERS
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["check_margins"]

_LEAST_POWER = 1e-3  # W; a limit of 0 has a finite margin


def check_margins(
    system: System,
    model: Model,
    asked: tuple[Plan, Traffic],
    timing: Timing,
    power: Power,
    chip_build: Build,
    hierarchy: Hierarchy,
    used: jax.Array,
    tiers: Tiers,
    heat: Heat,
    tau: Scalar,
) -> Margins:
    """Return the margins of all constraints; those that the design cannot violate keep their default of 1.

    Args:
        system: chips and links.
        model: the language model.
        asked: plan and traffic as they were given, which may be invalid.
        timing: latencies and schedule.
        power: power of the steps.
        chip_build: areas of the package.
        hierarchy: memory tiers with the capacity that the engine uses.
        used: bytes in every tier, `[tiers, *batch]`.
        tiers: use and wear of the tiers.
        heat: heat of the steps.
        tau: softness.
    """
    plan, traffic = asked
    chip, tier_names = system.chip, hierarchy.shares.tiers
    capacity = hierarchy.memory.capacity
    # A tier without capacity is empty, but for main memory: the margin of a chip without any is minus its bytes.
    room = 1 - used / jnp.maximum(capacity, 1)
    limits = dict(zip(tier_names, unstack(room), strict=True))
    return Margins(
        **limits,
        chips=1 - timing.schedule.chips / system.chips,
        power=1 - smooth.maximum(power.prefill, power.decode, tau) / jnp.maximum(chip.tdp, _LEAST_POWER),
        ttft=1 - smooth.safe_div(timing.ttft, traffic.ttft_target),
        tpot=1 - smooth.safe_div(timing.tpot, traffic.tpot_target),
        plan=where(can_shard(model, plan) & (traffic.batch > 0), 1.0, -1.0),
        temperature=_heat_margin(chip, heat, tau),
        shoreline=1 - smooth.safe_div(_used_edge(chip, system.fabric), chip.shoreline),
        area=1 - smooth.safe_div(chip_build.die_area / chip.package.dies, chip.process.reticle),
        endurance=1 - jnp.max(stack([getattr(tiers, name).wear for name in TIERS]), 0),
        sequences=1 - smooth.safe_div(traffic.batch / plan.dp, plan.engine.sequences),
    )


def _heat_margin(chip: Chip, heat: Heat, tau: Scalar) -> jax.Array:
    """Return 1 - temperature rise of the hotter step over the allowed rise; 1 without cooling or limit."""
    top, coolant = limit(chip), chip.cooling.coolant
    rise = heat.temperature - coolant
    hotter = smooth.maximum(row(rise, 0), row(rise, 1), tau)
    cooled = (top > 0) & (resistance(chip) > 0)
    return where(cooled, 1 - hotter / where(cooled, top - coolant, 1), 1)


def _used_edge(chip: Chip, fabric: Fabric) -> Scalar:
    """Return the length of die edge that memory stacks and links use, m."""
    memories = (getattr(chip, name) for name in TIERS)
    links = (fabric.package, fabric.scale_up, fabric.scale_out)
    return total(
        (
            *(m.stacks * m.shoreline * (1 - m.chained) for m in memories),
            *(link.bandwidth * link.interface_edge for link in links),
        )
    )
