"""The result of `serve`: a deployment for a rate of requests, as breakdowns and totals over them."""

import jax.numpy as jnp

from jaxcost.core.pytree import Scalar, derived, field, leaf_fields, pytree
from jaxcost.physics.economics.carbon import Carbon
from jaxcost.physics.economics.tco import Cost
from jaxcost.spec.plan import Plan

__all__ = ["FirstToken", "Joules", "Service", "ServiceMargins"]


@pytree
class FirstToken:
    """Mean time to first token, by parts."""

    frontend: Scalar = field("s", "front end of the engine: time outside of steps")
    prefill_wait: Scalar = field("s", "wait for the current step and for earlier prefills")
    slot_wait: Scalar = field("s", "wait for memory")
    prefill: Scalar = field("s", "prefill")
    transfer: Scalar = field("s", "transfer of the cache from the prefill pool")
    block: Scalar = field("s", "passes over the first block of a diffusion model")

    @derived("s")
    def total(self) -> Scalar:
        """Mean time to first token."""
        return self.frontend + self.prefill_wait + self.slot_wait + self.prefill + self.transfer + self.block


@pytree
class Joules:
    """Joules per output token, all pools."""

    prefill: Scalar = field("J/token", "dynamic energy of prefill")
    decode: Scalar = field("J/token", "dynamic energy of decode")
    idle: Scalar = field("J/token", "idle energy of the chips")
    host: Scalar = field("J/token", "servers and network around the chips")

    @derived("J/token")
    def total(self) -> Scalar:
        """Energy of an output token."""
        return self.prefill + self.decode + self.idle + self.host


@pytree
class ServiceMargins:
    """1 - used / available for every constraint, at the operating point: at least 0 where the constraint holds."""

    memory: Scalar = field("1", "bytes in the fullest memory tier")
    ttft: Scalar = field("1", "mean time to first token against its target, 1 without one")
    tpot: Scalar = field("1", "mean time per output token against its target, 1 without one")
    prefill: Scalar = field("1", "utilisation of prefill")
    slots: Scalar = field("1", "rate against the rate that full slots serve")
    power: Scalar = field(
        "1", "larger of the average powers of a chip in prefill and decode, against its TDP"
    )
    hardware: Scalar = field("1", "worst margin of chips, plan, temperature, shoreline and endurance")

    @derived("1")
    def worst(self) -> Scalar:
        """The smallest margin."""
        named = [jnp.asarray(getattr(self, f.name)) for f in leaf_fields(ServiceMargins)]
        return jnp.min(jnp.stack(jnp.broadcast_arrays(*named)), axis=0)


@pytree
class Service:
    """A deployment that serves a rate of requests. Energy, cost and carbon are per output token; where
    requests have no output, per prompt token.
    """

    plan: Plan = field(doc="plan of a replica")
    rate: Scalar = field("1/s", "offered requests; without a rate, the largest rate of one replica")
    output: Scalar = field("token", "output tokens per request")
    billed: Scalar = field(
        "token",
        "tokens of a request that share its energy and cost: its output, or without output its prompt",
    )
    largest_rate: Scalar = field("1/s", "largest rate of a replica within memory and targets")
    replicas: Scalar = field("1", "replicas of the plan")
    replica_chips: Scalar = field("1", "chips of a replica")
    prefill_replicas: Scalar = field("1", "replicas in the prefill pool, 0 without one")
    prefill_replica_chips: Scalar = field("1", "chips of a replica in the prefill pool, 0 without one")
    in_flight: Scalar = field("1", "mean requests in a replica, from prefill to last token")
    slots: Scalar = field("1", "requests of full length that fit in a replica's memory")
    prefill_busy: Scalar = field("1", "utilisation of prefill")
    slots_busy: Scalar = field("1", "utilisation of the slots")
    tpot: Scalar = field("s", "mean time per output token")
    first: FirstToken = field(doc="time to first token, by parts")
    ttft_met: Scalar = field("1", "probability that TTFT is within its target")
    tpot_met: Scalar = field("1", "probability that TPOT is within its target")
    joules: Joules = field(doc="joules per output token")
    usd: Cost = field(doc="dollars per million output tokens")
    carbon: Carbon = field(doc="grams of CO2e per million output tokens")
    margins: ServiceMargins = field(doc="slack of every constraint")

    @derived("s")
    def ttft(self) -> Scalar:
        """Mean time to first token."""
        return self.first.total

    @derived("1")
    def chips(self) -> Scalar:
        """Chips of all pools."""
        return self.replicas * self.replica_chips + self.prefill_replicas * self.prefill_replica_chips

    @derived("token/s")
    def tokens_per_second(self) -> Scalar:
        """Output tokens a second of the whole deployment."""
        return self.rate * self.output

    @derived("1/s")
    def goodput(self) -> Scalar:
        """Requests per second that meet both targets: rate x P(TTFT within target) x P(TPOT within target)."""
        return self.rate * self.ttft_met * self.tpot_met

    @derived("J/token")
    def joules_per_token(self) -> Scalar:
        """Energy of an output token at the servers' plugs."""
        return self.joules.total

    @derived("USD/Mtok")
    def usd_per_mtok(self) -> Scalar:
        """Total cost of ownership of a million output tokens."""
        return self.usd.total

    @derived("g/Mtok")
    def gco2e_per_mtok(self) -> Scalar:
        """CO2e of a million output tokens."""
        return self.carbon.total

    @derived("J")
    def joules_per_query(self) -> Scalar:
        """Energy of a request."""
        return self.joules.total * self.billed

    @derived("USD")
    def usd_per_query(self) -> Scalar:
        """Cost of a request."""
        return self.usd.total * self.billed / 1e6

    @derived("g")
    def gco2e_per_query(self) -> Scalar:
        """CO2e of a request."""
        return self.carbon.total * self.billed / 1e6
