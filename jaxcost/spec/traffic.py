"""The requests of the users."""

from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["Traffic"]


@pytree
class Traffic:
    """Requests of equal shape, with `batch` of them in flight over the whole system.

    `rate` and `variation` are used by `serve`: the arrival rate, and the variation of requests about this shape. A
    context has `prompt + retrieved + encoder_tokens` tokens when decoding begins and grows by `output`.
    """

    prompt: Scalar = field("token", "prompt tokens of a request, computed unless cached", default=1024.0)
    output: Scalar = field("token", "tokens generated per request", default=256.0)
    batch: Scalar = field("1", "requests in flight over the whole system", default=1.0)
    prefix_hit: Scalar = field(
        "1", "share of the prompt whose keys and values are already cached", default=0.0
    )
    retrieved: Scalar = field("token", "retrieved context that is cached: read, not computed", default=0.0)
    encoder_tokens: Scalar = field("token", "tokens that an encoder adds before the prompt", default=0.0)
    corpus: Scalar = field("B", "retrieval corpus stored in the system", default=0.0)
    corpus_read: Scalar = field(
        "B", "bytes of the corpus that one request reads before its prefill", default=0.0
    )
    weight_updates: Scalar = field("1/s", "updates per second of all weights and of the corpus", default=0.0)
    rate: Scalar = field(
        "1/s", "offered requests per second of the whole deployment (Poisson); 0 for none", default=0.0
    )
    # Prompts of recorded production traffic: 0.7 (Azure 2023, conversations) to 1.7 (Mooncake 2024).
    variation: Scalar = field(
        "1", "squared coefficient of variation of a request's work, 0 for equal requests", default=1.0
    )
    ttft_target: Scalar = field("s", "longest acceptable time to first token, 0 for none", default=0.0)
    tpot_target: Scalar = field("s", "longest acceptable time per output token, 0 for none", default=0.0)
