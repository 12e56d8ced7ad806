"""The one place that knows JAX's private tables: there, or not there."""

import jax
import numpy as np
import pytest
from jax._src.interpreters import mlir

import jaxcnn
from jaxcnn.lowering import rules
from tests.lowering.oracle import Problem

CONVOLUTION = jax.lax.conv_general_dilated_p


def test_this_version_of_jax_shows_its_rules():
    assert rules.register()


def test_registering_twice_puts_no_rule_before_ours():
    rules.register()
    rule = mlir._platform_specific_lowerings["cpu"][CONVOLUTION]
    rules.register()
    assert mlir._platform_specific_lowerings["cpu"][CONVOLUTION] is rule


@pytest.mark.parametrize("missing", ["_platform_specific_lowerings", "_lowerings"])
def test_where_jax_does_not_show_them_nothing_changes(missing, monkeypatch):
    tables = dict(mlir._platform_specific_lowerings["cpu"]), dict(mlir._lowerings)
    with monkeypatch.context() as patch:
        # The rule in force would be ours, found without the other table.
        patch.setitem(mlir._platform_specific_lowerings, "cpu", {})
        patch.delattr(mlir, missing)
        assert rules.register.__wrapped__() is False
    assert (dict(mlir._platform_specific_lowerings["cpu"]), dict(mlir._lowerings)) == tables


def test_a_marked_program_without_our_rules_is_that_of_jax(monkeypatch):
    problem = Problem((6, 5), (3, 2), groups=4)
    x, kernel, dy = problem.arrays()
    monkeypatch.setattr(rules, "register", lambda: False)
    monkeypatch.delitem(mlir._platform_specific_lowerings["cpu"], CONVOLUTION)
    with jaxcnn.accelerate():
        lowered = jax.jit(problem.conv).lower(x, kernel)
        row = jaxcnn.explain(problem.conv, x, kernel)[0]
    assert "stablehlo.convolution" in lowered.as_text()
    assert (row.lowering, row.reason) == (
        "XLA's own",
        "this version of JAX does not show its lowering rules",
    )
    np.testing.assert_allclose(lowered.compile()(x, kernel), problem.oracle(x, kernel, dy)[0], atol=1e-5)
