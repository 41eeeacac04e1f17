"""How well a library's kernels use a chip: a few physical numbers a family of kernels. All are ideal by default.

Shares are of a peak of the datasheet and times are seconds, so that numbers found on one chip say something of
another: bytes in flight are seconds times bandwidth, and a tile is rows, whatever the chip.
"""

from jaxcost.core.pytree import Scalar, field, pytree

__all__ = [
    "UNLIMITED",
    "AllToAllKernel",
    "Attention",
    "AttentionKernel",
    "CollectiveKernel",
    "ElementwiseKernel",
    "Engine",
    "Kernels",
    "Matmul",
    "MatmulKernel",
    "Mixture",
    "MixtureKernel",
    "QuickKernel",
]

UNLIMITED = 1e9  # of a rate or a count that does not bind


@pytree
class ElementwiseKernel:
    """Whatever only reads, computes element by element and writes: norms, activations, rotations."""

    launch: Scalar = field("s", "time of an empty kernel", default=0.0)
    memory: Scalar = field("1", "share of the memory bandwidth", default=1.0)


@pytree
class MatmulKernel:
    """A matmul of activations [m, k] with weights [k, n]."""

    launch: Scalar = field("s", "time of an empty kernel", default=0.0)
    depth: Scalar = field(
        "s", "time an element of the inner dimension adds, which a core goes through", default=0.0
    )
    memory: Scalar = field("1", "share of the memory bandwidth", default=1.0)
    matmul: Scalar = field("1", "share of the matmul peak", default=1.0)
    serial: Scalar = field(
        "1", "how little moving and computing overlap: 0 the longer counts, 1 both", default=0.0
    )
    rows: Scalar = field("1", "least rows that a tile computes", default=0.0)
    waves: Scalar = field("1", "power to which the last, partly filled round of tiles counts", default=0.0)
    quantise: Scalar = field(
        "1", "times that inputs are moved to be narrowed to 8 bits or fewer", default=0.0
    )


@pytree
class AttentionKernel:
    """Softmax attention of new queries over cached keys and values, latent attention too.

    A task is one tile of queries over one split of the keys. Keys are split to fill the cores, a second kernel then
    adds up the parts.
    """

    launch: Scalar = field("s", "time of an empty kernel", default=0.0)
    reduce: Scalar = field("s", "time of the kernel that adds up splits of the keys", default=0.0)
    memory: Scalar = field("1", "share of the memory bandwidth", default=1.0)
    cache: Scalar = field("B", "bytes that the last-level cache delivers a cycle and core", default=UNLIMITED)
    capacity: Scalar = field(
        "1", "share of the last-level cache that keeps its content between runs", default=1e-9
    )
    core: Scalar = field("1", "what one core streams, of the bandwidth over the cores", default=UNLIMITED)
    fill: Scalar = field("1", "tasks a core that splitting aims at", default=UNLIMITED)
    packed: Scalar = field("1", "1 where query heads of one key head share a tile, 0 where not", default=1.0)
    packed_window: Scalar = field("1", "the same under a window", default=1.0)
    slots: Scalar = field("1", "tasks that a core holds at once", default=1.0)
    splits: Scalar = field("1", "most splits of one sequence", default=UNLIMITED)
    block: Scalar = field("1", "fewest keys of a split", default=1.0)
    aware: Scalar = field("1", "1 where splitting knows of the window, 0 where not", default=1.0)
    prologue: Scalar = field("s", "fixed part of a task", default=0.0)
    matmul: Scalar = field("1", "share of the matmul peak", default=1.0)
    exponentials: Scalar = field(
        "1", "exponentials reached over those of the special units", default=UNLIMITED
    )
    pad: Scalar = field("1", "keys computed beyond the mask", default=0.0)
    unskipped: Scalar = field("1", "share computed of what the window masks", default=0.0)
    traffic: Scalar = field("1", "bytes of keys and values moved over those that must be", default=1.0)
    traffic_ends: Scalar = field("1", "the same of queries and outputs", default=1.0)
    rows: Scalar = field("1", "rows of a tile of queries", default=1.0)
    waves: Scalar = field("1", "power to which the last, partly filled round of tasks counts", default=0.0)
    serial: Scalar = field(
        "1", "how little moving and computing overlap: 0 the longer counts, 1 both", default=0.0
    )


@pytree
class MixtureKernel:
    """The routed experts of one rank: two grouped matmuls, with routing and permutation around them."""

    launch: Scalar = field("s", "time without work", default=0.0)
    expert: Scalar = field("s", "time that an expert held adds, used or not", default=0.0)
    memory: Scalar = field("1", "share of the memory bandwidth", default=1.0)
    cache: Scalar = field("1", "bandwidth of the last-level cache over that of memory", default=1.0)
    resident: Scalar = field(
        "1", "share of the last-level cache that keeps weights between runs", default=1e-9
    )
    matmul: Scalar = field("1", "share of the matmul peak", default=1.0)
    rows: Scalar = field("1", "rows of a tile, to which those of an expert are filled up", default=0.0)
    padding: Scalar = field(
        "1", "how uneven the rows of experts are: 0 either all fill their tiles or none, 1 none", default=0.0
    )
    depth: Scalar = field(
        "1", "elements of the inner dimension that a tile's start and end cost", default=0.0
    )
    serial: Scalar = field(
        "1", "how little moving and computing overlap: 0 the longer counts, 1 both", default=0.0
    )
    passes: Scalar = field("1", "times more that activations pass memory", default=0.0)
    foreign: Scalar = field("1", "share moved of what goes to experts held elsewhere", default=0.0)


@pytree
class CollectiveKernel:
    """Collectives of a communication library, in rings."""

    launch: Scalar = field("s", "time of starting one", default=0.0)
    round: Scalar = field("s", "time of a message without its hops", default=0.0)
    share: Scalar = field("1", "share of the link bandwidth", default=1.0)
    copies: Scalar = field("1", "times that a rank's own part passes memory", default=0.0)
    staging: Scalar = field("1", "times that the whole passes memory, to and from buffers", default=0.0)
    change: Scalar = field(
        "1",
        "how starting and moving add up: 0 the longer counts, 1 both; above, small messages go by a protocol "
        "with less latency and less bandwidth",
        default=1.0,
    )
    crowd: Scalar = field(
        "1", "power of the ranks with which a byte costs more on a bus that they share", default=0.0
    )


@pytree
class QuickKernel(CollectiveKernel):
    """A library's own all-reduce, in one or two shots; large vectors go by the collectives'."""

    limit: Scalar = field("B", "largest vector", default=1e15)
    floor: Scalar = field("1", "share of its launch that larger vectors pay too", default=0.0)


@pytree
class AllToAllKernel:
    """Dispatch of tokens to the ranks of their experts, or combination of the results."""

    launch: Scalar = field("s", "time of starting one, in which ranks meet", default=0.0)
    expert: Scalar = field("s", "time that an expert of the group adds", default=0.0)
    chunk: Scalar = field("1", "rows that a core moves before the first arrives", default=0.0)
    share: Scalar = field("1", "share of the link bandwidth", default=1.0)
    receiver: Scalar = field(
        "1", "time that a core takes over one expert's rows, of its streaming them", default=0.0
    )
    change: Scalar = field(
        "1",
        "how starting and moving add up: 0 the longer counts, 1 both, above as of collectives",
        default=1.0,
    )
    copies: Scalar = field(
        "1", "1 where a token is sent once for every expert, 0 once for every rank", default=0.0
    )


@pytree
class Matmul:
    """Matmuls, by the bits of the wider operand."""

    bits_16: MatmulKernel = field(doc="16 bits", default=MatmulKernel)
    bits_8: MatmulKernel = field(doc="8 bits or fewer", default=MatmulKernel)


@pytree
class Attention:
    """Attention, by the bits of a cached element."""

    bits_16: AttentionKernel = field(doc="16 bits", default=AttentionKernel)
    bits_8: AttentionKernel = field(doc="8 bits or fewer", default=AttentionKernel)


@pytree
class Mixture:
    """Routed experts, by the bits of their weights."""

    bits_16: MixtureKernel = field(doc="16 bits", default=MixtureKernel)
    bits_8: MixtureKernel = field(doc="8 bits", default=MixtureKernel)
    bits_4: MixtureKernel = field(doc="4 bits", default=MixtureKernel)


@pytree
class Engine:
    """What the serving engine adds around the kernels: host time, how prompts queue, and memory it keeps.

    `layer` and `sequence` are part of every step; the others tell how steps make up the service of several users
    (`explore/serve/closed_loops.py`).
    """

    layer: Scalar = field("s", "time a layer adds to a step beside its kernels", default=0.0)
    sequence: Scalar = field(
        "s", "time a sequence adds to a step: scheduling, sampling, handing on", default=0.0
    )
    eager: Scalar = field(
        "s", "least time of a layer in a step with prompts: launches that no graph has recorded", default=0.0
    )
    front: Scalar = field("s", "time a request spends outside steps before its first token", default=0.0)
    bunch: Scalar = field(
        "1",
        "users of equal requests who come back together; UNLIMITED where prompts go before all decoding",
        default=1.0,
    )
    kv_share: Scalar = field("1", "share of main memory that weights and cache may take", default=1.0)


@pytree
class Kernels:
    """The kernels of a serving library on a chip."""

    elementwise: ElementwiseKernel = field(doc="element by element", default=ElementwiseKernel)
    matmul: Matmul = field(doc="dense matmuls", default=Matmul)
    attention_prefill: Attention = field(doc="attention of prompts", default=Attention)
    attention_decode: Attention = field(doc="attention of one new token a sequence", default=Attention)
    latent_prefill: Attention = field(doc="latent attention of prompts", default=Attention)
    latent_decode: Attention = field(doc="latent attention of one new token a sequence", default=Attention)
    mixture: Mixture = field(doc="routed experts", default=Mixture)
    collective: CollectiveKernel | None = field(
        doc="collectives within a domain; none for the fastest algorithm at the links' own latencies",
        default=None,
    )
    all_reduce: QuickKernel | None = field(doc="the library's own all-reduce, where it has one", default=None)
    dispatch: AllToAllKernel | None = field(
        doc="tokens to their experts within a domain; none as for collectives", default=None
    )
    combine: AllToAllKernel | None = field(doc="results back from experts", default=None)
    engine: Engine = field(doc="the engine around them", default=Engine)
