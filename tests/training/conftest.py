"""A small network with convolution, batch statistics and dropout, and batches for it."""

import numpy as np
import pytest
from flax import nnx

from jaxcnn.nn import BatchNorm, Conv, Dropout

HEIGHT, WIDTH, CHANNELS, CLASSES = 6, 5, 2, 3


class SmallNet(nnx.Module):
    def __init__(self, *, dtype, rngs):
        self.conv = Conv(CHANNELS, 4, 3, padding=1, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(4)
        self.dropout = Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(4 * HEIGHT * WIDTH, CLASSES, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.linear(self.dropout(x.reshape(len(x), -1)))


@pytest.fixture(scope="session")
def small_net():
    return lambda dtype=None, seed=0: SmallNet(dtype=dtype, rngs=nnx.Rngs(seed))


def make_train_batch(size, step=0):
    """A train batch of NumPy arrays, another one for every step."""
    random = np.random.default_rng(step)
    label = random.integers(0, CLASSES, size).astype(np.int32)
    image = random.normal(label[:, None, None, None], 1.0, (size, HEIGHT, WIDTH, CHANNELS))
    return {
        "image": image.astype(np.float32),
        "target": np.eye(CLASSES, dtype=np.float32)[label],
        "index": random.permutation(100)[:size].astype(np.int32),
    }


@pytest.fixture(scope="session")
def make_batch():
    return make_train_batch
