from typing import Any, cast

import numpy as np
import pytest

from jaxcnn.interpret.occlusion import occlusion
from tests.interpret import small_network
from tests.interpret.small_network import CLASSES, InNumPy, images, linear_net, small_net
from tests.reference import normal


def by_loop(x, classes, window, stride, fill):
    network = InNumPy(small_net())
    before = network.logits(x, classes)
    rows = range(0, x.shape[1] - window[0] + 1, stride[0])
    columns = range(0, x.shape[2] - window[1] + 1, stride[1])
    falls = np.zeros((len(x), len(rows), len(columns)))
    for r, top in enumerate(rows):
        for q, left in enumerate(columns):
            covered = x.copy()
            covered[:, top : top + window[0], left : left + window[1]] = fill
            falls[:, r, q] = before - network.logits(covered, classes)
    return falls


@pytest.mark.parametrize(
    ("window", "stride", "fill"), [((3, 2), (2, 1), 0.0), ((2, 2), (1, 1), 1), ((8, 6), (1, 1), -0.5)]
)
def test_the_falls_are_those_of_a_loop(window, stride, fill):
    expected = by_loop(images(), CLASSES, window, stride, fill)
    found = occlusion(small_net(), images(), CLASSES, window=window, stride=stride, fill=fill)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_an_int_is_meant_for_both_axes():
    expected = by_loop(images(), CLASSES, (2, 2), (3, 3), 0)
    found = occlusion(small_net(), images(), CLASSES, window=2, stride=3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_linear_model_loses_what_it_had_under_the_window():
    model, x = linear_net(), normal(0, 2, 5, 3, 2)
    products = x * np.asarray(model.output.kernel[...]).T[2].reshape(5, 3, 2)
    found = occlusion(model, x, 2, window=1, stride=1)
    np.testing.assert_allclose(found, products.sum(-1), rtol=0, atol=1e-5)


def test_a_batch_gives_what_each_image_gives_alone():
    # 35 positions: three chunks of 16 for both images, two of 32 for one.
    together = occlusion(small_net(), images(), CLASSES, window=2, stride=1)
    for i, label in enumerate(CLASSES):
        alone = occlusion(small_net(), images()[i : i + 1], int(label), window=2, stride=1)
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-4, atol=1e-5)


def test_the_model_stays_as_it_is():
    model = small_net()
    before = small_network.snapshot(model)
    occlusion(model, images(), CLASSES, window=4, stride=4)
    assert small_network.is_unchanged(model, before)


def test_wrong_arguments_are_refused(unchecked):
    wrong: list[tuple[dict[str, Any], str]] = [
        (
            {"window": (3, 7)},
            r"window must be at most height and width of x \(2, 8, 6, 3\), got window=\(3, 7\)",
        ),
        ({"window": (3,)}, r"window must be .* got window=\(3,\)"),
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"stride": 1.5}, "stride must be an int or a tuple of 2 ints"),
        ({"fill": np.nan}, "fill must be a finite Python number, got nan"),
        ({"fill": "grey"}, "fill must be a finite Python number, got 'grey'"),
    ]
    for options, message in wrong:
        with pytest.raises((ValueError, TypeError), match=f"^occlusion: {message}"):
            occlusion(small_net(), images(), 0, **{"window": 2, "stride": 2, **options})
    with pytest.raises(TypeError, match="^occlusion: model must be a jaxcnn classifier"):
        occlusion(cast(Any, linear_net), images(), 0, window=2, stride=2)
