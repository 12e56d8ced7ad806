"""Networks on signals, trained with the rewrites as PyTorch trains them: EEGNet, WaveNet and QuartzNet.

Both start from the same parameters and meet the same batches, a new one at each step of SGD. PyTorch in
float32 stays within 1e-5 of itself in float64 at these rates, and so does a start that is off by 1e-6: what
is further away is no matter of rounding. At higher rates a ReLU that flips at 0 is seen in the losses.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn.functional as F

torch = pytest.importorskip("torch", reason="torch is an optional oracle")
TF = torch.nn.functional
pytestmark = pytest.mark.slow

STEPS, TOLERANCE = 50, 1e-4
DILATIONS = tuple(2**n for n in range(10))  # 1 to 512
CLASSES = 4

Parameters = dict[str, Any]


class Training(NamedTuple):
    """One network twice, channels last and channels first, with what it is trained from and on."""

    ours: Callable[[Parameters, Any], Any]
    theirs: Callable[[Parameters, Any], Any]
    shapes: dict[str, tuple[int, ...]]
    batch: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    rate: float

    def parameters(self) -> Parameters:
        """Drawn once: kernels that keep the variance, scales near 1 and biases near 0."""
        random, drawn = np.random.default_rng(0), {}
        for name, shape in self.shapes.items():
            deviation = 0.1 if len(shape) == 1 else np.prod(shape[:-1]) ** -0.5
            mean = 1.0 if name.endswith("scale") else 0.0
            drawn[name] = random.normal(mean, deviation, shape).astype(np.float32)
        return drawn

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        random = np.random.default_rng(1)
        for _ in range(STEPS):
            x, labels = self.batch(random)
            yield x.astype(np.float32), labels


def losses_of_ours(training: Training) -> np.ndarray:
    @jax.jit
    def step(parameters, x, labels):
        def loss(parameters):
            return F.softmax_cross_entropy(training.ours(parameters, x), labels)

        value, gradients = jax.value_and_grad(loss)(parameters)
        return jax.tree.map(lambda w, dw: w - training.rate * dw, parameters, gradients), value

    parameters, losses = training.parameters(), []
    for x, labels in training.batches():
        parameters, loss = step(parameters, x, labels.astype(np.int32))
        losses.append(float(loss))
    return np.array(losses)


def losses_of_theirs(training: Training, dtype: Any = torch.float32) -> np.ndarray:
    parameters = {
        name: torch.tensor(channels_first(w), dtype=dtype, requires_grad=True)
        for name, w in training.parameters().items()
    }
    losses = []
    for x, labels in training.batches():
        x = torch.tensor(np.moveaxis(x, -1, 1).copy(), dtype=dtype)
        logits = training.theirs(parameters, x)
        loss = TF.cross_entropy(logits, torch.tensor(labels))
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for w, dw in zip(parameters.values(), gradients, strict=True):
                w -= training.rate * dw
        losses.append(loss.item())
    return np.array(losses)


def channels_first(w: np.ndarray) -> np.ndarray:
    """A kernel (*window, in, out) as (out, in, *window); matrices and vectors stay."""
    return np.moveaxis(w, (-1, -2), (0, 1)).copy() if w.ndim > 2 else w


def normalised(p: Parameters, name: str, x: Any) -> Any:
    mean, var, _ = F.batch_stats(x)
    return F.batch_norm(x, mean, var, p[f"{name} scale"], p[f"{name} bias"])


def normalised_by_torch(p: Parameters, name: str, x: Any) -> Any:
    return TF.batch_norm(x, None, None, p[f"{name} scale"], p[f"{name} bias"], training=True)


def of_norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name} scale": (channels,), f"{name} bias": (channels,)}


def eegnet() -> Training:
    """EEGNet-8,2 without dropout: Lawhern et al., 2018, table 2."""

    def ours(p, x):
        y = F.conv(x, p["temporal"], padding=((0, 0), (31, 32)))
        y = F.depthwise_conv(normalised(p, "temporal", y), p["spatial"])
        y = F.avg_pool(jax.nn.elu(normalised(p, "spatial", y)), (1, 4))
        y = F.separable_conv(y, p["depthwise"], p["pointwise"], padding=((0, 0), (7, 8)))
        y = F.avg_pool(jax.nn.elu(normalised(p, "separable", y)), (1, 8))
        return y.reshape(len(y), -1) @ p["dense"] + p["dense bias"][None]

    def theirs(p, x):
        y = TF.conv2d(TF.pad(x, (31, 32)), p["temporal"])
        y = TF.conv2d(normalised_by_torch(p, "temporal", y), p["spatial"], groups=8)
        y = TF.avg_pool2d(TF.elu(normalised_by_torch(p, "spatial", y)), (1, 4))
        y = TF.conv2d(TF.conv2d(TF.pad(y, (7, 8)), p["depthwise"], groups=16), p["pointwise"])
        y = TF.avg_pool2d(TF.elu(normalised_by_torch(p, "separable", y)), (1, 8))
        return y.movedim(1, -1).flatten(1) @ p["dense"] + p["dense bias"]

    shapes = {
        "temporal": (1, 64, 1, 8),
        **of_norm("temporal", 8),
        "spatial": (22, 1, 1, 16),
        **of_norm("spatial", 16),
        "depthwise": (1, 16, 1, 16),
        "pointwise": (1, 1, 16, 16),
        **of_norm("separable", 16),
        "dense": (35 * 16, CLASSES),
        "dense bias": (CLASSES,),
    }

    def batch(random):
        """A wave for each class, seen by some electrodes more than by others."""
        labels = random.integers(0, CLASSES, 16)
        time, electrodes = np.arange(1125), np.arange(22)
        wave = np.sin(0.01 * (1 + labels[:, None]) * time)[:, None]
        seen = 0.2 * np.cos(0.3 * labels[:, None] * electrodes)[..., None]
        return (random.normal(size=(16, 22, 1125)) + wave * seen)[..., None], labels

    return Training(ours, theirs, shapes, batch, rate=0.01)


def wavenet(taps: int, *, rank: int = 1, channels: int = 32) -> Training:
    """One stack of gated residual layers: van den Oord et al., 2016; of rank 2, a signal is one row high."""
    window, one = (1,) * (rank - 1) + (taps,), (1,) * rank

    def ours(p, x):
        total = jnp.zeros_like(x)
        for d in DILATIONS:
            pads = ((0, 0),) * (rank - 1) + (((taps - 1) * d, 0),)
            y = F.conv(x, p[f"{d} gated"], padding=pads, dilation=(1,) * (rank - 1) + (d,))
            filtered, gate = jnp.split(y, 2, axis=-1)
            y = jnp.tanh(filtered) * jax.nn.sigmoid(gate)
            total = total + F.conv(y, p[f"{d} skip"])
            if d != DILATIONS[-1]:
                x = x + F.conv(y, p[f"{d} residual"])
        return F.conv(jax.nn.relu(total), p["logits"], p["logits bias"])

    def theirs(p, x):
        conv, total = (TF.conv1d, TF.conv2d)[rank - 1], torch.zeros_like(x)
        for d in DILATIONS:
            past = TF.pad(x, ((taps - 1) * d, 0))
            filtered, gate = conv(past, p[f"{d} gated"], dilation=(1,) * (rank - 1) + (d,)).chunk(2, dim=1)
            y = torch.tanh(filtered) * torch.sigmoid(gate)
            total = total + conv(y, p[f"{d} skip"])
            if d != DILATIONS[-1]:
                x = x + conv(y, p[f"{d} residual"])
        return conv(TF.relu(total), p["logits"], p["logits bias"])

    shapes = {}
    for d in DILATIONS:
        shapes[f"{d} gated"] = (*window, channels, 2 * channels)
        shapes[f"{d} skip"] = (*one, channels, channels)
        if d != DILATIONS[-1]:
            shapes[f"{d} residual"] = (*one, channels, channels)
    shapes |= {"logits": (*one, channels, CLASSES), "logits bias": (CLASSES,)}

    def batch(random):
        """At each sample the largest of the first channels, now and 512 samples ago together."""
        x = random.normal(size=(2, 2048, channels))
        past = np.pad(x, ((0, 0), (512, 0), (0, 0)))[:, :2048]
        labels = (x + past)[..., :CLASSES].argmax(-1)
        return (x, labels) if rank == 1 else (x[:, None], labels[:, None])

    return Training(ours, theirs, shapes, batch, rate=0.2)


def quartznet() -> Training:
    """C1, one block and C2: Kriman et al., 2019, table 1, with fewer channels before C2."""
    channels, repeats = 128, 3

    def ours(p, x):
        def separable(name, x, **options):
            y = F.separable_conv(x, p[f"{name} depthwise"], p[f"{name} pointwise"], **options)
            return normalised(p, name, y)

        start = jax.nn.relu(separable("C1", x, stride=2, padding=16))
        shortcut = normalised(p, "shortcut", F.conv(start, p["shortcut"]))
        y = start
        for n in range(repeats):
            y = separable(f"B{n}", y, padding=25)
            y = jax.nn.relu(y + shortcut if n == repeats - 1 else y)
        y = jax.nn.relu(separable("C2", y, padding=86, dilation=2))
        return y.mean(axis=1) @ p["dense"] + p["dense bias"][None]

    def theirs(p, x):
        def separable(name, x, **options):
            y = TF.conv1d(x, p[f"{name} depthwise"], groups=x.shape[1], **options)
            return normalised_by_torch(p, name, TF.conv1d(y, p[f"{name} pointwise"]))

        start = TF.relu(separable("C1", x, stride=2, padding=16))
        shortcut = normalised_by_torch(p, "shortcut", TF.conv1d(start, p["shortcut"]))
        y = start
        for n in range(repeats):
            y = separable(f"B{n}", y, padding=25)
            y = TF.relu(y + shortcut if n == repeats - 1 else y)
        y = TF.relu(separable("C2", y, padding=86, dilation=2))
        return y.mean(2) @ p["dense"] + p["dense bias"]

    def of_separable(name, taps, channels_in, channels_out):
        return {
            f"{name} depthwise": (taps, 1, channels_in),
            f"{name} pointwise": (1, channels_in, channels_out),
            **of_norm(name, channels_out),
        }

    shapes = of_separable("C1", 33, 64, channels)
    for n in range(repeats):
        shapes |= of_separable(f"B{n}", 51, channels, 512 if n == repeats - 1 else channels)
    shapes |= {"shortcut": (1, channels, 512), **of_norm("shortcut", 512)}
    shapes |= of_separable("C2", 87, 512, 512)
    shapes |= {"dense": (512, CLASSES), "dense bias": (CLASSES,)}

    def batch(random):
        """Noise whose mean spectrum is that of the class."""
        labels = random.integers(0, CLASSES, 8)
        spectrum = 0.5 * np.cos(0.3 * (1 + labels[:, None]) * np.arange(64))
        return random.normal(size=(8, 128, 64)) + spectrum[:, None], labels

    return Training(ours, theirs, shapes, batch, rate=0.01)


TRAININGS = {
    "EEGNet": eegnet,
    "WaveNet, 2 taps": lambda: wavenet(2),
    "WaveNet, 3 taps": lambda: wavenet(3),
    "WaveNet, 2 taps, one row high": lambda: wavenet(2, rank=2),
    "QuartzNet": quartznet,
}


@pytest.fixture
def one_thread():
    """PyTorch's threads wait for each other too long where other tests take the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", TRAININGS)
def test_every_loss_is_pytorchs(name):
    training = TRAININGS[name]()
    expected = losses_of_theirs(training)
    assert expected[-5:].mean() < 0.8 * expected[:5].mean()  # it learns: the gradients matter
    np.testing.assert_allclose(losses_of_ours(training), expected, rtol=TOLERANCE)
