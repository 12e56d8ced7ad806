"""Marked programs exported for each platform, with known shapes and with a batch that is a symbol."""

import jax
import numpy as np
import pytest
from jax import export

import jaxcnn
from tests.lowering.oracle import Problem, errors

PROBLEM = Problem((6, 5), (3, 2), batch=3, groups=4, padding=((1, 1), (0, 1)))
OTHERS = {
    "few channels a group": Problem((6, 33), (3, 2), batch=3, groups=4, group_in=4, stride=(2, 1)),
    "many channels a group": Problem((6, 5), (3, 2), batch=3, groups=2, group_in=20),
    "transposed": Problem((6, 5), (3, 2), group_in=3, lhs_dilation=(2, 2)),
    "volume": Problem((6, 5, 4), (3, 2, 2), group_in=3),
    "pointwise": Problem((6, 5), (1, 1), group_in=3, group_out=4),
}


def exported(*shapes, platforms, problem=PROBLEM):
    shapes = shapes or problem.shapes()
    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    with jaxcnn.accelerate():
        return export.export(jax.jit(lambda *a: problem.and_gradients(*a)), platforms=platforms)(*arguments)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_each_platform(platform):
    program = exported(platforms=[platform])
    assert ("stablehlo.convolution" in program.mlir_module()) == (platform != "cpu")


@pytest.mark.parametrize("kind", OTHERS)
def test_each_rewrite(kind):
    program = exported(platforms=["cpu"], problem=OTHERS[kind])
    arrays = OTHERS[kind].arrays()
    assert max(errors(program.call(*arrays), OTHERS[kind].oracle(*arrays))) < 1e-5


def test_all_platforms_in_one_program():
    program = exported(platforms=["cpu", "cuda", "tpu"])
    assert "stablehlo.convolution" in program.mlir_module()
    arrays = PROBLEM.arrays()
    assert max(errors(program.call(*arrays), PROBLEM.oracle(*arrays))) < 1e-5


def test_it_survives_being_written_and_read():
    pytest.importorskip("flatbuffers")
    program = export.deserialize(exported(platforms=["cpu"]).serialize(vjp_order=0))
    arrays = PROBLEM.arrays()
    assert max(errors(program.call(*arrays), PROBLEM.oracle(*arrays))) < 1e-5


def test_a_symbolic_batch_is_handed_on():
    (batch,) = export.symbolic_shape("batch")
    x, kernel, y = PROBLEM.shapes()
    program = exported((batch, *x[1:]), kernel, (batch, *y[1:]), platforms=["cpu"])
    assert "stablehlo.convolution" in program.mlir_module()
    arrays = PROBLEM.arrays()
    assert max(errors(program.call(*arrays), PROBLEM.oracle(*arrays))) < 1e-5
    with jaxcnn.accelerate():
        row = jaxcnn.explain(
            PROBLEM.conv, jax.ShapeDtypeStruct((batch, *x[1:]), np.float32), np.ones(kernel, np.float32)
        )[0]
    assert row.reason == "its shape is not known when it is compiled"
