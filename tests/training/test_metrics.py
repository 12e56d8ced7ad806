import json
import os

import numpy as np
import pytest

from jaxcnn.training.metrics import (
    Evaluation,
    append_metrics,
    collect,
    confusion_matrix,
    most_confused,
    read_metrics,
    rewind_metrics,
)


def outputs_of(labels, predictions, losses, batch_size):
    """What an eval step would give, the examples in another order and the last batch padded."""
    order = np.random.default_rng(0).permutation(len(labels))
    for start in range(0, len(labels), batch_size):
        index = order[start : start + batch_size]
        padding = batch_size - len(index)
        yield {
            "loss": np.float32(losses[index].sum()),
            "correct": np.int32((labels[index] == predictions[index]).sum()),
            "count": np.int32(len(index)),
            "index": np.concatenate([index, np.full(padding, -1)]).astype(np.int32),
            "prediction": np.concatenate([predictions[index], np.full(padding, 2)]).astype(np.int32),
            "probability": np.concatenate([losses[index] / 10, np.ones(padding)]).astype(np.float32),
        }


@pytest.mark.parametrize("batch_size", [1, 4, 5, 11, 16])
def test_an_evaluation_does_not_depend_on_the_batch_size(batch_size):
    random = np.random.default_rng(1)
    labels, predictions, losses = random.integers(0, 3, 11), random.integers(0, 3, 11), random.random(11)
    evaluation = collect(outputs_of(labels, predictions, losses, batch_size), 11)
    np.testing.assert_allclose(evaluation.loss, sum(losses) / 11, rtol=1e-6)
    assert evaluation.accuracy == sum(labels[i] == predictions[i] for i in range(11)) / 11
    np.testing.assert_array_equal(evaluation.predictions, predictions)
    np.testing.assert_allclose(evaluation.probabilities, losses / 10, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_an_example_missing_or_counted_again_is_refused(count):
    random = np.random.default_rng(1)
    outputs = list(outputs_of(random.integers(0, 3, 8), random.integers(0, 3, 8), random.random(8), 4))
    with pytest.raises(ValueError, match="collect: 4 of 8 examples were not counted once"):
        collect(outputs[:1] if count == 1 else [*outputs, outputs[0]], 8)


def test_a_confusion_matrix_equals_the_counting_loop():
    random = np.random.default_rng(2)
    labels, predictions = random.integers(0, 4, 50).astype(np.int32), random.integers(0, 4, 50)
    expected = np.zeros((5, 5), int)
    for i, j in zip(labels, predictions, strict=True):
        expected[i, j] += 1
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 5), expected)


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 1], [0], r"confusion_matrix: predictions has shape \(1,\), expected labels' \(2,\)"),
        ([0, 3], [0, 1], "confusion_matrix: labels are 0 to 3, expected 0 to 2"),
        ([0, 1], [-1, 1], "confusion_matrix: predictions are -1 to 1, expected 0 to 2"),
    ],
)
def test_classes_outside_the_matrix_are_refused(labels, predictions, message, unchecked):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(labels), np.array(predictions), 3)


def test_the_most_confused_are_wrong_and_sure():
    random = np.random.default_rng(3)
    labels, predictions = random.integers(0, 3, 40), random.integers(0, 3, 40)
    probabilities = random.random(40).astype(np.float32)
    evaluation = Evaluation(loss=0.0, accuracy=0.0, predictions=predictions, probabilities=probabilities)
    wrong = [i for i in range(40) if labels[i] != predictions[i]]
    expected = sorted(wrong, key=lambda i: -probabilities[i])
    assert most_confused(labels, evaluation).tolist() == expected[:9]
    assert most_confused(predictions, evaluation).tolist() == []


def test_metrics_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, 1, train_loss=np.float32(0.25), train_accuracy=0.5, epoch=np.int64(1))
    append_metrics(path, 2, train_loss=float("nan"), test_loss=np.float32("inf"))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "train_loss": 0.25, "train_accuracy": 0.5, "epoch": 1},
        {"step": 2, "train_loss": None, "test_loss": None},
    ]
    assert read_metrics(path) == [json.loads(line) for line in path.read_text().splitlines()]


def test_a_resumed_run_writes_no_step_twice(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rewind_metrics(path, 0)
    for step in range(1, 8):
        append_metrics(path, step, train_loss=1 / step)
        if step % 2 == 0:
            append_metrics(path, step, test_loss=2 / step)
    whole = path.read_text()
    os.truncate(path, path.stat().st_size - 5)  # killed while it wrote
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    rewind_metrics(path, 4)
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 2, 3, 4, 4]
    for step in range(5, 8):
        append_metrics(path, step, train_loss=1 / step)
        if step % 2 == 0:
            append_metrics(path, step, test_loss=2 / step)
    assert path.read_text() == whole
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("line", ["{broken", "[1, 2]", '{"train_loss": 1.0}', ""])
def test_a_line_of_something_else_is_named_and_kept(line, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    before = path.read_text()
    with pytest.raises(ValueError, match=r"read_metrics: line 2 of .* is .*, expected a JSON object with"):
        rewind_metrics(path, 1)
    assert path.read_text() == before
