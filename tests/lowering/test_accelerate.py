"""The switch: what is marked, what wins, and that nothing is left behind."""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcnn
import jaxcnn.functional as F
from jaxcnn import accelerate
from tests.reference import normal

X, KERNEL = normal(0, 2, 6, 5, 4), normal(1, 3, 2, 1, 4)


def depthwise(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4
    )


def metadata():
    """What JAX attaches to an equation that is traced now."""
    return jax.make_jaxpr(lambda x: x + 1)(1.0).eqns[0].ctx.xla_metadata


def is_rewritten(function, *arrays):
    return "stablehlo.convolution" not in jax.jit(lambda *a: function(*a)).lower(*arrays).as_text()


def test_what_is_traced_inside_is_rewritten_and_nothing_else():
    assert not is_rewritten(depthwise, X, KERNEL)
    with accelerate():
        assert is_rewritten(depthwise, X, KERNEL)
    assert not is_rewritten(depthwise, X, KERNEL)


@pytest.mark.usefixtures("without_onednn")
def test_a_rewrite_carries_no_mark_on():
    with accelerate():
        text = jax.jit(jax.grad(lambda x, k: (lax.conv(x, k, (2, 2), "SAME") ** 2).sum())).lower(
            np.ones((2, 3, 8, 9), np.float32), np.ones((4, 3, 3, 3), np.float32)
        )
    of_convolutions = [line for line in text.as_text().splitlines() if "stablehlo.convolution" in line]
    assert of_convolutions  # those of the phases
    assert not any("jaxcnn" in line for line in of_convolutions)


@pytest.mark.parametrize("outside", [True, False])
def test_false_wins_in_both_nestings(outside):
    with accelerate(outside), accelerate(not outside):
        assert not is_rewritten(depthwise, X, KERNEL)
    with accelerate(outside):
        assert not is_rewritten(accelerate(not outside)(depthwise), X, KERNEL)


def test_the_functions_of_this_package_ask_by_themselves():
    assert is_rewritten(F.depthwise_conv, X, KERNEL)
    with accelerate(False):
        assert not is_rewritten(F.depthwise_conv, X, KERNEL)
        with accelerate():
            assert not is_rewritten(F.depthwise_conv, X, KERNEL)


def test_a_function_jitted_and_called_before_is_traced_again():
    traced = []

    @jax.jit
    def function(x, kernel):
        traced.append(metadata())
        return depthwise(x, kernel)

    before = function(X, KERNEL)
    for _ in range(2):
        with accelerate():
            np.testing.assert_allclose(function(X, KERNEL), before, atol=1e-5)
    np.testing.assert_array_equal(function(X, KERNEL), before)
    assert len(traced) == 2 and not traced[0] and traced[1]


def test_a_decorator_over_functions_jitted_or_not():
    def twice(x, kernel):
        """Twice the convolution."""
        return 2 * depthwise(x, kernel)

    fast = accelerate()(twice)
    assert (fast.__name__, fast.__doc__) == ("twice", "Twice the convolution.")
    assert is_rewritten(fast, X, KERNEL)
    assert is_rewritten(accelerate()(jax.jit(twice)), X, KERNEL)
    assert is_rewritten(accelerate()(functools.partial(twice, X)), KERNEL)
    np.testing.assert_allclose(accelerate()(jax.jit(twice))(X, KERNEL), twice(X, KERNEL), atol=1e-5)
    assert not is_rewritten(accelerate(False)(fast), X, KERNEL)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_a_recursive_function_leaves_no_mark(enabled, fails):
    before = metadata()

    @accelerate(enabled)
    def down(n):
        assert metadata() != before
        if n:
            return down(n - 1) + down(n - 1)
        if fails:
            raise RuntimeError("at the bottom")
        return 1

    try:
        assert down(3) == 8
    except RuntimeError:
        assert fails
    assert metadata() == before


def test_one_object_entered_twice():
    before, switch = metadata(), accelerate()
    with switch:
        with switch:
            pass
        assert metadata() != before
    assert metadata() == before


def test_what_others_attach_stays():
    from jax.experimental.xla_metadata import set_xla_metadata

    with set_xla_metadata(mine="1"):
        with accelerate():
            assert (metadata() or {})["mine"] == "1"
            assert is_rewritten(depthwise, X, KERNEL)
        assert metadata() == {"mine": "1"}


def test_a_thread_started_inside_does_not_see_it():
    found = []
    with accelerate():
        thread = threading.Thread(target=lambda: found.append(is_rewritten(depthwise, X, KERNEL)))
        thread.start()
        thread.join()
    assert found == [False]


@pytest.mark.parametrize("enabled", [1, None, "off", np.True_])
def test_a_switch_that_is_no_bool(enabled, unchecked):
    with pytest.raises(TypeError, match="accelerate: enabled must be a bool, got"):
        accelerate(enabled)


def test_a_decorator_without_its_brackets(unchecked):
    with pytest.raises(TypeError, match=r"enabled must be a bool, got <function .*written @accelerate\(\)"):
        accelerate(depthwise)  # pyright: ignore[reportArgumentType]


def test_gradients_taken_outside_of_a_function_marked_inside():
    def loss(x, kernel):
        with jaxcnn.accelerate():
            return jnp.tanh(depthwise(x, kernel)).sum()

    assert is_rewritten(jax.grad(loss, (0, 1)), X, KERNEL)
