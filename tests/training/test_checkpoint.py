import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.nn import set_random_keys
from jaxcnn.training import checkpoint
from jaxcnn.training.parallel import data_parallel
from jaxcnn.training.state import TrainState, create_train_state
from jaxcnn.training.step import softmax_cross_entropy, train_step


def state_at(step: int, size: int = 3, dtype: Any = np.float32) -> TrainState:
    random = np.random.default_rng(step)
    return TrainState(
        step=np.int32(step),
        params={"conv": {"kernel": random.normal(size=(2, size)).astype(dtype)}, "scale": np.float32(step)},
        batch_stats={},
        opt_state=(optax.EmptyState(), optax.TraceState(trace={"kernel": random.normal(size=(3,))})),
    )


@pytest.mark.parametrize("kind", ["none", "jit", "pmap"])
def test_training_goes_on_bit_for_bit_from_a_checkpoint(kind, small_net, make_batch, tmp_path):
    parallel = data_parallel(kind)
    optimizer = optax.adam(1e-2)
    merge, state = create_train_state(small_net(), optimizer)

    def step(state, batch, key, axis_name=None):
        return train_step(
            state,
            batch,
            key,
            merge=merge,
            optimizer=optimizer,
            loss=softmax_cross_entropy,
            set_random_keys=set_random_keys,
            axis_name=axis_name,
        )

    compiled = parallel.compile_train(step)

    def go_on(placed, first, last):
        for number in range(first, last):
            placed, _ = compiled(placed, parallel.shard(make_batch(8, number)), jax.random.key(0))
        return placed

    halfway = go_on(parallel.replicate(state), 0, 3)
    checkpoint.save(tmp_path, parallel.fetch(halfway))
    expected = parallel.fetch(go_on(halfway, 3, 6))

    _, target = create_train_state(small_net(seed=1), optimizer)
    restored = checkpoint.restore(tmp_path, target)
    assert restored.step == 3
    actual = parallel.fetch(go_on(parallel.replicate(restored), 3, 6))
    chex.assert_trees_all_equal(actual, expected)


def test_every_dtype_comes_back_as_it_was(tmp_path):
    for step, dtype in enumerate((np.float32, np.float64, jnp.bfloat16, np.int8), 1):
        state = state_at(step, dtype=dtype)
        checkpoint.save(tmp_path, state)
        restored = checkpoint.restore(tmp_path, jax.tree.map(np.zeros_like, state))
        chex.assert_trees_all_equal(restored, state)
        chex.assert_trees_all_equal_shapes_and_dtypes(restored, jax.tree.map(np.asarray, state))


def test_the_newest_two_are_kept(tmp_path):
    directory = tmp_path / "not" / "there" / "yet"
    assert checkpoint.latest_step(directory) is None and not directory.exists()
    for step in (2, 4, 10):
        checkpoint.save(directory, state_at(step))
        assert checkpoint.latest_step(directory) == step
    assert sorted(path.name for path in directory.iterdir()) == ["10", "4"]
    chex.assert_trees_all_equal(checkpoint.restore(directory, state_at(0)), state_at(10))


def test_saving_a_step_again_leaves_it_and_an_older_one_is_refused(tmp_path):
    checkpoint.save(tmp_path, state_at(5))
    checkpoint.save(tmp_path, state_at(5))
    with pytest.raises(ValueError, match=r"save: .* holds step 5, expected none later than step 4"):
        checkpoint.save(tmp_path, state_at(4))


def test_a_target_may_be_shapes_only(tmp_path):
    checkpoint.save(tmp_path, state_at(5))
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state_at(0))
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path, target), state_at(5))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (state_at(0, size=4), r"has \(2, 3\) float32 at params.conv.kernel, expected \(2, 4\) float32"),
        (
            state_at(0, dtype=np.float64),
            r"has \(2, 3\) float32 at params.conv.kernel, expected \(2, 3\) float64",
        ),
        (
            dataclasses.replace(state_at(0), batch_stats={"mean": np.zeros(3)}),
            r"has nothing at batch_stats.mean, expected \(3,\) float64",
        ),
        (
            dataclasses.replace(state_at(0), opt_state=()),
            r"has \(3,\) float64 at opt_state.1.trace.kernel, expected nothing",
        ),
    ],
)
def test_another_model_or_optimizer_is_refused_by_the_path(target, message, tmp_path):
    checkpoint.save(tmp_path, state_at(5))
    with pytest.raises(ValueError, match=rf"^restore: step 5 in {re.escape(str(tmp_path))} {message}$"):
        checkpoint.restore(tmp_path, target)


def test_equal_shapes_under_other_names_are_not_exchanged(tmp_path):
    """Merging by position would put b's values into a."""
    saved = TrainState(
        step=np.int32(1), params={"b": np.ones(3), "c": np.zeros(3)}, batch_stats={}, opt_state=()
    )
    checkpoint.save(tmp_path, saved)
    with pytest.raises(ValueError, match="has nothing at params.a"):
        checkpoint.restore(tmp_path, dataclasses.replace(saved, params={"a": np.ones(3), "b": np.zeros(3)}))


def test_no_checkpoint_is_said_and_no_folder_made(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"restore: there is no checkpoint in .*nothing"):
        checkpoint.restore(tmp_path / "nothing", state_at(0))
    assert not (tmp_path / "nothing").exists()


def test_a_file_in_the_place_of_the_folder_is_said_in_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"^save: step 1 cannot be written to .*file/checkpoints: .*\Z"):
        checkpoint.save(tmp_path / "file" / "checkpoints", state_at(1))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_state_with_a_leading_axis_of_devices_is_refused(tmp_path):
    state = dataclasses.replace(state_at(1), step=np.ones(4, np.int32))
    with pytest.raises(ValueError, match=r"save: state.step has shape \(4,\), expected \(\)"):
        checkpoint.save(tmp_path, state)
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_said_in_one_line(tmp_path, capfd):
    checkpoint.save(tmp_path, state_at(1, size=20_000))
    largest = max((p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(largest, 1000)
    with pytest.raises(OSError, match=r"^restore: step 1 in .* is damaged: .*\Z"):
        checkpoint.restore(tmp_path, state_at(0, size=20_000))
    assert capfd.readouterr() == ("", "")


COMMON = """
import sys
import numpy as np
from jaxcnn.training import checkpoint
from jaxcnn.training.state import TrainState

def state_at(step):
    return TrainState(step=np.int32(step), params={"w": np.full(300_000, step)}, batch_stats={}, opt_state=())
"""

FULL_DISK = """
import resource
checkpoint.save(sys.argv[1], state_at(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    checkpoint.save(sys.argv[1], state_at(2))
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(checkpoint.restore(sys.argv[1], state_at(0)).params["w"][-1])
checkpoint.save(sys.argv[1], state_at(2))
print(checkpoint.restore(sys.argv[1], state_at(0)).params["w"][-1])
"""

FOREVER = """
step = checkpoint.latest_step(sys.argv[1]) or 0
while True:
    step += 1
    checkpoint.save(sys.argv[1], state_at(step))
"""


def python(script, directory):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", COMMON + script, str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_full_disk_is_an_error_and_leaves_the_last_checkpoint(tmp_path):
    """The file size limit fails a write as a full disk does."""
    process = python(FULL_DISK, tmp_path)
    try:
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    error, *restored = output.splitlines()
    assert error.startswith(f"save: step 2 cannot be written to {tmp_path}: ")
    assert restored == ["1", "2"]
    assert "absl" not in errors


def newest(directory):
    return max((int(path.name) for path in directory.iterdir() if path.name.isdigit()), default=0)


@pytest.mark.slow
def test_a_killed_save_leaves_the_previous_checkpoint(tmp_path):
    target = TrainState(step=np.int32(0), params={"w": np.zeros(300_000, int)}, batch_stats={}, opt_state=())
    last = 0
    for attempt in range(4):
        process = python(FOREVER, tmp_path)
        try:
            deadline = time.monotonic() + 60
            while newest(tmp_path) < last + 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.013 * attempt)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.communicate()
        restored = checkpoint.restore(tmp_path, target)
        assert restored.step >= last + 2
        assert (restored.params["w"] == restored.step).all()
        last = int(restored.step)
