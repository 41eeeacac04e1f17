"""Time and traffic of the messages between chips, in closed form.

Symbols: n ranks, S bytes of the whole vector on a rank, a latency of a message, w bandwidth of a rank in one
direction. Ranks fill a scale-up domain first; what is left lies across the scale-out network. Within a domain
every pair is taken to reach each other without contention. Sources: Thakur, Rabenseifner and Gropp 2005
(doi 10.1177/1094342005051521); Chan et al. 2007.
"""

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.fabric import Fabric

__all__ = ["Message", "Wires", "all_reduce", "all_to_all", "point_to_point", "wires"]


@pytree
class Message:
    """What one collective costs one rank."""

    seconds: Scalar = field("s", "duration")
    scale_up_bytes: Scalar = field("B", "bytes sent within the domain")
    scale_out_bytes: Scalar = field("B", "bytes sent between domains")


@pytree
class Wires:
    """The fabric as messages see it: latency and seconds per byte of both levels."""

    domain: Scalar = field("1", "chips within one scale-up domain")
    near_latency: Scalar = field("s", "time of an empty message within the domain")
    near_per_byte: Scalar = field("s/B", "within the domain")
    far_latency: Scalar = field("s", "time of an empty message between domains")
    far_per_byte: Scalar = field("s/B", "between domains")


def wires(fabric: Fabric, efficiency: Scalar) -> Wires:
    """Work out the fabric's unit costs once; a level without bandwidth costs nothing and is never used."""
    near, far = fabric.scale_up, fabric.scale_out
    return Wires(
        domain=fabric.domain,
        near_latency=near.latency,
        near_per_byte=smooth.safe_div(1.0, near.bandwidth * efficiency),
        far_latency=far.latency,
        far_per_byte=smooth.safe_div(1.0, far.bandwidth * efficiency),
    )


def all_reduce(size: Scalar, ranks: Scalar, w: Wires, tau: Scalar) -> Message:
    """Sum a vector over all ranks: within each domain, then across domains on the share each rank holds.

    Within: the faster of one-shot, a + (n - 1) S / w, and two-shot, 2 a + 2 (n - 1) / n S / w.
    Across r domains, on S / n bytes: the faster of recursive doubling, lg r (a + S / w), and Rabenseifner's,
    2 lg r a + 2 (r - 1) / r S / w, with lg r rounded up.
    """
    near = jnp.minimum(ranks, w.domain)
    far = ranks / near
    shared = size / near
    near_bytes, far_bytes = 2 * (size - shared), 2 * (shared - size / ranks)
    one_shot = w.near_latency + (near - 1) * size * w.near_per_byte
    two_shot = 2 * w.near_latency + near_bytes * w.near_per_byte
    rounds = smooth.ceil_log2(far)
    doubling = rounds * (w.far_latency + shared * w.far_per_byte)
    halving = 2 * rounds * w.far_latency + far_bytes * w.far_per_byte
    return Message(
        seconds=jnp.where(near > 1, smooth.minimum(one_shot, two_shot, tau), 0)
        + jnp.where(far > 1, smooth.minimum(doubling, halving, tau), 0),
        scale_up_bytes=near_bytes,
        scale_out_bytes=far_bytes,
    )


def all_to_all(size: Scalar, ranks: Scalar, w: Wires) -> Message:
    """Send a different part of S bytes to every rank, all pairs at once, within and across in turn.

    a [near > 1] + S (near - 1) / n / w  +  a [far > 1] + S (far - 1) / far / w, with n = near x far ranks.
    """
    near = jnp.minimum(ranks, w.domain)
    far = ranks / near
    near_bytes, far_bytes = size * (near - 1) / ranks, size * (1 - near / ranks)
    return Message(
        seconds=jnp.where(near > 1, w.near_latency, 0)
        + near_bytes * w.near_per_byte
        + jnp.where(far > 1, w.far_latency, 0)
        + far_bytes * w.far_per_byte,
        scale_up_bytes=near_bytes,
        scale_out_bytes=far_bytes,
    )


def point_to_point(size: Scalar, span: Scalar, w: Wires) -> Message:
    """Send S bytes to one other rank: over scale-out where a group of `span` chips outgrows the domain."""
    outside = span > w.domain
    latency = jnp.where(outside, w.far_latency, w.near_latency)
    per_byte = jnp.where(outside, w.far_per_byte, w.near_per_byte)
    return Message(
        seconds=latency + size * per_byte,
        scale_up_bytes=jnp.where(outside, 0, size),
        scale_out_bytes=jnp.where(outside, size, 0),
    )
