"""The scripts as a user starts them: they learn, leave results, survive interruptions, use all devices."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import train_classifier
from PIL import Image
from sklearn.datasets import load_digits

from jaxcnn.training import checkpoint
from jaxcnn.training.metrics import read_metrics
from jaxcnn.training.state import create_train_state

pytestmark = pytest.mark.slow

EXPERIMENTS = Path(train_classifier.__file__).parent


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """Prepared data, shared by the runs of this module."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def start(tmp_path, data_dir):
    """Start a training run in a process of its own."""
    processes = []

    def run(*flags: object, devices: int = 1) -> subprocess.Popen[str]:
        words = [str(flag) for flag in flags]
        command = [sys.executable, str(EXPERIMENTS / "train_classifier.py"), *words]
        command += ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(data_dir)]
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a run that must succeed and give what it printed."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def wait_for_step(metrics: Path, step: int) -> None:
    """Wait until a run has logged a step."""
    for _ in range(1200):
        if metrics.exists() and any(record["step"] >= step for record in read_metrics(metrics)):
            return
        time.sleep(0.1)
    raise AssertionError(f"{metrics} did not reach step {step}")


def final_state(run: Path):
    """The last checkpoint of a resnet20 on digits."""
    config = train_classifier.Config(model="resnet20")
    model = train_classifier.make_model(config, num_classes=10, in_channels=1)
    optimizer, _ = train_classifier.make_optimizer(config, 1)
    return checkpoint.restore(run / "checkpoints", create_train_state(model, optimizer)[1])


def train_losses(run: Path) -> np.ndarray:
    records = read_metrics(run / "metrics.jsonl")
    return np.array([record["train_loss"] for record in records if "train_loss" in record])


def test_lenet_learns_digits_and_names_what_it_sees(start, tmp_path):
    output = finish(start("--epochs", 8, "--name", "mine"))
    assert output.splitlines()[0] == "1 cpu device, not parallel, batch 64, float32"
    run = tmp_path / "runs" / "mine"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["test_accuracy"] > 0.93
    assert summary["parameters"] == 61_706
    assert summary["images_per_second"] > 0 and summary["seconds"] > 0
    assert summary["device"] == "cpu" and set(summary["versions"]) >= {"jax", "flax", "optax"}
    assert json.loads((run / "config.json").read_text())["epochs"] == 8
    tests = [record for record in read_metrics(run / "metrics.jsonl") if "test_accuracy" in record]
    assert [record["epoch"] for record in tests] == list(range(1, 9))
    assert tests[-1]["test_accuracy"] == pytest.approx(summary["test_accuracy"])
    assert checkpoint.latest_step(run / "checkpoints") == 8 * (1437 // 64)
    for picture in ("curves.png", "confusion.png"):
        pixels = np.asarray(Image.open(run / picture).convert("L"))
        assert min(pixels.shape) > 300 and pixels.std() > 5

    # A clear seven out of scikit-learn's digits, as a file.
    images, labels = load_digits(return_X_y=True)
    seven = np.rint(images[labels == 7][0].reshape(8, 8) * 255 / 16).astype(np.uint8)
    Image.fromarray(seven).save(tmp_path / "seven.png")
    command = [sys.executable, str(EXPERIMENTS / "classify.py"), str(run), str(tmp_path / "seven.png")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{tmp_path / 'seven.png'}: 7 (0.") or "7 (1.000)" in said
    probabilities = [float(word.strip("(),")) for word in said.split() if word.startswith("(")]
    assert len(probabilities) == 3 and sorted(probabilities, reverse=True) == probabilities
    assert sum(probabilities) <= 1.0 + 2e-3


def test_a_killed_run_resumes_to_the_same_bits(start, tmp_path):
    # resnet20 has batch statistics; lines of metrics and checkpoints come every 5 steps.
    flags = ("--model", "resnet20", "--epochs", 2, "--checkpoint-seconds", 0, "--log-every", 5)
    finish(start(*flags, "--name", "whole"))
    killed = start(*flags, "--name", "killed")
    metrics = tmp_path / "runs" / "killed" / "metrics.jsonl"
    wait_for_step(metrics, 25)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    stopped_at = checkpoint.latest_step(tmp_path / "runs" / "killed" / "checkpoints")
    assert stopped_at is not None and 15 <= stopped_at < 44
    finish(start(*flags, "--name", "killed", "--resume"))
    whole, resumed = (final_state(tmp_path / "runs" / name) for name in ("whole", "killed"))
    assert jax.tree.leaves(whole.batch_stats)
    chex.assert_trees_all_equal(whole, resumed)
    steps = [record["step"] for record in read_metrics(metrics) if "train_loss" in record]
    assert steps == sorted(set(steps)) and steps[-1] == 44


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(start, tmp_path):
    stopped = start("--epochs", 30)
    run = tmp_path / "runs" / "digits-lenet5"
    wait_for_step(run / "metrics.jsonl", 20)
    stopped.send_signal(signal.SIGINT)
    output, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    step = checkpoint.latest_step(run / "checkpoints")
    assert f"Stopped after step {step} of 660; go on with" in output
    assert "Traceback" not in output
    command = shlex.split(output.strip().splitlines()[-1])
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "test accuracy" in said and (run / "summary.json").exists()
    again = subprocess.run(command, capture_output=True, text=True)
    assert (
        again.returncode == 1
        and again.stderr
        == f"train_classifier: --resume: {run} is complete; start another run without --resume\n"
    )


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_four_devices_reach_the_loss_of_one(start, tmp_path, parallel):
    # mlp has dropout; every augmentation is on; 22 steps are one epoch.
    flags = ["--model", "mlp", "--dropout", 0.3, "--epochs", 1, "--log-every", 1, "--learning-rate", 1e-3]
    flags += ["--crop", 2, "--flip", "--cutout", 4, "--mixup", 0.4, "--cutmix", 1]
    finish(start(*flags, "--name", "one"))
    output = finish(start(*flags, "--name", parallel, "--parallel", parallel, devices=4))
    assert output.startswith(f"4 cpu devices, parallel by {parallel}, batch 64 = 4 x 16, float32")
    one, four = (train_losses(tmp_path / "runs" / name) for name in ("one", parallel))
    assert len(one) == 22
    np.testing.assert_allclose(four, one, atol=1e-4, rtol=0)


def test_bfloat16_svm_and_sgd_learn_too(start, tmp_path):
    flags = ["--model", "resnet20", "--precision", "bfloat16", "--loss", "svm", "--optimizer", "sgd"]
    finish(start(*flags, "--learning-rate", 0.05, "--weight-decay", 5e-4, "--epochs", 5, "--name", "svm"))
    summary = json.loads((tmp_path / "runs" / "svm" / "summary.json").read_text())
    assert summary["test_accuracy"] > 0.85
