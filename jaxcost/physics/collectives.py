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

__all__ = ["Message", "all_reduce", "all_to_all", "point_to_point"]


@pytree
class Message:
    """What one collective costs one rank."""

    seconds: Scalar = field("s", "duration")
    scale_up_bytes: Scalar = field("B", "bytes sent within the domain")
    scale_out_bytes: Scalar = field("B", "bytes sent between domains")


def _levels(ranks: Scalar, fabric: Fabric) -> tuple[Scalar, Scalar]:
    near = jnp.minimum(ranks, fabric.domain)
    return near, ranks / near


def all_reduce(size: Scalar, ranks: Scalar, fabric: Fabric, efficiency: Scalar, tau: Scalar) -> Message:
    """Sum a vector over all ranks: within each domain, then across domains on the share each rank holds.

    Within: the faster of one-shot, a + (n - 1) S / w, and two-shot, 2 a + 2 (n - 1) / n S / w.
    Across r domains, on S / n bytes: the faster of recursive doubling, lg r (a + S / w), and Rabenseifner's,
    2 lg r a + 2 (r - 1) / r S / w, with lg r rounded up.
    """
    near, far = _levels(ranks, fabric)
    inside, outside = fabric.scale_up, fabric.scale_out
    send = smooth.safe_div(size, inside.bandwidth * efficiency)
    one_shot = inside.latency + (near - 1) * send
    two_shot = 2 * inside.latency + 2 * (near - 1) / near * send
    shared = size / near
    send_out = smooth.safe_div(shared, outside.bandwidth * efficiency)
    rounds = smooth.ceil_log2(far)
    doubling = rounds * (outside.latency + send_out)
    halving = 2 * rounds * outside.latency + 2 * (far - 1) / far * send_out
    return Message(
        seconds=jnp.where(near > 1, smooth.minimum(one_shot, two_shot, tau), 0)
        + jnp.where(far > 1, smooth.minimum(doubling, halving, tau), 0),
        scale_up_bytes=2 * (near - 1) / near * size,
        scale_out_bytes=2 * (far - 1) / far * shared,
    )


def all_to_all(size: Scalar, ranks: Scalar, fabric: Fabric, efficiency: Scalar) -> Message:
    """Send a different part of S bytes to every rank, all pairs at once, within and across in turn.

    a [n > 1] + S (near - 1) / n / w_up + a_out [far > 1] + S (far - 1) / far / w_out.
    """
    near, far = _levels(ranks, fabric)
    inside, outside = fabric.scale_up, fabric.scale_out
    up, out = size * (near - 1) / ranks, size * (far - 1) / far
    return Message(
        seconds=jnp.where(near > 1, inside.latency, 0)
        + smooth.safe_div(up, inside.bandwidth * efficiency)
        + jnp.where(far > 1, outside.latency, 0)
        + smooth.safe_div(out, outside.bandwidth * efficiency),
        scale_up_bytes=up,
        scale_out_bytes=out,
    )


def point_to_point(size: Scalar, span: Scalar, fabric: Fabric, efficiency: Scalar) -> Message:
    """Send S bytes to one other rank: over scale-out where a group of `span` chips outgrows the domain."""
    outside = span > fabric.domain
    latency = jnp.where(outside, fabric.scale_out.latency, fabric.scale_up.latency)
    bandwidth = jnp.where(outside, fabric.scale_out.bandwidth, fabric.scale_up.bandwidth)
    return Message(
        seconds=latency + smooth.safe_div(size, bandwidth * efficiency),
        scale_up_bytes=jnp.where(outside, 0, size),
        scale_out_bytes=jnp.where(outside, size, 0),
    )
