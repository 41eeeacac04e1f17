"""How well a library's kernels use a chip: a few physical numbers a family of kernels. All are ideal by default.

Shares are of a peak of the datasheet and times are seconds, so that numbers found on one chip say something of
another: bytes in flight are seconds times bandwidth, and a tile is rows, whatever the chip.
"""

from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["MatmulKernel"]


@pytree
class MatmulKernel:
    """A matmul of activations [m, k] with weights [k, n]."""

    launch: Scalar = field("s", "time of an empty kernel", default=0.0)
    depth: Scalar = field("s", "time that each element of the inner dimension adds, which cores go through in turn", default=0.0)
    memory: Scalar = field("1", "share of the memory bandwidth", default=1.0)
    matmul: Scalar = field("1", "share of the matmul peak", default=1.0)
    serial: Scalar = field("1", "how little moving and computing overlap: 0 the longer counts, 1 both", default=0.0)
    rows: Scalar = field("1", "least rows that a tile computes", default=0.0)
    waves: Scalar = field("1", "power to which the last, partly filled round of tiles counts", default=0.0)
    quantise: Scalar = field("1", "times that quantising its inputs moves them, where operands have 8 bits or fewer", default=0.0)
