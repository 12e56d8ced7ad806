"""convolve, cross_correlate and autocorrelate against their definitions and scipy.signal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcnn.functional as F
from tests import reference

MODES = ("full", "same", "valid")
sizes = st.integers(1, 3).flatmap(
    lambda rank: st.tuples(*[st.lists(st.integers(1, 6), min_size=rank, max_size=rank)] * 2)
)


@given(sizes=sizes, mode=st.sampled_from(MODES))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_equal_to_scipy_for_any_sizes(sizes, mode):
    f, g = reference.normal(0, *sizes[0]), reference.normal(1, *sizes[1])
    if mode == "valid" and not (all(np.less_equal(*sizes)) or all(np.greater_equal(*sizes))):
        return  # scipy asks for one array at least as large on every axis; so do we, see the bad-input table
    for ours, theirs in [
        (F.convolve, scipy.signal.convolve),
        (F.cross_correlate, scipy.signal.correlate),
    ]:
        y = jax.jit(functools.partial(ours, mode=mode))(f, g)
        expected = theirs(f.astype(np.float64), g.astype(np.float64), mode=mode, method="direct")
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shapes", [((7,), (4,)), ((3,), (8,)), ((5, 4), (2, 3)), ((3, 4, 5), (2, 1, 4))])
def test_full_is_the_definition(shapes):
    f, g = (reference.normal(seed, *shape) for seed, shape in enumerate(shapes))
    y, z = F.convolve(jnp.asarray(f), jnp.asarray(g)), F.cross_correlate(jnp.asarray(f), jnp.asarray(g))
    np.testing.assert_allclose(y, reference.convolve(f, g), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(z, reference.cross_correlate(f, g), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(7,), (6,), (5, 4), (3, 2, 4)])
def test_autocorrelation_is_the_correlation_with_itself(shape, mode):
    f = reference.normal(0, *shape)
    expected = scipy.signal.correlate(f.astype(np.float64), f.astype(np.float64), mode=mode, method="direct")
    np.testing.assert_allclose(F.autocorrelate(jnp.asarray(f), mode=mode), expected, rtol=1e-5, atol=1e-5)


def test_autocorrelation_is_symmetric_and_largest_at_lag_zero():
    y = np.asarray(F.autocorrelate(jnp.asarray(reference.normal(0, 9))))
    np.testing.assert_allclose(y, y[::-1], rtol=1e-6)
    assert y.argmax() == 8


def test_convolution_commutes_and_correlation_flips_when_exchanged():
    f, g = jnp.asarray(reference.normal(0, 7, 3)), jnp.asarray(reference.normal(1, 4, 5))
    np.testing.assert_allclose(F.convolve(f, g), F.convolve(g, f), rtol=1e-5, atol=1e-6)
    z = F.cross_correlate(g, f)
    np.testing.assert_allclose(F.cross_correlate(f, g), z[::-1, ::-1], rtol=1e-5, atol=1e-6)


def test_convolving_with_a_shifted_impulse_shifts():
    f = jnp.asarray(reference.normal(0, 6))
    impulse = jnp.asarray([0.0, 0.0, 1.0], jnp.float32)
    np.testing.assert_array_equal(F.convolve(f, impulse), jnp.pad(f, (2, 0)))
    np.testing.assert_array_equal(F.cross_correlate(f, impulse), jnp.pad(f, (0, 2)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_result_has_the_inputs_dtype(dtype):
    f, g = jnp.asarray(reference.normal(0, 8)), jnp.asarray(reference.normal(1, 3))
    f, g = f.astype(dtype), g.astype(dtype)
    y = F.convolve(f, g)
    assert y.dtype == dtype
    expected = reference.convolve(np.asarray(f, np.float64), np.asarray(g, np.float64))
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, atol=8 * float(jnp.finfo(dtype).eps))
