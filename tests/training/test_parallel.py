import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.nn import set_random_keys
from jaxcnn.training.parallel import data_parallel
from jaxcnn.training.state import create_train_state
from jaxcnn.training.step import eval_step, softmax_cross_entropy, train_step

KINDS = ("none", "jit", "pmap")


def bind(model, optimizer):
    merge, state = create_train_state(model, optimizer)
    options = {"merge": merge, "loss": softmax_cross_entropy}
    train = functools.partial(train_step, optimizer=optimizer, set_random_keys=set_random_keys, **options)
    return train, functools.partial(eval_step, **options), state


def traced_once(step):
    chex.clear_trace_counter()

    @chex.assert_max_traces(n=1)
    def counted(*args, **options):
        return step(*args, **options)

    return counted


@jax.jit
def augment(key, batch):
    """Shift, flip and mix: what happens to an example depends on the whole batch."""
    shift_key, flip_key, mix_key = jax.random.split(key, 3)
    image = jnp.roll(batch["image"], jax.random.randint(shift_key, (), -1, 2), 1)
    flip = jax.random.bernoulli(flip_key, 0.5, (len(image), 1, 1, 1))
    image = jnp.where(flip, image[:, :, ::-1], image)
    partner, share = jax.random.permutation(mix_key, len(image)), 0.8
    return batch | {
        "image": share * image + (1 - share) * image[partner],
        "target": share * batch["target"] + (1 - share) * batch["target"][partner],
    }


def run(kind, model, make_batch, steps=20):
    """Train with dropout and augmentation; returns the state, the metrics of every step and an evaluation."""
    parallel = data_parallel(kind)
    train, evaluate, state = bind(model, optax.sgd(0.1, momentum=0.9))
    compiled = parallel.compile_train(traced_once(train))
    state, key = parallel.replicate(state), jax.random.key(3)
    history = []
    for step in range(steps):
        batch = augment(jax.random.fold_in(key, step), parallel.shard(make_batch(16, step)))
        state, metrics = compiled(state, batch, key)
        history.append(parallel.fetch(metrics))
    compiled_evaluate = parallel.compile_eval(traced_once(evaluate))
    outputs = parallel.fetch(compiled_evaluate(state, parallel.shard(evaluation_batch(make_batch))))
    return parallel.fetch(state), history, outputs


def evaluation_batch(make_batch):
    batch = make_batch(16, 100)
    label = batch["target"].argmax(-1).astype(np.int32)
    return {
        "image": batch["image"],
        "label": label,
        "index": batch["index"],
        "mask": np.arange(16) < 13,
    }


@pytest.fixture(scope="module")
def expected(small_net, make_batch):
    return run("none", small_net(), make_batch)


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_four_devices_give_the_result_of_one_with_dropout_and_augmentation(
    kind, expected, small_net, make_batch
):
    assert jax.device_count() == 4
    actual = run(kind, small_net(), make_batch)
    chex.assert_trees_all_close(actual, expected, atol=1e-4)
    chex.assert_trees_all_equal_shapes_and_dtypes(actual[0], expected[0])
    assert expected[1][-1]["loss"] < 0.7 * expected[1][0]["loss"]
    assert actual[2]["count"] == 13 and (actual[2]["index"] == -1).sum() == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_is_traced_once_and_its_state_donated(kind, small_net, make_batch):
    parallel = data_parallel(kind)
    train, _, state = bind(small_net(), optax.adam(1e-3))
    compiled = parallel.compile_train(traced_once(train))
    first = placed = parallel.replicate(state)
    for step in range(4):
        placed, _ = compiled(placed, parallel.shard(make_batch(8, step)), jax.random.key(0))
    assert first.params["linear"]["kernel"].is_deleted()
    assert not state.params["linear"]["kernel"].is_deleted()
    assert parallel.fetch(placed).step == 4


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_fetched_is_not_overwritten_by_the_next_step(kind, small_net, make_batch):
    parallel = data_parallel(kind)
    train, _, state = bind(small_net(), optax.sgd(0.1))
    host = jax.tree.map(np.array, state)
    compiled, placed = parallel.compile_train(train), parallel.replicate(host)
    fetched = parallel.fetch(placed)
    chex.assert_trees_all_equal(fetched, host)
    kept = jax.tree.map(np.array, fetched)
    for step in range(3):
        placed, _ = compiled(placed, parallel.shard(make_batch(8, step)), jax.random.key(0))
    jax.block_until_ready(placed)
    chex.assert_trees_all_equal(fetched, kept)
    chex.assert_trees_all_equal(host, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_the_description_is_one_line(kind):
    line = data_parallel(kind).describe(64)
    assert (
        line
        == {
            "none": "1 cpu device, not parallel, batch 64",
            "jit": "4 cpu devices, parallel by jit, batch 64 = 4 x 16",
            "pmap": "4 cpu devices, parallel by pmap, batch 64 = 4 x 16",
        }[kind]
    )


@pytest.mark.parametrize("kind", ["jit", "pmap"])
@pytest.mark.parametrize("size", [0, 2, 30])
def test_a_batch_that_the_devices_do_not_divide_is_refused(kind, size, make_batch):
    parallel = data_parallel(kind)
    message = f"DataParallel: a batch of {size} does not split over 4 devices, expected a multiple of 4"
    with pytest.raises(ValueError, match=message):
        parallel.describe(size)
    with pytest.raises(ValueError, match=message):
        parallel.shard(make_batch(size))


def test_an_unknown_kind_is_refused(unchecked):
    with pytest.raises(
        ValueError, match="data_parallel: kind 'tpu' is unknown, expected 'none', 'jit' or 'pmap'"
    ):
        data_parallel("tpu")  # pyright: ignore[reportArgumentType]


WORKER = """
import json, sys
import jax
port, rank, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=rank)
sys.path.insert(0, sys.argv[4])
import conftest, test_parallel
from flax import nnx
from jaxcnn.training import checkpoint
from jaxcnn.training.parallel import data_parallel

def of_this_process(size, step=0):
    batch = conftest.make_train_batch(size, step)
    return {name: x[rank * size // 2 : (rank + 1) * size // 2] for name, x in batch.items()}

try:
    data_parallel("pmap")
except ValueError as error:
    refused = str(error)
original = test_parallel.evaluation_batch
test_parallel.evaluation_batch = lambda make_batch: {
    name: x[rank * 8 : (rank + 1) * 8] for name, x in original(conftest.make_train_batch).items()
}
state, history, outputs = test_parallel.run(
    "jit", conftest.SmallNet(dtype=None, rngs=nnx.Rngs(0)), of_this_process, steps=6
)
checkpoint.save(directory, state)
restored = checkpoint.restore(directory, state)
print(json.dumps({
    "devices": data_parallel("jit").describe(16),
    "refused": refused,
    "losses": [float(metrics["loss"]) for metrics in history],
    "outputs": {name: x.tolist() for name, x in outputs.items()},
    "restored": bool((restored.params["conv"]["kernel"] == state.params["conv"]["kernel"]).all()),
}))
"""


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(small_net, make_batch, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                WORKER,
                port,
                str(rank),
                str(tmp_path / "run"),
                str(Path(__file__).parent),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        answers = [worker.communicate(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [worker.returncode for worker in workers] == [0, 0], answers[0][1] + answers[1][1]
    first, second = (json.loads(output.splitlines()[-1]) for output, _ in answers)
    assert first == second
    _, history, outputs = run("none", small_net(), make_batch, steps=6)
    np.testing.assert_allclose(first["losses"], [m["loss"] for m in history], atol=1e-4)
    for name, expected in outputs.items():
        np.testing.assert_allclose(first["outputs"][name], expected, atol=1e-3)
    assert first["devices"] == "4 cpu devices in 2 processes, parallel by jit, batch 16 = 4 x 4"
    assert first["refused"] == "data_parallel: kind 'pmap' is for one process, got 2: expected 'jit'"
    assert first["restored"]
