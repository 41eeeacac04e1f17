"""Kernels of H100 libraries set by hand, near what fits to measured kernels give: for tests of what is built on them."""

import jaxcost as jc
from jaxcost.core.pytree import canonical, replace
from jaxcost.spec.kernels import (
    AttentionKernel,
    AttentionKernels,
    ElementwiseKernel,
    EngineOverheads,
    Kernels,
    MatmulKernel,
    MatmulKernels,
)

DECODE = AttentionKernel(
    launch=8e-6,
    reduce=2e-6,
    memory=0.93,
    core=1.5,
    slots=1,
    fill=1,
    splits=60,
    block=200,
    rows=64,
    prologue=2e-6,
    waves=0.9,
    serial=0.25,
    pad=60,
    matmul=0.6,
)
PREFILL = AttentionKernel(
    launch=10e-6,
    memory=0.8,
    splits=1,
    rows=128,
    slots=1,
    prologue=2e-6,
    matmul=0.83,
    exponentials=1.5,
    pad=150,
    waves=0.5,
    serial=0.45,
)


def kernels(library, **engine):
    wide = MatmulKernel(
        launch=2.7e-6, depth=2.7e-10, memory=0.854, matmul=0.81, serial=0.055, rows=100, waves=0.29
    )
    narrow = MatmulKernel(
        launch=12e-6 if library == "trtllm" else 5e-6,
        depth=3.5e-10,
        memory=0.93,
        matmul=0.74,
        serial=0.13,
        rows=128,
        waves=0.015,
        quantise=2.5,
    )
    return Kernels(
        elementwise=ElementwiseKernel(launch=2e-6, memory=0.8),
        matmul=MatmulKernels(bits_16=wide, bits_8=narrow, weights_8=wide),
        attention_prefill=AttentionKernels(bits_16=PREFILL, bits_8=PREFILL),
        attention_decode=AttentionKernels(bits_16=DECODE, bits_8=DECODE),
        engine=EngineOverheads(**engine),
    )


def system(name="h100-sxm-x8", library="vllm", link=0.7, **engine):
    """The system with these kernels, in the trees' canonical form."""
    ideal = jc.load_system(name)
    share = replace(ideal.chip.efficiency, kernels=kernels(library, **engine), link=link)
    return canonical(replace(ideal, chip=replace(ideal.chip, efficiency=share)))
