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
_ANY_RATE = 1e15  # bytes per cycle that never bind, though every query may read all keys again

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
    steps: Scalar = field(
        "1", "clock cycles per element of the inner dimension, in addition to `depth`", default=0.0
    )
    memory: Scalar = field("1", "achieved share of the memory bandwidth", default=1.0)
    cache: Scalar = field(
        "B",
        "bytes that the last-level cache delivers per cycle and core, to repeated runs",
        default=UNLIMITED,
    )
    resident: Scalar = field(
        "1", "share of the last-level cache that keeps weights between repeated runs", default=1e-9
    )
    matmul: Scalar = field("1", "achieved share of the matmul peak", default=1.0)
    serial: Scalar = field("1", _SERIAL, default=0.0)
    rows: Scalar = field("1", "rows of the smallest tile; fewer rows cost as many", default=0.0)
    ends: Scalar = field(
        "1", "overhead of starting and ending a tile, in elements of the inner dimension", default=0.0
    )
    waves: Scalar = field(
        "1",
        "exponent of wave quantization: 0 ignores the partly filled last wave of tiles, 1 counts it as full",
        default=0.0,
    )
    quantise: Scalar = field(
        "1", "passes over memory that convert activations to 8 bits or fewer", default=0.0
    )
    quantise_launch: Scalar = field(
        "s", "time of the kernels that convert activations, without their passes", default=0.0
    )
    quantise_share: Scalar = field(
        "1",
        "share of the conversion that serving runs as kernels of its own: 0 where the kernel before a matmul does it, "
        "1 as in a benchmark of the matmul alone",
        default=1.0,
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
    core: Scalar = field("B", "bytes of keys and values that a task streams per cycle", default=_ANY_RATE)
    convert: Scalar = field(
        "B",
        "bytes of keys and values per cycle and core that another kernel converts to 16 bits before",
        default=_ANY_RATE,
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
    adapt: Scalar = field(
        "1",
        "exponent by which tiles shrink with the slots per local expert, from `rows` to 16: 0 for tiles of one height",
        default=0.0,
    )
    untuned_memory: Scalar = field(
        "1",
        "share of `memory` that is left where tile sizes are not tuned to the shape; served models count as tuned",
        default=1.0,
    )
    untuned_matmul: Scalar = field("1", "share of `matmul` that is left there", default=1.0)
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
    """Ring collectives of a communication library.

    `launch` and `round` are those of cores at 1.98 GHz, the highest clock of an H100: they are mostly instructions and
    take as many cycles on other chips.
    """

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
    internode_round: Scalar = field(
        "s", "time that every doubling of the nodes adds, beyond the latency of the network", default=0.0
    )
    internode_share: Scalar = field(
        "1", "achieved share of the bandwidth of the network between nodes", default=1.0
    )
    forwarding: Scalar = field(
        "1",
        "bytes on links of the domain that a byte to another node takes the time of, as cores forward it there",
        default=0.0,
    )


@pytree
class MatmulKernels:
    """Matmul kernels, by the bits of their operands."""

    bits_16: MatmulKernel = field(doc="16-bit weights and inputs", default=MatmulKernel)
    bits_8: MatmulKernel = field(
        doc="inputs of 8 bits or fewer, weights of as many or fewer", default=MatmulKernel
    )
    bits_8_block: MatmulKernel = field(
        doc="8-bit inputs and weights, a scale per block: 8 to 8.3 bits a weight", default=MatmulKernel
    )
    weights_8: MatmulKernel = field(doc="8-bit weights, 16-bit inputs", default=MatmulKernel)
    weights_4: MatmulKernel = field(doc="weights of 5 bits or fewer, 16-bit inputs", default=MatmulKernel)
    bits_4: MatmulKernel = field(doc="weights and inputs of 5 bits or fewer", default=MatmulKernel)


@pytree
class AttentionKernels:
    """Attention kernels, by the bits of a cached element and of the arithmetic."""

    bits_16: AttentionKernel = field(doc="16 bits", default=AttentionKernel)
    bits_8: AttentionKernel = field(
        doc="8 bits or fewer in the cache, 16-bit arithmetic", default=AttentionKernel
    )
    compute_8: AttentionKernel = field(
        doc="8 bits or fewer in the cache and in the arithmetic", default=AttentionKernel
    )


@pytree
class MixtureKernels:
    """Kernels of routed experts, by the bits of their weights, scales included."""

    bits_16: MixtureKernel = field(doc="above 10 bits", default=MixtureKernel)
    bits_8: MixtureKernel = field(doc="above 5 bits: 8 bits with few scales", default=MixtureKernel)
    bits_8_block: MixtureKernel = field(
        doc="above 8 and up to 8.3 bits: 8 bits with a scale per block",
        default=MixtureKernel,
    )
    bits_4: MixtureKernel = field(doc="above 4.2 bits: MXFP4, NVFP4", default=MixtureKernel)
    bits_4_group: MixtureKernel = field(
        doc="up to 4.2 bits: integers with a scale per group of weights", default=MixtureKernel
    )


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
        "least time that a prompt adds to a step, per layer, before its kernels: no CUDA graph has its launches",
        default=0.0,
        formerly="eager",
    )
    narrow_prefill: Scalar = field(
        "1",
        "time of prompts computed in 8 bits or fewer over that of their kernels, which are measured one at a time: a "
        "chip at its power limit clocks lower, and conversions are not fused",
        default=1.0,
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
    collective_shared_bus: CollectiveKernel | None = field(
        doc="`collective` where the chips of a domain share the bus of a host; None for the same",
        default=None,
    )
    all_reduce: CustomAllReduceKernel | None = field(
        doc="the library's own all-reduce; None where it has none", default=None
    )
    all_reduce_shared_bus: CustomAllReduceKernel | None = field(
        doc="`all_reduce` where the chips of a domain share the bus of a host; None for the same",
        default=None,
    )
    all_reduce_eager: CustomAllReduceKernel | None = field(
        doc="`all_reduce` launched by the host outside of graphs, for scores of measurements; steps do not use it, as "
        "`engine` has the host's time",
        default=None,
    )
    all_reduce_eager_shared_bus: CustomAllReduceKernel | None = field(
        doc="the same on the shared bus of a host", default=None
    )
    dispatch: AllToAllKernel | None = field(
        doc="dispatch of tokens to experts; None for the closed form", default=None
    )
    combine: AllToAllKernel | None = field(doc="combine of the experts' results; None as above", default=None)
    dispatch_low_latency: AllToAllKernel | None = field(
        doc="`dispatch` of steps without prompts; None for the same", default=None
    )
    combine_low_latency: AllToAllKernel | None = field(
        doc="`combine` of steps without prompts; None for the same", default=None
    )
    internode: InternodeKernel | None = field(
        doc="messages between scale-up domains; None for the latencies and the bandwidth of the link",
        default=None,
    )
    engine: EngineOverheads = field(doc="overheads of the serving engine", default=EngineOverheads)
