"""The instruction that XLA has for oneDNN: where it is taken, where not, and gradients cut into tiles."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.lowering import onednn
from tests.lowering.oracle import Problem, errors
from tests.lowering.test_convolutions import normal_form

needs_onednn = pytest.mark.skipif(not onednn.is_available(), reason="this JAX does not have oneDNN")

DENSE = Problem((12, 10), (3, 2), batch=4, group_in=9, group_out=10, padding=((1, 1), (0, 1)))
GROUPED = Problem((13, 10), (3, 3), batch=3, group_in=2, group_out=3, groups=4, stride=(2, 1))
DEPTHWISE = Problem((12, 9), (3, 5), batch=4, groups=6, padding=((1, 1), (2, 2)), dilation=(2, 1))
LINE = Problem((24,), (5,), batch=2, group_in=3, group_out=4, groups=2, padding=((2, 2),))
# One that has a code of its own for every reason to pad by hand.
PADDED = [
    Problem((9, 8), (3, 3), groups=5, padding=((0, 2), (1, 1))),
    Problem((4, 5), (3, 3), groups=5, padding=((2, 2), (4, 4)), dilation=(2, 4)),
    Problem((9, 8), (2, 3), groups=5, padding=((3, 3), (1, 1))),
    Problem((9, 8), (3, 3), groups=5, padding=((-1, 2), (1, -2))),
    Problem((9,), (4,), groups=5, padding=((1, 1),), stride=(2,)),
]


def instructions(problem, **options):
    with jaxcnn.accelerate():
        text = jax.jit(lambda *a: problem.and_gradients(*a), **options).lower(*problem.arrays()).as_text()
    return text.count("__onednn$convolution")


def check(problem):
    arrays = problem.arrays()
    with jaxcnn.accelerate():
        found = jax.jit(lambda *a: problem.and_gradients(*a))(*arrays)
    assert max(errors(found, problem.oracle(*arrays))) < 1e-5


@needs_onednn
@pytest.mark.parametrize("problem", [DENSE, GROUPED, DEPTHWISE, LINE])
def test_the_value_and_both_gradients_are_its_own(problem):
    assert instructions(problem) >= 3


@needs_onednn
@pytest.mark.parametrize("problem", PADDED)
def test_padding_that_only_its_code_of_last_resort_would_take(problem):
    check(problem)


@needs_onednn
@pytest.mark.parametrize("cached", [2**21, 600])
@pytest.mark.parametrize("longest", [128, 4])
@pytest.mark.parametrize("problem", [DENSE, GROUPED, DEPTHWISE, LINE])
def test_gradients_of_tiles_a_few_at_a_time(problem, longest, cached, monkeypatch):
    monkeypatch.setattr(onednn, "LONGEST", longest)
    monkeypatch.setattr(onednn, "SHORTEST", 2)
    monkeypatch.setattr(onednn, "CACHED", cached)
    monkeypatch.setattr(onednn, "CONTRACTED", 5)
    conv, (x, kernel, dy) = normal_form(problem), problem.arrays()
    gradient = jax.jit(lambda x, dy: onednn.kernel_gradient(conv, x, dy))(x, dy)
    assert errors([gradient], problem.oracle(x, kernel, dy)[2:])[0] < 1e-5


def test_tiles_are_equal_parts_and_none_is_short():
    for n in range(1, 300):
        for wanted in (1, 2, 3, 8):
            parts = onednn._parts(n, wanted)
            assert n % parts == 0 and (parts == 1 or n // parts >= onednn.SHORTEST)
    assert (onednn._parts(56, 2), onednn._parts(56, 3), onednn._parts(56, 50)) == (2, 4, 8)
    assert onednn._parts(113, 2) == 1


@pytest.mark.parametrize(
    "problem",
    [
        Problem((4, 5, 6), (2, 3, 2), groups=3),
        Problem((140, 3), (129, 1), group_in=2, group_out=2),
        Problem((5, 6), (2, 2), group_in=2, group_out=2, spread=(2, 1)),
    ],
    ids=["a depthwise volume", "a long window", "zeros between the elements of x"],
)
def test_what_was_not_seen_to_take_another_code_is_refused(problem, monkeypatch):
    monkeypatch.setattr(onednn, "is_available", lambda: True)
    assert onednn.fits(normal_form(DENSE)) and not onednn.fits(normal_form(problem))


@pytest.mark.parametrize(
    "problem",
    [
        Problem((139, 4), (3, 1), group_in=2, group_out=2),
        Problem((9, 8), (3, 3), group_in=2, group_out=1, groups=4),
        Problem((4, 5, 6), (2, 3, 2), group_in=2, group_out=2),
    ],
    ids=["137 positions, a prime", "one channel out a group", "a volume"],
)
def test_gradients_that_are_refused(problem, monkeypatch):
    monkeypatch.setattr(onednn, "is_available", lambda: True)
    conv = normal_form(problem)
    assert onednn.fits(conv) and not onednn.fits_kernel_gradient(conv)
    check(problem)


def test_only_float32_of_one_device(monkeypatch):
    monkeypatch.setattr(onednn, "is_available", lambda: True)
    conv = normal_form(DENSE)
    assert not onednn.fits(replace(conv, dtype=np.float64))
    assert not onednn.fits(replace(conv, partitioned=True))


def test_a_program_that_is_kept_has_none(tmp_path):
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        assert not onednn.is_available() and instructions(DENSE) == 0
    finally:
        jax.config.update("jax_compilation_cache_dir", None)


def test_an_exported_program_has_none():
    with jaxcnn.accelerate():
        exported = jax.export.export(jax.jit(DENSE.conv))(*DENSE.arrays()[:2])
    assert "__onednn" not in exported.mlir_module()


@pytest.mark.parametrize(
    ("text", "has"), [("flags : sse avx avx2 bmi1", True), ("flags : sse avx bmi1", False), (None, False)]
)
def test_a_processor_without_avx2_and_another_system_are_not_asked(text, has, monkeypatch, tmp_path):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(onednn, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(onednn, "_was_seen_to_work", lambda: True)
    assert onednn.is_available() == has


def test_an_unknown_instruction_is_not_available(monkeypatch):
    forward = onednn._instruction
    monkeypatch.setattr(onednn, "_instruction", lambda target, *rest: forward("__no$instruction", *rest))
    assert onednn._was_seen_to_work.__wrapped__() is False


@pytest.mark.parametrize("wrong", [lambda conv, x, kernel: 0 * conv.as_it_is(x, kernel),
                                   lambda conv, x, kernel: 1 + conv.as_it_is(x, kernel)])  # fmt: skip
def test_one_that_computes_something_else_is_not_available(wrong, monkeypatch):
    monkeypatch.setattr(onednn, "forward", wrong)
    assert onednn._was_seen_to_work.__wrapped__() is False


@needs_onednn
def test_it_is_tried_while_another_program_is_compiled():
    onednn._was_seen_to_work.cache_clear()
    jax.clear_caches()
    assert instructions(DENSE) == 3
    assert onednn._was_seen_to_work.cache_info().currsize == 1


@needs_onednn
def test_many_at_once_on_every_device():
    x, kernel, _ = DENSE.arrays()
    xs = np.stack([x + i for i in range(4)])
    with jaxcnn.accelerate():
        together = jax.pmap(lambda x: DENSE.conv(x, jnp.asarray(kernel)), devices=jax.devices()[:4])
        y = [together(xs) for _ in range(20)][-1]
    alone = np.stack([DENSE.conv(x, kernel) for x in xs])
    np.testing.assert_allclose(y, alone, atol=1e-4)
