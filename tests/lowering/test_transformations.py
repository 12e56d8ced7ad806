"""Under every transformation of JAX, marked convolutions give the values that lax alone gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxcnn
from tests.lowering.oracle import Problem, errors

# Images keep their shape, so that a loop can carry them; 4 devices divide batch, height and channels.
PROBLEMS = {
    "depthwise": Problem((8, 7), (3, 2), batch=4, groups=8, padding=((1, 1), (0, 1))),
    "grouped": Problem((8, 7), (3, 2), batch=4, group_in=4, group_out=4, groups=2, padding=((1, 1), (0, 1))),
    "dense": Problem((8, 7), (3, 2), batch=4, group_in=8, group_out=8, padding=((1, 1), (0, 1))),
    "pointwise": Problem((8, 7), (1, 1), batch=4, group_in=8, group_out=8),
}
FEW = {"dense": ("vmap over both", "scan"), "pointwise": ("vmap over both", "hessian-vector product")}


def loss(f, x, kernel):
    """Not linear in either, so that second derivatives are not zero."""
    return (jnp.tanh(f(x, kernel)) * jnp.sin(kernel).sum()).sum()


def gradients(f):
    return jax.grad(partial(loss, f), (0, 1))


def layers(f, x, kernel, *, loop):
    """Three layers that share the kernel up to a factor."""

    def layer(x, factor):
        return jnp.tanh(f(x, kernel * factor)), None

    factors = jnp.array([1.0, 0.5, 2.0])
    return loop(layer, x, factors)[0].sum()


def hessian_vector_product(f, x, kernel):
    return jax.jvp(gradients(f), (x, kernel), (x[::-1], kernel[..., ::-1]))[1]


def reverse_over_reverse(f, x, kernel):
    return jax.grad(lambda x, kernel: sum((g**2).sum() for g in gradients(f)(x, kernel)), (0, 1))(x, kernel)


def while_loop(f, x, kernel):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.tanh(f(c[1], kernel))), (0, x))[1]


def cond(f, x, kernel):
    return jax.grad(lambda x: lax.cond(x.sum() > 1e3, lambda x: x, lambda x: f(x, kernel) ** 2, x).sum())(x)


def by_devices(f, x, kernel):
    """A mean over the devices inside of what each of them has."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    @partial(jax.shard_map, mesh=mesh, in_specs=(P("data"), P()), out_specs=P())
    def total(x, kernel):
        return lax.psum(loss(f, x, kernel), "data")

    return jax.grad(total, (0, 1))(x, kernel)


TRANSFORMATIONS = {
    "jvp": lambda f, x, k: jax.jvp(f, (x, k), (x[::-1], k[..., ::-1])),
    "gradients": lambda f, x, k: gradients(f)(x, k),
    "inner jit": lambda f, x, k: gradients(jax.jit(f))(x, k),
    "hessian-vector product": hessian_vector_product,
    "reverse over reverse": reverse_over_reverse,
    "vmap over x": lambda f, x, k: jax.vmap(gradients(f), (0, None))(jnp.stack([x, x[::-1]]), k),
    "vmap over kernel": lambda f, x, k: jax.vmap(gradients(f), (None, 4))(x, jnp.stack([k, k[::-1]], -1)),
    "vmap over both": lambda f, x, k: jax.vmap(gradients(f), (1, 0))(
        jnp.stack([x, x[::-1]], 1), jnp.stack([k, k[::-1]])
    ),
    "scan": lambda f, x, k: jax.grad(partial(layers, f, loop=lax.scan), (0, 1))(x, k),
    "scan of remat": lambda f, x, k: jax.grad(
        partial(layers, f, loop=lambda body, *rest: lax.scan(jax.checkpoint(body), *rest)), (0, 1)
    )(x, k),
    "while": while_loop,
    "cond": cond,
    "remat": lambda f, x, k: gradients(jax.checkpoint(f))(x, k),
    "shard_map": by_devices,
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for kind in PROBLEMS for name in FEW.get(kind, TRANSFORMATIONS)]
)
def test_the_same_values(name, kind):
    problem = PROBLEMS[kind]
    x, kernel, _ = problem.arrays()
    program = partial(TRANSFORMATIONS[name], problem.conv)
    with jaxcnn.accelerate():
        lowered = jax.jit(program).lower(x, kernel)
        found = lowered.compile()(x, kernel)
    with jaxcnn.accelerate(False):
        expected = jax.jit(program)(x, kernel)
    assert max(errors(jax.tree.leaves(found), jax.tree.leaves(expected))) < 1e-5
    if kind == "depthwise":  # all of its convolutions were found
        assert "stablehlo.convolution" not in lowered.as_text()


def test_eager_calls():
    x, kernel, dy = PROBLEMS["depthwise"].arrays()
    with jaxcnn.accelerate():
        found = PROBLEMS["depthwise"].and_gradients(x, kernel, dy)
    assert max(errors(found, PROBLEMS["depthwise"].oracle(x, kernel, dy))) < 1e-5


def test_pmap():
    problem = PROBLEMS["depthwise"]
    x, kernel, dy = problem.arrays()
    with jaxcnn.accelerate():
        found = jax.pmap(problem.and_gradients, in_axes=(0, None, 0))(
            np.stack([x * n for n in range(4)]), kernel, np.stack([dy] * 4)
        )
    for n in range(4):
        assert max(errors([part[n] for part in found], problem.oracle(x * n, kernel, dy))) < 1e-5


def mesh(axis_type=AxisType.Auto):
    return jax.make_mesh((4,), ("devices",), axis_types=(axis_type,))


AXES = {"batch": P("devices"), "height": P(None, "devices"), "channels": P(None, None, None, "devices")}


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", ["depthwise", "grouped", "dense"])
def test_jit_divides_the_arrays_over_a_mesh(kind, axis):
    problem = PROBLEMS[kind]
    x, kernel, dy = problem.arrays()
    whole, parts = NamedSharding(mesh(), P()), NamedSharding(mesh(), AXES[axis])
    x, kernel, dy = arrays = jax.device_put((x, kernel, dy), (parts, whole, parts))
    with jaxcnn.accelerate():
        found = jax.jit(problem.and_gradients, out_shardings=(parts, parts, whole))(*arrays)
        forward = jax.jit(problem.conv, out_shardings=parts).lower(x, kernel).compile().as_text()
    assert max(errors(found, problem.oracle(*arrays))) < 1e-5
    if (kind, axis) in {("depthwise", "batch"), ("dense", "batch"), ("depthwise", "channels")}:
        assert "all-gather" not in (forward or "")


@pytest.mark.parametrize("kind", ["depthwise", "dense"])
def test_axes_divided_by_an_explicit_mesh_are_handed_on(kind):
    problem = PROBLEMS[kind]
    x, kernel, dy = problem.arrays()
    with jax.set_mesh(mesh(AxisType.Explicit)):
        arrays = (jax.device_put(x, AXES["batch"]), jax.device_put(kernel, P()))
        with jaxcnn.accelerate():
            found = jax.jit(problem.conv)(*arrays)
            assert "stablehlo.convolution" in jax.jit(problem.conv).lower(*arrays).as_text()
            assert jaxcnn.explain(problem.conv, *arrays)[0].lowering == "XLA's own"
        assert found.sharding.spec[0] == "devices"
        assert max(errors([found], problem.oracle(x, kernel, dy)[:1])) < 1e-5


def test_arrays_that_an_explicit_mesh_does_not_divide_are_rewritten():
    problem = PROBLEMS["depthwise"]
    x, kernel, dy = problem.arrays()
    with jax.set_mesh(mesh(AxisType.Explicit)), jaxcnn.accelerate():
        lowered = jax.jit(problem.and_gradients).lower(x, kernel, dy)
        assert "stablehlo.convolution" not in lowered.as_text()
        found = jax.jit(problem.and_gradients)(x, kernel, dy)
    assert max(errors(found, problem.oracle(x, kernel, dy))) < 1e-5
