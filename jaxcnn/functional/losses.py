"""Losses for integer labels, one for each example or for each pixel: what optax.losses lacks.

Each is one number, the weighted mean over the labels that count,

    loss = sum_i weights[i] * loss[i] / sum_i weights[i]

Where a batch is split over devices, it is the mean over the device's own part.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer

from jaxcnn.functional.checks import AnyArray, as_floating, as_int, check_number, widen


def softmax_cross_entropy(
    logits: Float[AnyArray, "batch *spatial classes"],
    labels: Integer[AnyArray, "batch *spatial"],
    *,
    smoothing: float | int = 0.0,
    ignore_label: int | None = None,
    weights: Float[AnyArray, "batch *rest"] | None = None,
) -> Float[Array, ""]:
    """The mean cross-entropy between the softmax of the logits and integer labels.

    For one label y and p = softmax(logits),

        loss = -(1 - smoothing) * log p[y] - smoothing * mean_c log p[c]

    Args:
        logits: (batch, *spatial, classes).
        labels: (batch, *spatial) of ints from 0 to classes - 1; no spatial axes for one label per example.
        smoothing: what the target moves from the label to all classes evenly, in [0, 1].
        ignore_label: a label that does not count; its logits meet no loss and no gradient, whatever they are.
        weights: of the shape of labels, or (batch,) for one per example; not negative, 1 by
            default. Where it is 0 neither label nor logits count. PyTorch's weight of the classes is
            class_weights[labels] here, without smoothing.

    Returns:
        The mean over the labels that count, a scalar of float32 or wider; 0 if none does. A label outside
        0 to classes - 1 cannot be refused when traced: it makes the loss and its gradient nan.

    Raises:
        ValueError: shapes that do not fit, fewer than 2 classes, or a smoothing outside [0, 1].
        TypeError: labels that are not integers (one-hot or soft targets are for
            optax.losses.softmax_cross_entropy), logits or weights that are not floating.

    Reference:
        torch.nn.functional.cross_entropy with label_smoothing and ignore_index (nan there if no label
        counts); Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016, section 7,
        for the smoothing.

    Example:
        >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
        >>> round(softmax_cross_entropy(logits, jnp.array([0, 255]), ignore_label=255).item(), 4)
        0.6931
    """
    function = "softmax_cross_entropy"
    check_number(function, "smoothing", smoothing, minimum=0, maximum=1)

    def each(logits: Array, labels: Array) -> Array:
        return _of_smoothed_labels(jnp.negative, logits, labels, smoothing)

    return _mean_over_labels(function, "logits", each, logits, labels, ignore_label, weights)


def softmax_focal_loss(
    logits: Float[AnyArray, "batch *spatial classes"],
    labels: Integer[AnyArray, "batch *spatial"],
    *,
    gamma: float | int = 2.0,
    smoothing: float | int = 0.0,
    ignore_label: int | None = None,
    weights: Float[AnyArray, "batch *rest"] | None = None,
) -> Float[Array, ""]:
    """The mean cross-entropy with the labels that are already sure counting less.

    For one label y, p = softmax(logits) and f[c] = -(1 - p[c])^gamma * log p[c],

        loss = (1 - smoothing) * f[y] + smoothing * mean_c f[c]

    which with gamma 0 is `softmax_cross_entropy`.

    Args:
        logits: (batch, *spatial, classes).
        labels: (batch, *spatial) of ints from 0 to classes - 1; no spatial axes for one label per example.
        gamma: how fast a label loses its weight as p[y] grows, at least 0.
        smoothing: as in `softmax_cross_entropy`.
        ignore_label: as in `softmax_cross_entropy`.
        weights: as in `softmax_cross_entropy`; the alpha of the paper is alpha[labels] here.

    Returns:
        The mean over the labels that count, a scalar of float32 or wider; 0 if none does, and nan if a label
        is outside 0 to classes - 1.

    Raises:
        ValueError: shapes that do not fit, fewer than 2 classes, a negative gamma or a smoothing outside
            [0, 1].
        TypeError: labels that are not integers, logits or weights that are not floating.

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, section 3.2, for the softmax;
        optax.losses.sigmoid_focal_loss is the paper's own, with one sigmoid per class.

    Example:
        >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
        >>> round(softmax_focal_loss(logits, jnp.array([0, 255]), ignore_label=255).item(), 4)
        0.1733
    """
    function = "softmax_focal_loss"
    check_number(function, "gamma", gamma, minimum=0)
    check_number(function, "smoothing", smoothing, minimum=0, maximum=1)

    def focal(log_p: Array) -> Array:
        if gamma == 0:
            return -log_p
        rest = -jnp.expm1(log_p)  # 1 - p without cancellation
        sure = rest == 0  # here the loss is 0, and the power would have no derivative
        return jnp.where(sure, 0, -(jnp.where(sure, 1, rest) ** gamma)) * log_p

    def each(logits: Array, labels: Array) -> Array:
        return _of_smoothed_labels(focal, logits, labels, smoothing)

    return _mean_over_labels(function, "logits", each, logits, labels, ignore_label, weights)


def multiclass_svm_loss(
    scores: Float[AnyArray, "batch *spatial classes"],
    labels: Integer[AnyArray, "batch *spatial"],
    *,
    margin: float | int = 1.0,
    ignore_label: int | None = None,
    weights: Float[AnyArray, "batch *rest"] | None = None,
) -> Float[Array, ""]:
    """The multiclass support vector machine's hinge loss as the courses teach it: a sum over all rivals.

    For one label y,

        loss = sum_{j != y} max(0, scores[j] - scores[y] + margin)

    optax.losses.multiclass_hinge_loss is the other one, of Crammer and Singer, with the largest rival in
    place of the sum.

    Args:
        scores: (batch, *spatial, classes).
        labels: (batch, *spatial) of ints from 0 to classes - 1; no spatial axes for one label per example.
        margin: by how much the score of the label must exceed every other one, at least 0.
        ignore_label: as in `softmax_cross_entropy`.
        weights: as in `softmax_cross_entropy`.

    Returns:
        The mean over the labels that count, a scalar of float32 or wider; 0 if none does, and nan if a label
        is outside 0 to classes - 1.

    Raises:
        ValueError: shapes that do not fit, fewer than 2 classes, or a negative margin.
        TypeError: labels that are not integers, scores or weights that are not floating.

    Reference:
        Weston and Watkins, "Support Vector Machines for Multi-Class Pattern Recognition", 1999; the Stanford
        course CS231n; torch.nn.functional.multi_margin_loss, which divides by the number of classes.

    Example:
        >>> scores = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
        >>> round(multiclass_svm_loss(scores, jnp.array([0, 1, 2])).item(), 2)  # (2.9 + 0 + 12.9) / 3
        5.27
    """
    function = "multiclass_svm_loss"
    check_number(function, "margin", margin, minimum=0)

    def each(scores: Array, labels: Array) -> Array:
        lead = _at_label(scores, labels) - scores
        hinge = optax.hinge_loss(lead + (1 - margin), jnp.ones_like(lead))
        rivals = ~jax.nn.one_hot(labels, scores.shape[-1], dtype=jnp.bool_)
        return jnp.where(rivals, hinge, 0).sum(axis=-1)

    return _mean_over_labels(function, "scores", each, scores, labels, ignore_label, weights)


def _of_smoothed_labels(
    of_log_p: Callable[[Array], Array], logits: Array, labels: Array, smoothing: float | int
) -> Array:
    """The loss of each label, from the loss that each class has by its log-probability."""
    log_p = jax.nn.log_softmax(logits)
    loss = of_log_p(_at_label(log_p, labels)[..., 0])
    if smoothing == 0:  # a class that is ruled out by a logit of -inf does no harm
        return loss
    return (1 - smoothing) * loss + smoothing * of_log_p(log_p).mean(axis=-1)


def _at_label(scores: Array, labels: Array) -> Array:
    return jnp.take_along_axis(scores, labels[..., None], axis=-1)


def _mean_over_labels(
    function: str,
    name: str,
    each: Callable[[Array, Array], Array],
    logits: AnyArray,
    labels: AnyArray,
    ignore_label: int | None,
    weights: AnyArray | None,
) -> Array:
    """The weighted mean of each(logits, labels) over the labels that count."""
    logits = widen(as_floating(function, name, logits))
    if logits.ndim < 2 or 0 in logits.shape[1:-1] or logits.shape[-1] < 2:
        hint = "; for one logit there is optax.losses.sigmoid_binary_cross_entropy"
        raise ValueError(
            f"{function}: {name} must have shape (batch, *spatial, classes) with at least 2 classes, "
            f"got {logits.shape}{hint if logits.shape[-1:] == (1,) else ''}"
        )
    labels = _as_labels(function, name, labels, logits)
    weights = _as_weights(function, weights, labels, logits)

    counts = weights != 0
    if ignore_label is not None:
        ignored = as_int(function, "ignore_label", ignore_label, minimum=-(2**31), maximum=2**31 - 1)
        counts &= labels != ignored
    # What does not count is replaced, so that an inf or nan there reaches no gradient.
    logits = jnp.where(counts[..., None], logits, 0)
    labels = jnp.where(counts, labels, 0)
    weights = jnp.where(counts, weights, 0)
    is_class = (labels >= 0) & (labels < logits.shape[-1])
    # As a factor, and not by jnp.where, a nan reaches the gradient too.
    losses = each(logits, jnp.where(is_class, labels, 0)) * jnp.where(is_class, 1, jnp.nan)
    total = weights.sum()
    return (weights * losses).sum() / jnp.where(total == 0, 1, total)


def _as_labels(function: str, name: str, labels: AnyArray, logits: Array) -> Array:
    """The labels as signed integers, one for each vector of logits."""
    if not isinstance(labels, AnyArray) or not jnp.issubdtype(labels.dtype, jnp.integer):
        came = f"dtype {labels.dtype}" if isinstance(labels, AnyArray) else type(labels).__name__
        soft = isinstance(labels, AnyArray) and labels.shape == logits.shape
        hint = "; one-hot or soft targets are for optax.losses.softmax_cross_entropy" if soft else ""
        raise TypeError(f"{function}: labels must be an array of integers, got {came}{hint}")
    if labels.shape != logits.shape[:-1]:
        hint = ""
        if labels.shape == logits.shape:
            hint = "; one-hot targets are for optax.losses.softmax_cross_entropy"
        elif logits.shape[:1] + logits.shape[2:] == labels.shape:
            hint = f"; {name} has its classes last"
        raise ValueError(
            f"{function}: labels must have shape {logits.shape[:-1]} ({name} without its classes), "
            f"got {labels.shape}{hint}"
        )
    labels = jnp.asarray(labels)
    return labels if labels.dtype == jnp.int64 else labels.astype(jnp.int32)


def _as_weights(function: str, weights: AnyArray | None, labels: Array, logits: Array) -> Array:
    """The weights with the shape of labels and the dtype of logits."""
    if weights is None:
        return jnp.ones(labels.shape, logits.dtype)
    weights = as_floating(function, "weights", weights)
    if weights.shape not in (labels.shape, labels.shape[:1]):
        raise ValueError(
            f"{function}: weights must have the shape of labels {labels.shape}, or {labels.shape[:1]} for "
            f"one per example, got {weights.shape}"
        )
    weights = jnp.expand_dims(weights, range(weights.ndim, labels.ndim))
    return jnp.broadcast_to(weights.astype(logits.dtype), labels.shape)
