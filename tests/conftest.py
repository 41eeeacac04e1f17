"""Strict numerics for every test, and nothing of the machine's own settings."""

import gc
import os
import shutil
import tempfile

# Compiling takes nearly all of the time of the tests, and LLVM's dearest passes a third of that.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
)

# The processes that tests start share what is compiled, small programs too, for which they have as many devices.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ["JAX_NUM_CPU_DEVICES"] = "2"

import jax
import pytest

# From half a minute, longest first; `test_workers` finds in the cache what `test_long_run` has compiled.
SLOW_FILES = (
    "test_figures",
    "test_long_run",
    "test_reduce",
    "test_codesign",
    "test_service",
    "test_workers",
    "test_sweep",
    "test_transforms",
    "test_interpret",
    "test_mixture_kernel",
    "test_codesign_model",
    "test_planner",
    "test_sweep_command",
    "test_calibrate",
    "test_uncertainty",
    "test_codesign_exhaustive",
    "test_report",
    "test_cli",
    "test_serving_fit",
    "test_memory_claims",
    "test_collectives",
    "test_gradients",
    "test_kernels",
    "test_codesign_command",
    "test_space",
)


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def pytest_collection_modifyitems(items):
    """Run the slow files first, so that no worker is left with one of them at the end."""
    rank = {name: number for number, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_collection_finish():
    """Collect garbage rarely: what was imported stays, and tracing makes millions of small objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_configure(config):
    """Let all workers, and the commands they start, share what any of them has compiled in this run."""
    if not hasattr(config, "workerinput") and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        config.compiled = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxcost-")
        jax.config.update("jax_compilation_cache_dir", config.compiled)


def pytest_unconfigure(config):
    """Leave nothing behind."""
    if hasattr(config, "compiled"):
        shutil.rmtree(config.compiled, ignore_errors=True)
        del os.environ["JAX_COMPILATION_CACHE_DIR"]
