"""A serving engine: how it makes up its steps, and how it divides the memory of a chip."""

from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["Engine"]


@pytree
class Engine:
    """Limits of a step, and the memory policy of a serving engine.

    The defaults describe a typical engine (`configs/engines/typical.yaml`, with sources): it leaves 5% of main memory
    to the runtime, communicators and fragmentation, and computes prompts in steps of 8,192 tokens. `configs/engines`
    has the released engines, `none`, which uses all memory, and `static`, which computes all prompts in one step.
    The equations are in `jaxcost/physics/memory/allocation.py`.
    """

    step_tokens: Scalar = field(
        "token",
        "most prompt tokens of a step; 0 for a static batch, whose prompts are all computed in one step",
        default=8192.0,
    )
    sequences: Scalar = field("1", "most sequences of a replica, 0 for no limit", default=0.0)
    mixed: Scalar = field(
        "1", "1 where steps mix prompts and decoding, 0 where prompts have steps of their own", default=0.0
    )
    profiled: Scalar = field(
        "1",
        "1 where buffers are sized for the largest step that the limits allow, 0 for the largest step of the traffic",
        default=0.0,
    )
    memory_share: Scalar = field("1", "share of main memory that the engine may use", default=0.95)
    cache_share: Scalar = field("1", "share of the remaining memory that the cache takes", default=1.0)
    activations_outside: Scalar = field(
        "1", "1 where working buffers are outside the engine's share of memory, 0 where inside", default=0.0
    )
    runtime_outside: Scalar = field(
        "1", "1 where the share is one of the memory without runtime and communicators", default=0.0
    )
    graphs_outside: Scalar = field(
        "1", "1 where captured graphs are outside the engine's share of memory, 0 where inside", default=0.0
    )
    runtime_bytes: Scalar = field("B", "memory of the runtime: contexts, libraries, workspaces", default=0.0)
    communicator_bytes: Scalar = field(
        "B", "memory of communicators where a replica has several chips", default=0.0
    )
    graph_bytes: Scalar = field("B", "memory of captured graphs without their layers", default=0.0)
    graph_layer_bytes: Scalar = field("B", "memory of captured graphs per layer on a chip", default=0.0)
    kept_bytes: Scalar = field(
        "B", "memory that the engine leaves free, in addition to its share", default=0.0
    )
    kept_step_bytes: Scalar = field("B/token", "the same, per token of `step_tokens`", default=0.0)
    kept_rank_bytes: Scalar = field("B", "the same, per chip of tensor and pipeline parallelism", default=0.0)
    stream_copies: Scalar = field(
        "1", "buffers of a step that are as wide as the residual stream", default=2.0
    )
    workspace_bytes: Scalar = field("B", "fixed workspaces of the kernels of a step", default=0.0)
    # 16-bit logits and their 32-bit copy.
    logit_bytes: Scalar = field("B", "bytes of working memory per logit of a step", default=6.0)
    block: Scalar = field("token", "tokens of a page of the cache", default=1.0)
    window_steps: Scalar = field(
        "1", "steps of `step_tokens` that a window layer caches in addition to its window", default=0.0
    )
    window_blocks: Scalar = field(
        "1", "pages that a window layer has in addition, as its window starts inside a page", default=0.0
    )
    window_share: Scalar = field(
        "1", "least tokens of a window layer over those of a full layer, where pools are fixed", default=0.0
    )
    grouped: Scalar = field(
        "1",
        "1 where layers are allotted in groups of equal size with equal pages, 0 where each has its own",
        default=0.0,
    )
    state_slots: Scalar = field("1", "recurrent states allotted per request", default=1.0)
    state_ratio: Scalar = field(
        "1", "memory of recurrent states over that of the cache, 0 where they share one pool", default=0.0
    )
    reserved_output: Scalar = field(
        "1", "share of a request's output still to come for which admission keeps pages free", default=0.0
    )
    swaps: Scalar = field(
        "1",
        "1 where a preempted request keeps its cache in host memory, 0 where it is computed again",
        default=0.0,
    )
