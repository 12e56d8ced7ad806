"""ShuffleNetV2: its block against torch, its taps, its messages."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.shufflenet_v2 import ShuffleBlock, ShuffleNetV2, shufflenet_v2
from tests.nn.filled import filled
from tests.reference import normal


def test_tap_shapes():
    x = jnp.zeros((2, 95, 62, 3))
    found = nnx.eval_shape(lambda: shufflenet_v2("shufflenet_v2_x1_0", rngs=nnx.Rngs(0)).features(x))
    assert {name: value.shape[1:] for name, value in found.items()} == {
        "stem": (48, 31, 24),
        "max_pool": (24, 16, 24),
        "stage2": (12, 8, 116),
        "stage3": (6, 4, 232),
        "stage4": (3, 2, 464),
        "conv": (3, 2, 1024),
        "avg_pool": (1024,),
        "logits": (1000,),
    }


@pytest.mark.parametrize(("channels_out", "stride"), [(8, 1), (12, 2)])
def test_halves_are_concatenated_and_shuffled_as_torch_does(channels_out, stride):
    torch = pytest.importorskip("torch")
    block = filled(lambda: ShuffleBlock(8, channels_out, stride=stride, rngs=nnx.Rngs(0)))
    block.eval()
    x = normal(0, 2, 7, 10, 8)
    left, right = (x[..., :4], x[..., 4:]) if stride == 1 else (x, x)
    for layer in block.left or ():
        left = layer(left)
    for layer in block.right:
        right = layer(right)
    both = torch.from_numpy(np.concatenate((left, right), axis=-1).transpose(0, 3, 1, 2).copy())
    expected = torch.nn.functional.channel_shuffle(both, 2).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(block(x), expected, rtol=1e-5, atol=1e-5)


def test_at_stride_1_half_of_the_channels_pass_unchanged():
    block = filled(lambda: ShuffleBlock(8, 8, rngs=nnx.Rngs(0)))
    x = normal(0, 2, 7, 10, 8)
    y = np.asarray(block(x))
    np.testing.assert_array_equal(y[..., ::2], x[..., :4])
    assert block.left is None and (y[..., 1::2] >= 0).all()


def test_depthwise_convolutions_have_no_activation():
    block: Any = nnx.eval_shape(lambda: ShuffleBlock(8, 12, stride=2, rngs=nnx.Rngs(0)))
    assert [layer.activation for layer in block.left] == [None, nnx.relu]
    assert [layer.activation for layer in block.right] == [nnx.relu, None, nnx.relu]
    assert [layer.conv.groups for layer in block.right] == [1, 6, 1]
    assert [layer.conv.stride for layer in block.right] == [(1, 1), (2, 2), (1, 1)]


def test_errors_name_the_argument(unchecked):
    rngs = nnx.Rngs(0)
    with pytest.raises(
        ValueError, match=r"^shufflenet_v2: unknown name 'shufflenet_v2_x1'; did you mean .shufflenet_v2_x1_"
    ):
        shufflenet_v2("shufflenet_v2_x1", rngs=rngs)
    for depths, channels in (((1, 1), (4, 8, 12)), ((), (4, 8)), ((2, 0), (4, 8, 12, 16))):
        with pytest.raises(
            ValueError, match="^ShuffleNetV2: depths must have one positive int for each stage"
        ):
            ShuffleNetV2(depths, channels, rngs=rngs)
    for channels_in, channels_out, stride in ((8, 9, 2), (8, 12, 1)):
        message = f"^ShuffleBlock: channels_out must be even.* got channels_in=8, channels_out={channels_out}"
        with pytest.raises(ValueError, match=message):
            ShuffleBlock(channels_in, channels_out, stride=stride, rngs=rngs)
