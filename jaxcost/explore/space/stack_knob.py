"""A knob of how many stacks a memory tier has."""

from jaxcost.explore.space.axes import Joint, log_range
from jaxcost.spec.memory import ENGINE_PER_STACK, PER_STACK

__all__ = ["stacks"]


def stacks(path: str, low: float, high: float, *, whole: bool = True) -> Joint:
    """Make a knob of how many stacks a memory tier has, with what engines near it each brings.

    The tier at `path` of the design is to be of one stack, as `jaxcost.edge.catalog.tiers.load_memory` loads it.

    Args:
        path: dotted path of the tier, such as "system.chip.memory".
        low: least number, above 0.
        high: largest number.
        whole: whether it is to be a whole number.

    Raises:
        ValueError: as `log_range`.
    """
    leaves = ("stacks", *PER_STACK, *(f"near.{name}" for name in ENGINE_PER_STACK))
    moved = tuple(log_range(f"{path}.{leaf}", low, high, relative=True, whole=whole) for leaf in leaves)
    return Joint(ranges=moved, name=f"{path}.stacks")
