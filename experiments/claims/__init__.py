"""Published claims about LLM inference, one file per source, with jaxcost's results for their stated inputs."""

import functools
from collections.abc import Callable, Iterator

from claims.agents import agents
from claims.common import Claim
from claims.energy import energy
from claims.flash import buffer_rule, flash_arithmetic, sandisk, yu
from claims.in_memory import attacc, hpim, neupims
from claims.liminal import liminal
from claims.llm_in_a_flash import in_a_flash
from claims.near_memory import base_die, shards
from claims.pim_ai import pim_ai, pim_ai_phone
from claims.rpu import rpu, rpu_energy
from claims.rpu_memory import rpu_memory
from claims.tereffic import tereffic
from claims.trends import growth, memory_wall
from claims.walls import bandwidth, capacity, latency, memories

__all__ = ["TABLE", "Claim", "claims"]

TABLE: tuple[Callable[[], Iterator[Claim]], ...] = (
    rpu,
    rpu_energy,
    rpu_memory,
    liminal,
    tereffic,
    in_a_flash,
    attacc,
    neupims,
    hpim,
    pim_ai,
    pim_ai_phone,
    agents,
    energy,
    memory_wall,
    yu,
    buffer_rule,
    sandisk,
    memories,
    shards,
    base_die,
    growth,
    bandwidth,
    capacity,
    latency,
    flash_arithmetic,
)


@functools.cache
def claims(of: Callable[[], Iterator[Claim]]) -> tuple[Claim, ...]:
    """All rows of one function of `TABLE`, evaluated once."""
    return tuple(of())
