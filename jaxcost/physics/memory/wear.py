"""How long a tier lives under what is written to it, and what keeping data alive costs.

    life = capacity x cycles / (write amplification x bytes written a second)

Written are the requests' own cache where it lies, weights and corpus when they are renewed, and everything held in a
memory that forgets, once a retention time. A memory here is one tier or, with arrays `[tiers, *batch]`, all of them.

Source: the definition of endurance, JEDEC JESD218.
"""

from jaxcost.core import smooth
from jaxcost.core.pytree import Scalar
from jaxcost.physics.memory.tiers import write_energy
from jaxcost.spec.memory import Memory

__all__ = ["rewrites", "standby_power", "wear_share"]


def rewrites(memory: Memory, used: Scalar) -> Scalar:
    """Bytes a second that are written again before a tier forgets them."""
    return smooth.safe_div(used, memory.retention)


def standby_power(memory: Memory, used: Scalar) -> Scalar:
    """Watts of a tier at rest: its own, its engines', and those of rewriting what it holds."""
    return memory.idle_power + memory.near.idle_power + rewrites(memory, used) * write_energy(memory)


def wear_share(memory: Memory, written: Scalar, seconds: Scalar) -> Scalar:
    """Share of a tier's cycles that `written` bytes a second use up in a time; 0 where it has no limit."""
    return smooth.safe_div(memory.write_amplification * written * seconds, memory.capacity * memory.endurance)
