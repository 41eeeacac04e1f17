"""How well the kernels of a serving library use a chip: a few physical numbers per family of kernels.

The defaults describe ideal kernels. Efficiencies are shares of datasheet peaks and overheads are seconds, so that
numbers calibrated on one chip carry over to another.
"""

from jaxcost.core.bounds import SHARE
from jaxcost.core.pytree import Scalar, field, pytree

__all__ = [
    "UNLIMITED",
    "AllToAllKernel",
    "AttentionKernel",
    "AttentionKernels",
    "CollectiveKernel",
    "CustomAllReduceKernel",
    "ElementwiseKernel",
    "EngineOverheads",
    "InternodeKernel",
    "Kernels",
    "MatmulKernel",
    "MatmulKernels",
    "MixtureKernel",
    "MixtureKernels",
]

UNLIMITED = 1e9  # a rate or a count so large that it never limits anything

_SERIAL = (
    "how memory and compute time combine: 0 for the longer of the two, 1 for their sum, by `smooth.maximum`"
)
_STARTUP = (
    "how start-up and transfer time combine: 0 for the longer, 1 for their sum; above 1, small messages use a "
    "protocol of lower latency and lower bandwidth"
)


@pytree
class ElementwiseKernel:
    """Kernels that read, compute element by element and write: norms, activations, rotary embeddings."""

    launch: Scalar = field("s", "time of an empty kernel", default=0.0)
    memory: Scalar = field("1", "achieved share of the memory bandwidth", default=1.0)


@pytree
class MatmulKernel:
    """A matmul of activations [m, k] with weights [k, n]."""

    launch: Scalar = field("s", "time of an empty kernel", default=0.0)
    depth: Scalar = field(
        "s", "time per element of the inner dimension k, which each core loops over", default=0.0
    )
    memory: Scalar = field("1", "achieved share of the memory bandwidth", default=1.0)
    matmul: Scalar = field("1", "achieved share of the matmul peak", default=1.0)
    serial: Scalar = field("1", _SERIAL, default=0.0)
    rows: Scalar = field("1", "rows of the smallest tile; fewer rows cost as many", default=0.0)
    waves: Scalar = field(
        "1",
        "exponent of wave quantization: 0 ignores the partly filled last wave of tiles, 1 counts it as full",
        default=0.0,
    )
    quantise: Scalar = field(
        "1", "passes over memory that convert activations to 8 bits or fewer", default=0.0
    )


@pytree
class AttentionKernel:
    """Softmax attention of new queries over cached keys and values, latent attention included.

    A task is one tile of queries over one split of the keys. Keys are split to fill the cores; a second kernel then
    reduces the splits.
    """

    launch: Scalar = field("s", "time of an empty kernel", default=0.0)
    reduce: Scalar = field("s", "time of the kernel that reduces the splits", default=0.0)
    memory: Scalar = field("1", "achieved share of the memory bandwidth", default=1.0)
    cache: Scalar = field(
        "B", "bytes that the last-level cache delivers per cycle and core", default=UNLIMITED
    )
    capacity: Scalar = field(
        "1", "share of the last-level cache that keeps its content between repeated runs", default=1e-9
    )
    core: Scalar = field(
        "1",
        "bandwidth that one core reaches, over the memory bandwidth divided by the cores",
        default=UNLIMITED,
    )
    fill: Scalar = field("1", "tasks per core that splitting aims at", default=UNLIMITED)
    packed: Scalar = field(
        "1", "1 where the query heads of one key-value head share a tile, 0 where they do not", default=1.0
    )
    packed_window: Scalar = field("1", "`packed` of sliding-window attention", default=1.0)
    slots: Scalar = field("1", "tasks that a core runs concurrently", default=1.0)
    splits: Scalar = field("1", "most splits of one sequence", default=UNLIMITED)
    block: Scalar = field("1", "fewest keys of a split", default=1.0)
    aware: Scalar = field(
        "1", "1 where the number of splits follows the window, 0 where it follows all keys", default=1.0
    )
    prologue: Scalar = field("s", "fixed time of a task", default=0.0)
    matmul: Scalar = field("1", "achieved share of the matmul peak", default=1.0)
    exponentials: Scalar = field(
        "1", "exponentials reached over those of the special function units", default=UNLIMITED
    )
    pad: Scalar = field("1", "keys computed beyond the mask", default=0.0)
    unskipped: Scalar = field("1", "share of the keys outside the window that is computed", default=0.0)
    traffic: Scalar = field("1", "bytes of keys and values moved over the minimum", default=1.0)
    traffic_ends: Scalar = field("1", "bytes of queries and outputs moved over the minimum", default=1.0)
    rows: Scalar = field("1", "rows of a tile of queries", default=1.0)
    waves: Scalar = field(
        "1",
        "exponent of wave quantization: 0 ignores the partly filled last wave of tasks, 1 counts it as full",
        default=0.0,
    )
    serial: Scalar = field("1", _SERIAL, default=0.0)


@pytree
class MixtureKernel:
    """The routed experts of one rank: two grouped matmuls, with routing and permutation around them."""

    launch: Scalar = field("s", "time without work", default=0.0)
    expert: Scalar = field("s", "time per expert stored on the rank, used or not", default=0.0)
    memory: Scalar = field("1", "achieved share of the memory bandwidth", default=1.0)
    cache: Scalar = field("1", "bandwidth of the last-level cache over that of memory", default=1.0)
    resident: Scalar = field(
        "1", "share of the last-level cache that keeps weights between repeated runs", default=1e-9
    )
    matmul: Scalar = field("1", "achieved share of the matmul peak", default=1.0)
    rows: Scalar = field("1", "rows of a tile, to which the rows of each expert are padded", default=0.0)
    padding: Scalar = field(
        "1",
        "how rows and padding combine: 0 for the larger of rows and padded tiles, 1 for their sum",
        default=0.0,
    )
    depth: Scalar = field(
        "1", "overhead of starting and ending a tile, in elements of the inner dimension", default=0.0
    )
    serial: Scalar = field("1", _SERIAL, default=0.0)
    passes: Scalar = field("1", "further passes of activations through memory", default=0.0)
    remote_fraction: Scalar = field(
        "1",
        "share of the rows routed to experts of other ranks that is moved as well",
        default=0.0,
        formerly="foreign",
    )


@pytree
class CollectiveKernel:
    """Ring collectives of a communication library."""

    launch: Scalar = field("s", "time of starting a collective", default=0.0)
    round: Scalar = field("s", "time of one message without its hops", default=0.0)
    share: Scalar = field("1", "achieved share of the link bandwidth", default=1.0)
    copies: Scalar = field("1", "passes of a rank's own shard through memory", default=0.0)
    staging: Scalar = field(
        "1", "passes of the whole vector through memory, to and from buffers", default=0.0
    )
    protocol_switch: Scalar = field("1", _STARTUP, default=1.0, formerly="change")
    contention_exponent: Scalar = field(
        "1",
        "exponent of the ranks by which a byte slows down on a bus that they share",
        default=0.0,
        formerly="crowd",
    )


@pytree
class CustomAllReduceKernel(CollectiveKernel):
    """A serving library's own one-shot or two-shot all-reduce; larger vectors use the ring."""

    limit: Scalar = field("B", "largest vector it takes", default=1e15)
    floor: Scalar = field("1", "share of its launch that larger vectors pay too", default=0.0)


@pytree
class InternodeKernel:
    """A communication library beyond a scale-up domain: what it adds to the link between nodes.

    A round of messages takes `round` in addition to the overhead of the link, and a byte 1 / (share bandwidth).
    """

    round: Scalar = field(
        "s",
        "time that copies, flags and proxy threads add to a round of messages between domains",
        default=0.0,
    )
    share: Scalar = field("1", "achieved share of the link bandwidth", default=1.0, bounds=SHARE)


@pytree
class AllToAllKernel:
    """Dispatch of tokens to the ranks of their experts, or combine of the results."""

    launch: Scalar = field("s", "time of starting it, synchronization of the ranks included", default=0.0)
    expert: Scalar = field("s", "time per expert of the group", default=0.0)
    chunk: Scalar = field("1", "rows that a core sends before the first arrives", default=0.0)
    share: Scalar = field("1", "achieved share of the link bandwidth", default=1.0)
    receiver: Scalar = field(
        "1",
        "time that a core takes to unpack one expert's rows, over the time of streaming them",
        default=0.0,
    )
    protocol_switch: Scalar = field("1", _STARTUP, default=1.0, formerly="change")
    copies: Scalar = field(
        "1", "1 where a token is sent once per expert, 0 where it is sent once per rank", default=0.0
    )


@pytree
class MatmulKernels:
    """Matmul kernels, by the bits of the wider operand."""

    bits_16: MatmulKernel = field(doc="16 bits", default=MatmulKernel)
    bits_8: MatmulKernel = field(doc="8 bits or fewer", default=MatmulKernel)


@pytree
class AttentionKernels:
    """Attention kernels, by the bits of a cached element."""

    bits_16: AttentionKernel = field(doc="16 bits", default=AttentionKernel)
    bits_8: AttentionKernel = field(doc="8 bits or fewer", default=AttentionKernel)


@pytree
class MixtureKernels:
    """Kernels of routed experts, by the bits of their weights."""

    bits_16: MixtureKernel = field(doc="16 bits", default=MixtureKernel)
    bits_8: MixtureKernel = field(doc="8 bits", default=MixtureKernel)
    bits_4: MixtureKernel = field(doc="4 bits", default=MixtureKernel)


@pytree
class EngineOverheads:
    """What the serving engine adds to the kernels: host time, and the order of prompts.

    `layer` and `sequence` are part of every step; the other numbers describe how steps make up the service of several
    users (`explore/serve/closed_loops.py`).
    """

    layer: Scalar = field("s", "time per layer and step in addition to its kernels", default=0.0)
    sequence: Scalar = field(
        "s", "time per sequence and step: scheduling, sampling, output processing", default=0.0
    )
    eager_launch_floor: Scalar = field(
        "s",
        "least time of a layer in a step with prompts, whose launches no CUDA graph has captured",
        default=0.0,
        formerly="eager",
    )
    frontend_latency: Scalar = field(
        "s", "time that a request spends outside steps before its first token", default=0.0, formerly="front"
    )
    burst_size: Scalar = field(
        "1",
        "users with equal requests whose next prompts arrive in one step; UNLIMITED where prompts always go before "
        "decoding",
        default=1.0,
        formerly="bunch",
    )


@pytree
class Kernels:
    """The kernels of a serving library on a chip."""

    elementwise: ElementwiseKernel = field(doc="element-wise kernels", default=ElementwiseKernel)
    matmul: MatmulKernels = field(doc="dense matmuls", default=MatmulKernels)
    attention_prefill: AttentionKernels = field(doc="attention of prompts", default=AttentionKernels)
    attention_decode: AttentionKernels = field(
        doc="attention of one new token per sequence", default=AttentionKernels
    )
    latent_prefill: AttentionKernels = field(doc="latent attention of prompts", default=AttentionKernels)
    latent_decode: AttentionKernels = field(
        doc="latent attention of one new token per sequence", default=AttentionKernels
    )
    mixture: MixtureKernels = field(doc="routed experts", default=MixtureKernels)
    collective: CollectiveKernel | None = field(
        doc="collectives within a scale-up domain; None for the fastest algorithm at the latencies of the links",
        default=None,
    )
    all_reduce: CustomAllReduceKernel | None = field(
        doc="the library's own all-reduce; None where it has none", default=None
    )
    dispatch: AllToAllKernel | None = field(
        doc="dispatch of tokens within a domain; None for the closed form", default=None
    )
    combine: AllToAllKernel | None = field(doc="combine of the experts' results; None as above", default=None)
    internode: InternodeKernel | None = field(
        doc="messages between scale-up domains; None for the latencies and the bandwidth of the link",
        default=None,
    )
    engine: EngineOverheads = field(doc="overheads of the serving engine", default=EngineOverheads)
