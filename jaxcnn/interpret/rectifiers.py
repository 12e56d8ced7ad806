"""Gradients with another rule for going backward through ReLU: guided backpropagation and deconvnets.

Nothing of the model is exchanged. It is traced to its jaxpr, and the jaxpr is evaluated equation by equation,
with a function of the same value and another derivative at each call named relu or relu6.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jaxtyping import Array, Float

from jaxcnn.functional.checks import AnyArray
from jaxcnn.interpret.evaluation import Classes, as_batch, as_classes, class_logits, in_evaluation
from jaxcnn.models.classifier import Classifier

# Where each rectifier stops rising.
CEILINGS = {"relu": math.inf, "relu6": 6.0}

# Equations that only wrap a program, which may be evaluated in their place.
WRAPPERS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call")

Rule = Callable[[float, Array, Array], Array]
"""The gradient before a rectifier, from where it stops rising, its input x and the gradient g after it."""


def guided_backpropagation(
    model: Classifier, x: Float[AnyArray, "batch height width channels"], classes: Classes
) -> Float[Array, "batch height width channels"]:
    """The gradient of a class' logit with only what raises it kept at each rectifier.

    Through y = relu(x), the gradient g with respect to y goes back as

        relu(g) * [x > 0]        relu6:  relu(g) * [0 < x < 6]

    where backpropagation has g * [x > 0]: no unit hands on what speaks against the class.

    Args:
        model: a classifier with calls of jax.nn.relu or jax.nn.relu6 (flax.nnx has the same; a maximum with 0
            that is written out is no call of it); it is looked at in evaluation mode and stays as it is.
        x: images (batch, height, width, channels), prepared as the model takes them.
        classes: one int for all images, or integers (batch,).

    Returns:
        An array of x's shape: a picture of the details that the logit is made from.

    Raises:
        ValueError: a model without relu or relu6, or with one inside a loop or branch of JAX (scan, while,
            cond) or a custom_vjp, images that the model does not take, a class that it does not have.
        TypeError: an x that is not floating, classes that are no integers.

    Reference:
        Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2014, section 3.4. What the
        picture shows depends little on the class: Adebayo et al., "Sanity Checks for Saliency Maps", 2018.

    Example:
        >>> from flax import nnx
        >>> from jaxcnn.models import create_model
        >>> model = create_model("resnet20", rngs=nnx.Rngs(0))
        >>> guided_backpropagation(model, jnp.ones((1, 8, 8, 3)), 3).shape
        (1, 8, 8, 3)
    """
    return _explain("guided_backpropagation", _guided, model, x, classes)


def deconvnet(
    model: Classifier, x: Float[AnyArray, "batch height width channels"], classes: Classes
) -> Float[Array, "batch height width channels"]:
    """What a deconvolutional network makes of a class' logit, back in the space of the images.

    Every layer is undone by its transposed: a convolution by the transposed convolution, a max pooling by
    unpooling to where the maxima were, a rectifier by a rectifier. That is the gradient, but for y = relu(x)
    and y = relu6(x), through which the signal g with respect to y goes back as

        relu(g)

    whatever x was.

    Args:
        model: a classifier with calls of jax.nn.relu or jax.nn.relu6 (flax.nnx has the same; a maximum with 0
            that is written out is no call of it); it is looked at in evaluation mode and stays as it is.
        x: images (batch, height, width, channels), prepared as the model takes them.
        classes: one int for all images, or integers (batch,).

    Returns:
        An array of x's shape. Through convolutions and rectifiers alone it is the same for every image: only
        where the maxima were tells one from another.

    Raises:
        ValueError: a model without relu or relu6, or with one inside a loop or branch of JAX (scan, while,
            cond) or a custom_vjp, images that the model does not take, a class that it does not have.
        TypeError: an x that is not floating, classes that are no integers.

    Reference:
        Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2013, section 2.1; as a
        rule for the gradient: Simonyan et al., "Deep Inside Convolutional Networks", 2013, section 4.

    Example:
        >>> from flax import nnx
        >>> from jaxcnn.models import create_model
        >>> model = create_model("resnet20", rngs=nnx.Rngs(0))
        >>> deconvnet(model, jnp.ones((1, 8, 8, 3)), 3).shape
        (1, 8, 8, 3)
    """
    return _explain("deconvnet", _deconvolved, model, x, classes)


def _guided(ceiling: float, x: Array, g: Array) -> Array:
    return jnp.where((x > 0) & (x < ceiling), jnp.maximum(g, 0), 0)


def _deconvolved(ceiling: float, x: Array, g: Array) -> Array:
    return jnp.maximum(g, 0)


def _explain(function: str, rule: Rule, model: Classifier, x: AnyArray, classes: Classes) -> Array:
    graph, state = in_evaluation(function, model)
    x = as_batch(function, model, x)
    return _gradient(function, rule, graph, state, x, as_classes(function, model, classes, x.shape[0]))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _gradient(function: str, rule: Rule, graph: Any, state: Any, x: Array, classes: Array) -> Array:
    program = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, x)
    if not _holds_rectifier(program.jaxpr):
        raise ValueError(
            f"{function}: model must have a rectifier to go back through, a call of jax.nn.relu or "
            f"jax.nn.relu6; {nnx.merge(graph, state).__class__.__name__} has none"
        )
    weights = jax.tree.leaves(state)

    def logit(x: Array) -> Array:
        (logits,) = _evaluate(function, rule, program.jaxpr, program.consts, [*weights, x])
        return class_logits(logits, classes).sum()

    return jax.grad(logit)(x)


def _evaluate(
    function: str, rule: Rule, jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]
) -> list[Any]:
    """The values of a program, its rectifiers going backward by the rule."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atoms: Sequence[Any]) -> list[Any]:
        return [atom.val if isinstance(atom, Literal) else values[atom] for atom in atoms]

    for eqn in jaxpr.eqns:
        kind = eqn.primitive.name
        if _is_rectifier(eqn):
            (x,) = read(eqn.invars)
            outputs = [_rectify(_alone(jaxpr, eqn), partial(rule, CEILINGS[eqn.params["name"]]), x)]
        elif not any(_holds_rectifier(inner.jaxpr) for inner in _programs_in(eqn)):
            outputs = _alone(jaxpr, eqn)(*(values[variable] for variable in _variables(eqn)))
        elif kind in WRAPPERS:
            (inner,) = _programs_in(eqn)
            outputs = _evaluate(function, rule, inner.jaxpr, inner.consts, read(eqn.invars))
        else:
            raise ValueError(
                f"{function}: model must not have its relu or relu6 inside {kind}, where no other "
                "way back can be given to it"
            )
        values.update(zip(eqn.outvars, outputs, strict=True))
    return read(jaxpr.outvars)


def _rectify(
    forward: Callable[[Array], list[Array]], backward: Callable[[Array, Array], Array], x: Array
) -> Array:
    """The rectifier's value, with the given way back."""

    @jax.custom_vjp
    def rectifier(x: Array) -> Array:
        return forward(x)[0]

    rectifier.defvjp(lambda x: (rectifier(x), x), lambda x, g: (backward(x, g),))
    return rectifier(x)


def _is_rectifier(eqn: JaxprEqn) -> bool:
    return eqn.params.get("name") in CEILINGS and len(eqn.invars) == len(eqn.outvars) == 1


def _holds_rectifier(jaxpr: Jaxpr) -> bool:
    return any(
        _is_rectifier(eqn) or any(_holds_rectifier(inner.jaxpr) for inner in _programs_in(eqn))
        for eqn in jaxpr.eqns
    )


def _programs_in(eqn: JaxprEqn) -> Iterator[ClosedJaxpr]:
    """The programs that an equation is made of; a cond has a tuple of them."""
    for value in eqn.params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(inner, ClosedJaxpr):
                yield inner
            elif isinstance(inner, Jaxpr):
                yield ClosedJaxpr(inner, ())


def _variables(eqn: JaxprEqn) -> list[Var]:
    """The inputs of an equation that are no constants, each once."""
    return list(dict.fromkeys(atom for atom in eqn.invars if isinstance(atom, Var)))


def _alone(jaxpr: Jaxpr, eqn: JaxprEqn) -> Callable[..., list[Array]]:
    """An equation of a program as a function of its variables, evaluated in the context it was traced in."""
    program = jaxpr.replace(constvars=[], invars=_variables(eqn), outvars=eqn.outvars, eqns=[eqn])
    return jaxpr_as_fun(ClosedJaxpr(program, ()))
