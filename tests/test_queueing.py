"""Queueing formulas: exact cases, Erlang's C, no load, overload, gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcost.explore.serve.queueing import busy_share, number_in_system, poisson_at_most, queue


def erlang_c(load, servers):
    """Exact probability of waiting in M/M/c."""
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    rho = load / servers
    return blocked / (1 - rho * (1 - blocked))


@pytest.mark.parametrize("rho", [0.01, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("variation", [0.0, 1.0, 4.0])
def test_one_server_is_exact(rho, variation):
    """M/D/1 waits rho S / (2 (1 - rho)), M/M/1 twice that (Pollaczek and Khinchine)."""
    wait = queue(rho / 0.2, 0.2, 1.0, variation)
    assert float(wait.mean) == pytest.approx(rho * 0.2 * (1 + variation) / 2 / (1 - rho), rel=1e-5)
    assert float(wait.probability) == pytest.approx(rho, rel=1e-5)
    assert float(number_in_system(rho / 0.2, wait.mean + 0.2)) == pytest.approx(
        rho + rho**2 * (1 + variation) / 2 / (1 - rho), rel=1e-5
    )


@pytest.mark.parametrize("servers", [2, 4, 16, 64, 256])
@pytest.mark.parametrize("rho", [0.3, 0.7, 0.9, 0.98])
def test_many_servers_against_erlang(servers, rho):
    """The delay of those that wait is exact, their share within what the docstring says."""
    exact = erlang_c(rho * servers, servers)
    wait = queue(rho * servers / 3.0, 3.0, float(servers))
    assert float(wait.delay) == pytest.approx(3.0 / servers / (1 - rho), rel=1e-4)
    assert float(wait.probability) == pytest.approx(exact, abs=0.052)
    for t in (0.0, 0.1, 1.0):
        tail = exact * math.exp(-t * servers * (1 - rho) / 3.0)
        assert float(wait.longer_than(t)) == pytest.approx(tail, abs=0.052)
    assert float(wait.longer_than(-1.0)) == 1


def test_the_tail_of_one_server_is_exact_and_its_integral_is_the_mean():
    wait = queue(4.0, 0.2)
    times = np.linspace(0, 20, 20001)
    tail = np.asarray(jax.vmap(wait.longer_than)(jnp.asarray(times)))
    assert float(np.trapezoid(tail, times)) == pytest.approx(float(wait.mean), rel=1e-3)
    assert float(wait.longer_than(1.0)) == pytest.approx(0.8 * math.exp(-1.0), rel=1e-5)


@pytest.mark.parametrize("servers", [1.0, 1.5, 8.0, 1e6])
@pytest.mark.parametrize("rho", [0.0, 1e-6, 0.5, 0.9999, 1.0, 1.5, 1e3])
def test_every_load_is_finite_with_finite_gradients(servers, rho):
    """Nothing waits at no load; overload waits long, and longer the more there is."""

    def everything(rate, service, servers, variation, seconds):
        wait = queue(rate, service, servers, variation)
        return jnp.stack([wait.mean, wait.longer_than(seconds), poisson_at_most(servers, rate * service)])

    at = tuple(jnp.asarray(x) for x in (rho * servers / 0.1, 0.1, servers, 1.0, 0.2))
    assert np.all(np.isfinite(everything(*at)))
    for slopes in jax.jacrev(everything, argnums=(0, 1, 2, 3, 4))(*at):
        assert np.all(np.isfinite(slopes))
    mean, late, _ = everything(*at)
    assert float(busy_share(at[0], at[1], at[2])) == pytest.approx(rho, rel=1e-5)
    if rho == 0:
        assert float(mean) == float(late) == 0
    if rho >= 1:
        assert float(mean) > 400 * 0.1 / servers
        assert float(queue(at[0] * 1.1, 0.1, servers).mean) > float(mean)


@pytest.mark.parametrize("mean", [5.0, 40.0, 300.0])
def test_poisson_against_the_sum(mean):
    """The normal law's error falls as 1 / sqrt(mean) (Berry and Esseen)."""
    terms = np.exp(np.arange(1000) * np.log(mean) - mean - np.cumsum(np.log(np.maximum(np.arange(1000), 1))))
    for n in range(int(mean - 3 * math.sqrt(mean)), int(mean + 4 * math.sqrt(mean))):
        assert float(poisson_at_most(float(n), mean)) == pytest.approx(
            terms[: n + 1].sum(), abs=0.25 / mean**0.5
        )
    assert float(poisson_at_most(0.0, 0.0)) == 1
