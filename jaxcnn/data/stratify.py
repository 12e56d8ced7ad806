"""Splitting a set into train and test so that both hold every class in its true proportion."""

import numpy as np
from jaxtyping import Int


def stratified_split(
    labels: Int[np.ndarray, " examples"], *, parts: int = 5, seed: int = 0
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Positions of the train and of the test examples, drawn at random within each class.

    A class of n gives floor(n / parts) to the test set, but at least one. Where that is less than one part in
    `parts` of all, rounded up, the classes with the largest remainders give one more.

    Args:
        labels: class of each example.
        parts: 5 puts a fifth into the test set.
        seed: the same seed gives the same split.

    Returns:
        (train, test), each sorted; together every position once.

    Raises:
        ValueError: a class with a single example, which cannot be in both.

    Example:
        >>> train, test = stratified_split(np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1]))
        >>> len(train), len(test)
        (8, 2)
    """
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min(initial=2) < 2:
        raise ValueError(
            f"stratified_split: class {classes[counts.argmin()]} has one example, at least 2 are needed"
        )
    taken = np.maximum(counts // parts, 1)
    left = max(0, -(-len(labels) // parts) - taken.sum())
    remainders = np.where(counts < parts, 0, counts % parts)
    taken[np.argsort(-remainders, kind="stable")[:left]] += 1
    rng = np.random.default_rng(seed)
    test = [
        rng.permutation(np.flatnonzero(labels == label))[:count]
        for label, count in zip(classes, taken, strict=True)
    ]
    test = np.sort(np.concatenate(test)) if test else np.zeros(0, int)
    return np.setdiff1d(np.arange(len(labels)), test), test
