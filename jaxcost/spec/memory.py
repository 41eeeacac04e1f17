"""Memory tiers of a chip, and compute engines in or near them."""

import math

from jaxcost.core.bounds import SHARE, Bounds
from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["ENGINE_PER_STACK", "PER_STACK", "TIERS", "Memory", "NearMemory"]

# Tiers of a chip by name: `chip.memory` is main memory, the others are auxiliary tiers.
TIERS = ("sram", "memory", "hbf", "host", "cxl", "ssd")
# Numbers of a tier, and of its engines, that are proportional to its stacks.
PER_STACK = ("capacity", "withheld", "bandwidth", "write_bandwidth", "idle_power", "queue_depth")
ENGINE_PER_STACK = ("bandwidth", "flops", "idle_power", "power_limit")


@pytree
class NearMemory:
    """Engines in (PIM) or near (PNM) the memory of one tier; none where the bandwidth is 0."""

    bandwidth: Scalar = field("B/s", "internal read bandwidth of all units together", default=0.0)
    flops: Scalar = field("FLOP/s", "matmul rate of all units together, at any precision", default=0.0)
    energy_per_byte: Scalar = field("J/B", "energy of a byte read by the units", default=0.0)
    energy_per_flop: Scalar = field("J/FLOP", "energy of a FLOP of the units", default=0.0)
    idle_power: Scalar = field("W", "power without work", default=0.0)
    power_limit: Scalar = field(
        "W", "power limit of the units' reads, which limits their bandwidth; 0 for none", default=0.0
    )
    shard: Scalar = field(
        "B", "memory that one unit can access, such as a bank or a stack; 0 for the whole tier", default=0.0
    )
    density: Scalar = field(
        "1", "share of the tier's capacity left beside the logic", default=1.0, bounds=SHARE
    )
    blocking: Scalar = field(
        "1", "1 where ordinary accesses wait while the units work", default=0.0, bounds=SHARE
    )
    overhead: Scalar = field("s", "launch of one operator near memory", default=0.0)


@pytree
class Memory:
    """A memory tier of one chip: all its stacks, channels or devices together.

    With the defaults of 0, writes have the bandwidth and the energy of reads, reads are one granule with any number in
    flight, the prefetch buffer is unlimited, and endurance and retention are unlimited.
    """

    capacity: Scalar = field(
        "B", "bytes that the driver reports; 0 where the chip does not have the tier", default=0.0
    )
    withheld: Scalar = field(
        "B",
        "bytes of the stacks that firmware, ECC and driver take and the driver does not report",
        default=0.0,
    )
    bandwidth: Scalar = field("B/s", "peak read bandwidth", default=0.0)
    latency: Scalar = field("s", "time from a request to the first byte", default=0.0)
    energy_per_byte: Scalar = field("J/B", "device and interface energy of a byte read", default=0.0)
    carbon_per_byte: Scalar = field("kg/B", "embodied CO2e of a byte of the stacks", default=0.0)
    write_bandwidth: Scalar = field("B/s", "peak write bandwidth; 0 for that of reads", default=0.0)
    write_energy_per_byte: Scalar = field(
        "J/B", "energy of a byte written; 0 for that of a read", default=0.0
    )
    granularity: Scalar = field("B", "bytes of the smallest access: a burst, a page", default=0.0)
    read_size: Scalar = field("B", "contiguous bytes of one read; 0 for one granule", default=0.0)
    queue_depth: Scalar = field("1", "reads in flight; 0 for unlimited", default=0.0)
    buffer: Scalar = field("B", "on-chip prefetch buffer; 0 for unlimited", default=0.0)
    in_order: Scalar = field(
        "1",
        "1 where each batch of reads waits for the previous one, 0 where reads are prefetched",
        default=0.0,
        bounds=SHARE,
    )
    idle_power: Scalar = field("W", "power without accesses, refresh included", default=0.0)
    price_per_byte: Scalar = field(
        "USD/B", "price of a byte of the stacks, at the time of the catalogue", default=0.0
    )
    price_trend: Scalar = field(
        "1/s", "relative growth of that price with time", default=0.0, bounds=Bounds(-math.inf)
    )
    endurance: Scalar = field("1", "program and erase cycles of a cell; 0 for no limit", default=0.0)
    write_amplification: Scalar = field("1", "bytes written to cells per byte written", default=1.0)
    retention: Scalar = field("s", "time after which data must be rewritten; 0 for never", default=0.0)
    refresh: Scalar = field(
        "1", "share of time that refresh takes; it doubles above 85 C", default=0.0, bounds=SHARE
    )
    temperature_limit: Scalar = field("K", "highest temperature of the cells; 0 for no limit", default=0.0)
    stacks: Scalar = field("1", "stacks, modules or devices", default=0.0)
    shoreline: Scalar = field("m", "die edge of one stack", default=0.0)
    interface_area: Scalar = field("m^2", "die area of the interface of one stack", default=0.0)
    footprint: Scalar = field("m^2", "area of one stack on the interposer", default=0.0)
    chained: Scalar = field(
        "1",
        "1 where it is daisy-chained behind main memory and shares its edge and interface",
        default=0.0,
        bounds=SHARE,
    )
    near: NearMemory = field(doc="engines in or near the memory", default=NearMemory)
