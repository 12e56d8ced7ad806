"""What an evaluation says, and the file that keeps the numbers of a run."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating every example of a data set once.

    Attributes:
        loss: the mean loss.
        accuracy: the share of examples whose prediction is their label.
        predictions: the predicted class of each example, in the order of the data set.
        probabilities: the softmax of that class.
    """

    loss: float
    accuracy: float
    predictions: Int[np.ndarray, " examples"]
    probabilities: Float[np.ndarray, " examples"]


def collect(outputs: Iterable[Mapping[str, Any]], size: int) -> Evaluation:
    """Put the outputs of `eval_step` over a whole data set together.

    Args:
        outputs: what `DataParallel.fetch` gives for each batch.
        size: the number of examples in the data set.

    Returns:
        The evaluation, with each example counted once whatever the batch size.

    Raises:
        ValueError: an example is missing or counted twice.

    Example:
        >>> output = {"loss": 0.5, "correct": 1, "count": 2, "index": np.array([1, 0, -1]),
        ...     "prediction": np.array([7, 3, 0]), "probability": np.array([0.9, 0.6, 0.5], np.float32)}
        >>> evaluation = collect([output], size=2)
        >>> evaluation.loss, evaluation.accuracy, evaluation.predictions.tolist()
        (0.25, 0.5, [3, 7])
    """
    loss, correct = 0.0, 0
    seen = np.zeros(size, np.int64)
    predictions, probabilities = np.zeros(size, np.int32), np.zeros(size, np.float32)
    for output in outputs:
        marked = output["index"] >= 0
        index = output["index"][marked]
        np.add.at(seen, index, 1)
        predictions[index] = output["prediction"][marked]
        probabilities[index] = output["probability"][marked]
        loss += float(output["loss"])
        correct += int(output["correct"])
    if size == 0 or (seen != 1).any():
        wrong = int((seen != 1).sum())
        raise ValueError(
            f"collect: {wrong} of {size} examples were not counted once, expected every example exactly once"
        )
    return Evaluation(
        loss=loss / size, accuracy=correct / size, predictions=predictions, probabilities=probabilities
    )


def confusion_matrix(
    labels: Int[np.ndarray, " examples"], predictions: Int[np.ndarray, " examples"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Count how often each class is taken for each other.

    Args:
        labels: the true classes.
        predictions: the predicted classes.
        classes: the number of classes.

    Returns:
        The matrix whose entry [i, j] is the number of examples of class i predicted as j.

    Raises:
        ValueError: labels and predictions differ in length, or a class is outside 0 .. classes - 1.

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
        array([[1, 1],
               [0, 1]])
    """
    if labels.shape != predictions.shape:
        raise ValueError(
            f"confusion_matrix: predictions has shape {predictions.shape}, expected labels' {labels.shape}"
        )
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"confusion_matrix: {name} are {values.min()} to {values.max()}, expected 0 to {classes - 1}"
            )
    pairs = labels.astype(np.int64) * classes + predictions
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def most_confused(
    labels: Int[np.ndarray, " examples"], evaluation: Evaluation, *, count: int = 9
) -> Int[np.ndarray, " confused"]:
    """Find the examples of which the model was most sure and wrong.

    Args:
        labels: the true classes.
        evaluation: what `collect` returned for the same examples.
        count: how many at most.

    Returns:
        Their indices, the highest probability first.

    Example:
        >>> evaluation = Evaluation(loss=0.0, accuracy=1 / 3, predictions=np.array([1, 1, 0]),
        ...     probabilities=np.array([0.6, 0.9, 0.8]))
        >>> most_confused(np.array([0, 1, 1]), evaluation)
        array([2, 0])
    """
    wrong = np.flatnonzero(evaluation.predictions != labels)
    return wrong[np.argsort(-evaluation.probabilities[wrong], kind="stable")][:count]


def append_metrics(path: str | Path, step: int, **values: Any) -> None:
    """Add one JSON object, {"step": step, ...}, as a line to a file and hand it to the operating system.

    Args:
        path: the file, usually metrics.jsonl; it is made if need be.
        step: the training step that the values belong to.
        **values: numbers, of NumPy or of Python. JSON has no nan and inf: they are written as null.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     append_metrics(f"{directory}/metrics.jsonl", 3, train_loss=np.float32(0.5))
        ...     read_metrics(f"{directory}/metrics.jsonl")
        [{'step': 3, 'train_loss': 0.5}]
    """
    record = {"step": step} | {name: _plain(value) for name, value in values.items()}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read the records that `append_metrics` wrote; a last line cut off by a killed process is left out.

    Args:
        path: the file.

    Raises:
        ValueError: a complete line is no JSON object with a step.
    """
    *lines, _ = Path(path).read_text(encoding="utf-8").split("\n")
    return [_record(path, number, line) for number, line in enumerate(lines, 1)]


def rewind_metrics(path: str | Path, step: int) -> None:
    """Drop the records after a step, so that a run resumed from it writes none of them twice.

    Args:
        path: the file; nothing happens if there is none. It is replaced as a whole, never half written.
        step: the step that the run resumes from.

    Raises:
        ValueError: a complete line is no JSON object with a step.
    """
    path = Path(path)
    if not path.exists():
        return
    kept = [record for record in read_metrics(path) if record["step"] <= step]
    rewritten = path.with_name(path.name + ".new")
    rewritten.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    os.replace(rewritten, path)


def _plain(value: Any) -> Any:
    """A NumPy or Python number as JSON has it."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(path: str | Path, number: int, line: str) -> dict[str, Any]:
    """Parse one line."""
    try:
        record = json.loads(line)
        if not isinstance(record["step"], int):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f'read_metrics: line {number} of {path} is {line[:60]!r}, expected a JSON object with a "step"'
        ) from None
    return record
