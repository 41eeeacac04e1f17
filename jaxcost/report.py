"""The result of one evaluation: breakdowns, and totals as properties over them."""

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import stack
from jaxcost.core.display import Displayed
from jaxcost.core.pytree import Scalar, derived, field, leaf_fields, pytree
from jaxcost.physics.compute.roofline import OpTimes
from jaxcost.physics.economics.area import Build
from jaxcost.physics.economics.carbon import Carbon, Embodied
from jaxcost.physics.economics.energy import Energy
from jaxcost.physics.economics.tco import Cost, Water
from jaxcost.physics.economics.thermal import Heat
from jaxcost.physics.memory.capacity import MemoryUse
from jaxcost.physics.memory.hierarchy import Tiers
from jaxcost.physics.network.reliability import Reliability

__all__ = ["CachePool", "Margins", "Power", "Report", "Schedule", "Shares", "Thermal", "Timing"]


@pytree
class Schedule:
    """How the prefill and the decode step make up the service of one batch.

    Without a chunk, the prompts of a batch are computed first, in steps of at most the token budget of the engine, and
    then decoded. With one, every prefill step is a mixed step: it processes `chunk` prompt tokens of one sequence
    together with a decode step of all sequences.
    """

    requests: Scalar = field("1", "requests in the batch")
    prompt: Scalar = field("token", "prompt tokens of a request, cached or not")
    output: Scalar = field("token", "tokens generated per request")
    billed: Scalar = field(
        "token",
        "tokens of a request that share its energy and cost: its output, or without output its prompt",
    )
    tokens_per_step: Scalar = field("token", "tokens a sequence gains per decode step")
    decode_steps: Scalar = field("1", "decode steps of one request, may be a fraction")
    prefill_steps: Scalar = field(
        "1", "prefill steps of the prompts of a microbatch; with a chunk, of one prompt"
    )
    prefill_runs: Scalar = field("1", "prefill steps through the pipeline before a request's first token")
    block_runs: Scalar = field("1", "decode steps before the first token, of the first diffusion block")
    interval: Scalar = field("1", "time between two steps of a sequence, in steps through the whole pipeline")
    passes: Scalar = field("1", "microbatches per pipeline stage")
    mixed_share: Scalar = field("1", "mixed steps per decode step, 0 without chunking")
    pure_share: Scalar = field("1", "decode steps without prefill per decode step")
    separate_prefill: Scalar = field("1", "prefill steps that are not part of decoding")
    chips: Scalar = field("1", "chips that the plan uses")


@pytree
class Margins:
    """1 - used / available for every constraint: at least 0 where it holds. A target of 0 leaves a margin of 1."""

    memory: Scalar = field("1", "bytes on the fullest chip against its capacity")
    chips: Scalar = field("1", "chips that the plan uses against the chips of the system")
    power: Scalar = field("1", "larger of the average powers of a chip in prefill and decode against its TDP")
    ttft: Scalar = field("1", "time to first token against its target")
    tpot: Scalar = field("1", "time per output token against its target")
    plan: Scalar = field(
        "1", "1 where the degrees of the plan can cut the model and there are requests, else -1", default=1.0
    )
    sequences: Scalar = field(
        "1", "requests of a replica against the most sequences of the engine", default=1.0
    )
    sram: Scalar = field("1", "bytes in on-chip memory against its capacity", default=1.0)
    hbf: Scalar = field("1", "bytes in flash stacks against their capacity", default=1.0)
    host: Scalar = field("1", "bytes in host memory against its capacity", default=1.0)
    cxl: Scalar = field("1", "bytes behind CXL against its capacity", default=1.0)
    ssd: Scalar = field("1", "bytes on drives against their capacity", default=1.0)
    temperature: Scalar = field(
        "1", "temperature rise over the coolant against the allowed rise", default=1.0
    )
    shoreline: Scalar = field(
        "1", "die edge that memory stacks and links use against the edge of the die", default=1.0
    )
    area: Scalar = field("1", "area of a die against the reticle", default=1.0)
    endurance: Scalar = field(
        "1", "write cycles over the hardware's life against the endurance of the cells", default=1.0
    )

    @derived("1")
    def worst(self) -> Scalar:
        """The smallest margin."""
        return jnp.min(stack([getattr(self, f.name) for f in leaf_fields(Margins)]), axis=0)


@pytree
class CachePool:
    """The memory that is left for the cache, and what it holds."""

    size: Scalar = field(
        "B", "memory for cache and states on the fullest chip, negative where the rest does not fit"
    )
    available: Scalar = field("B", "memory that the engine may use on the fullest chip, all tiers")
    requests: Scalar = field("1", "requests that fit at the full context of the traffic, in all replicas")
    kv_tokens: Scalar = field("token", "tokens of these requests together")


@pytree
class Shares:
    """The shares of a batch due to prefill; of a mixed step, the excess over a decode step."""

    seconds: Scalar = field("1", "share of the system's time")
    energy: Scalar = field("1", "share of the dynamic energy")


@pytree
class Thermal:
    """Heat in the two steps."""

    prefill: Heat = field(doc="the prefill step")
    decode: Heat = field(doc="the decode step")


@pytree
class Power:
    """Power of one chip in each step, and average power of all chips in use and of the facility."""

    prefill: Scalar = field("W", "one chip in the prefill step")
    decode: Scalar = field("W", "one chip in the decode step")
    prefill_clock: Scalar = field("1", "clock of the engines over the nominal clock, prefill step")
    decode_clock: Scalar = field("1", "clock of the engines over the nominal clock, decode step")
    chips: Scalar = field("W", "all chips in use, on average")
    hosts: Scalar = field("W", "their servers and network")
    pue: Scalar = field("1", "facility power over IT power")
    provisioned: Scalar = field("W", "provisioned IT power")
    racks: Scalar = field("1", "racks for the provisioned power")

    @derived("W")
    def cooling(self) -> Scalar:
        """Cooling and power conversion of the facility."""
        return (self.chips + self.hosts) * (self.pue - 1)

    @derived("W")
    def facility(self) -> Scalar:
        """Power at the facility's meter."""
        return self.chips + self.hosts + self.cooling


@pytree
class Timing:
    """Latency and throughput, from the two steps and the schedule."""

    prefill: OpTimes = field(doc="the prefill (or mixed) step, operator by operator")
    decode: OpTimes = field(doc="the decode step, operator by operator")
    schedule: Schedule = field(doc="schedule of the batch")

    @derived("s")
    def ttft(self) -> Scalar:
        """Time to first token: prefill, and the passes over the first block of a diffusion model."""
        s = self.schedule
        return s.prefill_runs * self.prefill.total + s.block_runs * self.decode.total

    @derived("s")
    def tpot(self) -> Scalar:
        """Time per output token of one request, after the first."""
        s = self.schedule
        step = s.mixed_share * self.prefill.total + s.pure_share * self.decode.total
        return s.interval * step / s.tokens_per_step

    @derived("s")
    def latency(self) -> Scalar:
        """Time from a request's arrival to its last token, without queueing."""
        return self.ttft + self.schedule.decode_steps * self.schedule.tokens_per_step * self.tpot

    @derived("s")
    def batch_seconds(self) -> Scalar:
        """Time the system spends on one batch of requests."""
        s = self.schedule
        first = s.separate_prefill * self.prefill.total + s.block_runs * self.decode.total
        return first + s.decode_steps * s.tokens_per_step * self.tpot

    @derived("token/s")
    def tokens_per_second(self) -> Scalar:
        """Output tokens per second of the whole system, prefill time included."""
        return self.schedule.requests * self.schedule.output / self.batch_seconds

    @derived("token/s")
    def decode_tokens_per_second(self) -> Scalar:
        """Output tokens per second while decoding: requests / TPOT."""
        return self.schedule.requests / self.tpot


@pytree
class Report(Timing, Displayed):
    """The result of `evaluate`, which `print` shows as tables.

    Energy, cost and carbon are per output token; where requests have no output, per prompt token.
    """

    memory: MemoryUse = field(doc="bytes on the fullest chip, all tiers together")
    pool: CachePool = field(doc="memory for the cache, and the requests that fit in it")
    tiers: Tiers = field(doc="memory tiers of the fullest chip")
    thermal: Thermal = field(doc="heat of the two steps")
    energy: Energy = field(doc="joules per output token, all chips")
    power: Power = field(doc="watts")
    build: Build = field(doc="area and bill of materials of one package")
    usd: Cost = field(doc="dollars per million output tokens")
    rent: Scalar = field("USD/Mtok", "cost of the same chip hours at the rental price, 0 where none is known")
    embodied: Embodied = field(doc="kilograms of CO2e of manufacturing one chip")
    carbon: Carbon = field(doc="grams of CO2e per million output tokens")
    water: Water = field(doc="water per million output tokens")
    flops: Scalar = field("FLOP/token", "matmul work of all chips")
    battery_share: Scalar = field("1", "share of the battery that a request uses, 0 without a battery")
    split: Shares = field(doc="shares due to prefill")
    reliability: Reliability = field(doc="late ranks, failing chips, spares")
    margins: Margins = field(doc="margin of every constraint")

    @derived("J/token")
    def joules_per_token(self) -> Scalar:
        """IT energy of an output token, prefill included, without PUE."""
        return self.energy.total

    @derived("W")
    def average_power(self) -> Scalar:
        """Average power of the chips and hosts in use."""
        return self.energy.total * self.schedule.requests * self.schedule.billed / self.batch_seconds

    @derived("USD/Mtok")
    def usd_per_mtok(self) -> Scalar:
        """Total cost of ownership of a million output tokens."""
        return self.usd.total

    @derived("g/Mtok")
    def gco2e_per_mtok(self) -> Scalar:
        """CO2e of a million output tokens, operational and embodied."""
        return self.carbon.total

    @derived("g/EFLOP")
    def carbon_intensity(self) -> Scalar:
        """Compute carbon intensity: CO2e of 10^18 utilised FLOPs, as defined by Google (arXiv:2502.01671)."""
        return self.gco2e_per_mtok * 1e12 / self.flops

    @derived("USD")
    def usd_per_query(self) -> Scalar:
        """Cost of a request: prompt x cost per input token + output x cost per output token."""
        return self.usd.total * self.schedule.billed / 1e6

    @derived("g")
    def gco2e_per_query(self) -> Scalar:
        """CO2e of a request, input and output."""
        return self.carbon.total * self.schedule.billed / 1e6

    @derived("J")
    def joules_per_query(self) -> Scalar:
        """Energy of a request, input and output."""
        return self.energy.total * self.schedule.billed

    @derived("USD/Mtok")
    def usd_per_input_mtok(self) -> Scalar:
        """Cost of prefill per million prompt tokens: hardware by share of time, electricity and water by energy."""
        return self._input(self.usd.total, self.usd.metered) * self._outputs_per_input

    @derived("USD/Mtok")
    def usd_per_output_mtok(self) -> Scalar:
        """Cost of decode per million output tokens."""
        return self.usd.total - self._input(self.usd.total, self.usd.metered)

    @derived("g/Mtok")
    def gco2e_per_input_mtok(self) -> Scalar:
        """CO2e of prefill per million prompt tokens: embodied by share of time, operational by energy."""
        return self._input(self.carbon.total, self.carbon.operation) * self._outputs_per_input

    @derived("g/Mtok")
    def gco2e_per_output_mtok(self) -> Scalar:
        """CO2e of decode per million output tokens."""
        return self.carbon.total - self._input(self.carbon.total, self.carbon.operation)

    @derived("J/token")
    def joules_per_input_token(self) -> Scalar:
        """Energy of prefill per prompt token: dynamic energy by work, idle chips and servers by share of time."""
        return self._input(self.energy.total, self.energy.total) * self._outputs_per_input

    @derived("J/token")
    def joules_per_output_token(self) -> Scalar:
        """Energy of decode per output token."""
        return self.energy.total - self._input(self.energy.total, self.energy.total)

    def _input(self, total: Scalar, powered: Scalar) -> Scalar:
        """Return the part of a total due to prefill: `powered` in proportion to energy, the rest to time."""
        e, share = self.energy, self.split
        chips = share.energy * e.dynamic + share.seconds * e.idle
        joules = chips * (1 + smooth.safe_div(e.fans, e.chips)) + share.seconds * e.host
        return share.seconds * (total - powered) + powered * smooth.safe_div(joules, e.total)

    @property
    def _outputs_per_input(self) -> Scalar:
        return smooth.safe_div(self.schedule.billed, self.schedule.prompt)
