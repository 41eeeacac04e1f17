"""A knob for the number of stacks of a memory tier."""

from jaxcost.explore.space.axes import Joint, log_range
from jaxcost.spec.memory import ENGINE_PER_STACK, PER_STACK

__all__ = ["stacks"]


def stacks(path: str, low: float, high: float, *, whole: bool = True) -> Joint:
    """Make a knob of the number of stacks of a memory tier: it scales every leaf that grows with the stacks.

    The tier at `path` of the design must have one stack, as `jc.load_memory` returns it.

    Args:
        path: dotted path of the tier, such as "system.chip.memory".
        low: least number of stacks, above 0.
        high: largest number of stacks.
        whole: whether the number is whole.

    Raises:
        ValueError: as `log_range`.
    """
    leaves = ("stacks", *PER_STACK, *(f"near.{name}" for name in ENGINE_PER_STACK))
    ranges = tuple(log_range(f"{path}.{leaf}", low, high, relative=True, whole=whole) for leaf in leaves)
    return Joint(ranges=ranges, name=f"{path}.stacks")
