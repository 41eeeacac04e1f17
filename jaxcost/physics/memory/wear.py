"""Wear of a memory tier by writes, and the power of refreshing its data.

    life = capacity x cycles / (write amplification x bytes written per second)

Writes are the cache of the requests, weights and corpus at every update, and all data of a memory with limited
retention once per retention time. A memory here is one tier or, with arrays `[tiers, *batch]`, a table of tiers.

Source: the definition of endurance, JEDEC JESD218.
"""

from jaxcost.core import smooth
from jaxcost.core.pytree import Scalar
from jaxcost.physics.memory.tiers import write_energy
from jaxcost.spec.memory import Memory

__all__ = ["rewrites", "standby_power", "wear_share"]


def rewrites(memory: Memory, used: Scalar) -> Scalar:
    """Return the B/s that a tier must rewrite within its retention time: used / retention; 0 without one."""
    return smooth.safe_div(used, memory.retention)


def standby_power(memory: Memory, used: Scalar) -> Scalar:
    """Return the W of an idle tier: its own, those of its engines, and those of rewriting its data."""
    return memory.idle_power + memory.near.idle_power + rewrites(memory, used) * write_energy(memory)


def wear_share(memory: Memory, written: Scalar, seconds: Scalar) -> Scalar:
    """Return the share of a tier's endurance that `written` B/s use in some seconds; 0 without a limit."""
    return smooth.safe_div(memory.write_amplification * written * seconds, memory.capacity * memory.endurance)
