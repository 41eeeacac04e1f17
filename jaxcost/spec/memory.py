"""Memory tiers of a chip, and compute engines within or beside them."""

import math

from jaxcost.core.bounds import SHARE, Bounds
from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["ENGINE_PER_STACK", "PER_STACK", "TIERS", "Memory", "NearMemory"]

# Tiers of a chip by name: `chip.memory` is the main one, the others stand beside it.
TIERS = ("sram", "memory", "hbf", "host", "cxl", "ssd")
# What each stack brings of its own, and each stack's engines.
PER_STACK = ("capacity", "bandwidth", "write_bandwidth", "idle_power", "queue_depth")
ENGINE_PER_STACK = ("bandwidth", "flops", "idle_power", "power_limit")


@pytree
class NearMemory:
    """Engines within (PIM) or right beside (PNM) the memory of one tier; none where the bandwidth is 0."""

    bandwidth: Scalar = field("B/s", "bytes a second that all units together read on the spot", default=0.0)
    flops: Scalar = field("FLOP/s", "matmul rate of all units together, at any precision", default=0.0)
    energy_per_byte: Scalar = field("J/B", "energy of a byte read on the spot", default=0.0)
    energy_per_flop: Scalar = field("J/FLOP", "energy of a FLOP there", default=0.0)
    idle_power: Scalar = field("W", "power drawn with no work", default=0.0)
    power_limit: Scalar = field(
        "W", "power its reads may draw, which bounds its bandwidth; 0 for none", default=0.0
    )
    shard: Scalar = field(
        "B", "memory that one unit can reach: a bank, a stack; 0 for all of the tier", default=0.0
    )
    density: Scalar = field(
        "1", "capacity that is left of the tier where logic takes its place", default=1.0, bounds=SHARE
    )
    blocking: Scalar = field(
        "1", "1 where ordinary accesses of the tier wait while it works", default=0.0, bounds=SHARE
    )
    overhead: Scalar = field("s", "time of starting one operator there", default=0.0)


@pytree
class Memory:
    """A memory tier as one chip sees it: all its stacks, channels or devices together.

    What is 0 by default means: written as fast and at the same energy as read; reads of one granule, any number of
    them in flight; no prefetch buffer needed; never wears out, never forgets.
    """

    capacity: Scalar = field("B", "usable bytes; 0 where the chip has no such tier", default=0.0)
    bandwidth: Scalar = field("B/s", "peak read bandwidth", default=0.0)
    latency: Scalar = field("s", "time from a request to the first byte", default=0.0)
    energy_per_byte: Scalar = field("J/B", "device and interface energy of a byte read", default=0.0)
    carbon_per_byte: Scalar = field("kg/B", "CO2e of making a byte of capacity", default=0.0)
    write_bandwidth: Scalar = field("B/s", "peak write bandwidth; 0 for that of reads", default=0.0)
    write_energy_per_byte: Scalar = field(
        "J/B", "energy of a byte written; 0 for that of a read", default=0.0
    )
    granularity: Scalar = field("B", "least bytes one access moves: a burst, a page", default=0.0)
    read_size: Scalar = field("B", "contiguous bytes one read asks for; 0 for one granule", default=0.0)
    queue_depth: Scalar = field("1", "reads in flight at once; 0 for as many as it takes", default=0.0)
    buffer: Scalar = field(
        "B", "on-chip buffer that reads ahead land in; 0 for as much as it takes", default=0.0
    )
    in_order: Scalar = field(
        "1",
        "1 where each batch of reads waits for the one before, 0 where reads run ahead",
        default=0.0,
        bounds=SHARE,
    )
    idle_power: Scalar = field("W", "power drawn with no access, refresh included", default=0.0)
    price_per_byte: Scalar = field("USD/B", "price of capacity, at the time of the catalogue", default=0.0)
    price_trend: Scalar = field(
        "1/s", "relative growth of that price with time", default=0.0, bounds=Bounds(-math.inf)
    )
    endurance: Scalar = field("1", "program and erase cycles of a cell; 0 for no limit", default=0.0)
    write_amplification: Scalar = field("1", "bytes written inside for each byte written", default=1.0)
    retention: Scalar = field("s", "time after which data must be written again; 0 for never", default=0.0)
    refresh: Scalar = field(
        "1", "share of time that refresh takes; it doubles above 85 C", default=0.0, bounds=SHARE
    )
    temperature_limit: Scalar = field("K", "highest temperature of the cells; 0 for no limit", default=0.0)
    stacks: Scalar = field("1", "stacks, modules or devices", default=0.0)
    shoreline: Scalar = field("m", "edge of the die that one stack takes", default=0.0)
    interface_area: Scalar = field(
        "m^2", "area of the die that the interface of one stack takes", default=0.0
    )
    footprint: Scalar = field("m^2", "area of one stack on the interposer", default=0.0)
    chained: Scalar = field(
        "1",
        "1 where it stands behind the main memory and shares its edge and interface",
        default=0.0,
        bounds=SHARE,
    )
    near: NearMemory = field(doc="engines within or beside it", default=NearMemory)
