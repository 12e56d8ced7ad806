"""The instruction that XLA has for oneDNN: where it is used, where not, and gradients cut into tiles."""

import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import serialize_executable

import jaxcnn
import jaxcnn.functional as F
from jaxcnn.lowering import onednn
from jaxcnn.lowering.normal_form import normal_form
from jaxcnn.lowering.onednn import available, box, call, gradient, instruction
from tests.lowering.oracle import Problem, errors
from tests.lowering.test_convolutions import normal_form_of

needs_onednn = pytest.mark.skipif(available.unavailable() is not None, reason="oneDNN is not available here")

DENSE = Problem((12, 10), (3, 2), batch=4, group_in=9, group_out=10, padding=((1, 1), (0, 1)))
GROUPED = Problem((13, 10), (3, 3), batch=3, group_in=2, group_out=3, groups=4, stride=(2, 1))
DEPTHWISE = Problem((12, 9), (3, 5), batch=4, groups=6, padding=((1, 1), (2, 2)), dilation=(2, 1))
LINE = Problem((24,), (5,), batch=2, group_in=3, group_out=4, groups=2, padding=((2, 2),))
GRAY = Problem((12, 10), (3, 4), batch=3, group_out=9, padding=((1, 1), (1, 2)))
# One that has a code of its own for every reason to pad by hand.
PADDED = [
    Problem((9, 8), (3, 3), groups=5, padding=((0, 2), (1, 1))),
    Problem((4, 5), (3, 3), groups=5, padding=((2, 2), (4, 4)), dilation=(2, 4)),
    Problem((9, 8), (2, 3), groups=5, padding=((3, 3), (1, 1))),
    Problem((9, 8), (3, 3), groups=5, padding=((-1, 2), (1, -2))),
    Problem((9,), (4,), groups=5, padding=((1, 1),), stride=(2,)),
]


@pytest.fixture
def always_available(monkeypatch):
    """What the box lets through, wherever the test runs."""
    monkeypatch.setattr(instruction, "unavailable", lambda: None)


def conv_of(problem):
    form = normal_form(normal_form_of(problem), of_gradient=True)
    assert form is not None
    return form.conv


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
@pytest.mark.parametrize("problem", [DENSE, GROUPED, DEPTHWISE, LINE, GRAY])
def test_gradients_of_tiles_a_few_at_a_time(problem, longest, cached, monkeypatch):
    monkeypatch.setattr(gradient, "LONGEST", longest)
    monkeypatch.setattr(gradient, "SHORTEST", 2)
    monkeypatch.setattr(gradient, "CACHED", cached)
    monkeypatch.setattr(gradient, "CONTRACTED", 5)
    form, (x, kernel, dy) = normal_form(normal_form_of(problem), of_gradient=True), problem.arrays()
    assert form is not None and onednn.why_no_kernel_gradient(form.conv) is None
    found = jax.jit(lambda x, dy: onednn.kernel_gradient(form.conv, form.x(x), form.dy(dy)))(x, dy)
    assert errors([form.kernel_gradient(found)], problem.oracle(x, kernel, dy)[2:])[0] < 1e-5


def test_tiles_are_equal_parts_and_none_is_short():
    for n in range(1, 300):
        for wanted in (1, 2, 3, 8):
            parts = gradient._parts(n, wanted)
            assert n % parts == 0 and (parts == 1 or n // parts >= gradient.SHORTEST)
    assert (gradient._parts(56, 2), gradient._parts(56, 3), gradient._parts(56, 50)) == (2, 4, 8)
    assert gradient._parts(113, 2) == 1


INSIDE_AND_OUTSIDE = {
    "too many spatial axes": (
        Problem((4, 5, 6), (2, 3, 2), group_in=2),
        Problem((4, 5, 6), (2, 3, 2), groups=3),
    ),
    "last axis has one position": (
        Problem((9, 5), (3, 4), group_in=2, group_out=3, groups=2),
        Problem((9, 4), (3, 4), group_in=2, group_out=3, groups=2),
    ),
    "stride is greater than its window": (
        Problem((40, 9), (3, 2), group_in=2, stride=(3, 1), dilation=(4, 1)),
        Problem((40, 9), (3, 2), group_in=2, stride=(4, 1), dilation=(4, 1)),
    ),
    "window is longer than 128": (
        Problem((140, 3), (128, 2), group_in=2),
        Problem((140, 3), (129, 2), group_in=2),
    ),
    "buffer would be too large": (
        Problem((140, 130), (31, 1), batch=1, group_out=9),
        Problem((140, 130), (51, 1), batch=1, group_out=9),
    ),
}


@pytest.mark.usefixtures("always_available")
@pytest.mark.parametrize("face", INSIDE_AND_OUTSIDE)
def test_each_face_of_the_box(face):
    inside, outside = map(conv_of, INSIDE_AND_OUTSIDE[face])
    assert onednn.why_not(inside) is None
    assert face in (onednn.why_not(outside) or "it is inside")
    check(INSIDE_AND_OUTSIDE[face][1])


def test_faces_that_the_normal_form_never_reaches():
    conv = conv_of(DENSE)
    assert box.outside(conv) is None
    for changed, why in [
        ({"padding": ((3, 1), (0, 1))}, "whole windows lie in padding"),
        ({"padding": ((-1, 1), (0, 1))}, "whole windows lie in padding"),
        ({"lhs_dilation": (2, 1)}, "zeros lie between the elements of x"),
        ({"batch": 2**29}, "its arrays are too large"),
        ({"dtype": np.float64}, "oneDNN's instruction is for float32"),
        ({"partitioned": True}, "the program is divided over devices, or exported"),
        ({"onednn": False}, "accelerate(onednn=False) is around it"),
    ]:
        assert box.outside(replace(conv, **changed)) == why


@pytest.mark.usefixtures("always_available")
@pytest.mark.parametrize(
    ("problem", "why"),
    [
        (
            Problem((139, 4), (3, 2), group_in=2, group_out=2),
            "its window is longer than 128",
        ),  # 137 is a prime
        (Problem((9, 8), (3, 3), batch=1, group_in=2, groups=4), "it has too many spatial axes, or none"),
        (Problem((4, 5, 6), (2, 3, 2), group_in=2, group_out=2), "it has too many spatial axes, or none"),
        (
            Problem((60,), (3,), group_in=2, stride=(3,), dilation=(15,)),
            "its stride is greater than its window",
        ),
        (Problem((120, 99), (3, 3), batch=1), "its buffer would be too large"),
        (Problem((60, 9), (4, 1), batch=2, groups=3), "its last axis has one position"),
        (Problem((2488 + 2,), (3,), group_in=2), "its images would be cut into too many tiles"),
        (Problem((8, 7), (8, 7), group_in=2), "it is one matrix product"),
    ],
)
def test_gradients_that_are_refused(problem, why):
    assert onednn.why_no_kernel_gradient(conv_of(problem)) == why
    check(problem)


@pytest.mark.usefixtures("always_available")
@pytest.mark.parametrize("window", [16, 17])
def test_volumes_of_one_channel(window):
    conv = conv_of(Problem((20, 6, 7), (window, 2, 3), group_out=9))
    assert onednn.why_not(conv) == (None if window == 16 else "its buffer would be too large")
    assert onednn.why_no_kernel_gradient(conv_of(Problem((40, 30), (3, 3), batch=1, group_in=4))) is None


def test_explain_says_why_phases_have_none():
    problem = Problem((9, 8), (3, 3), group_in=8, group_out=8, lhs_dilation=(2, 2))
    with jaxcnn.accelerate(onednn=False):
        (row,) = jaxcnn.explain(problem.conv, *problem.arrays()[:2])
    assert row.lowering == "phases" and row.reason.endswith("accelerate(onednn=False) is around it")


@needs_onednn
@pytest.mark.parametrize("problem", [DENSE, GROUPED, DEPTHWISE, LINE, GRAY])
def test_without_onednn_the_other_rewrites_stay(problem):
    arrays = problem.arrays()

    def text():
        return jax.jit(lambda *a: problem.and_gradients(*a)).lower(*arrays).as_text()

    with jaxcnn.accelerate():
        assert "__onednn" in text()
        with jaxcnn.accelerate(onednn=False):
            assert "__onednn" not in text()
            found = jax.jit(problem.and_gradients)(*arrays)
    with jaxcnn.accelerate(onednn=False), jaxcnn.accelerate():
        assert "__onednn" not in text()
    assert max(errors(found, problem.oracle(*arrays))) < 1e-5
    with jaxcnn.accelerate(onednn=False):
        lowered = jax.jit(lambda x, k: F.depthwise_conv(x, k)).lower(
            np.ones((2, 9, 8, 6)), np.ones((3, 3, 1, 6))
        )
        assert "stablehlo.convolution" not in lowered.as_text() and "__onednn" not in lowered.as_text()


def test_a_program_without_it_can_be_serialized():
    x, kernel, _ = DENSE.arrays()
    with jaxcnn.accelerate(onednn=False):
        compiled = jax.jit(lambda x, kernel: DENSE.conv(x, kernel)).lower(x, kernel).compile()
    written = serialize_executable.serialize(compiled)
    loaded = serialize_executable.deserialize_and_load(*written, execution_devices=jax.devices()[:1])
    np.testing.assert_array_equal(loaded(x, kernel), compiled(x, kernel))


def test_a_program_that_is_kept_has_none(tmp_path):
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        assert "jax_compilation_cache_dir" in (available.unavailable() or "") and instructions(DENSE) == 0
    finally:
        jax.config.update("jax_compilation_cache_dir", None)


def test_an_exported_program_has_none():
    with jaxcnn.accelerate():
        exported = jax.export.export(jax.jit(DENSE.conv))(*DENSE.arrays()[:2])
    assert "__onednn" not in exported.mlir_module()


@pytest.fixture
def asked_again(monkeypatch, tmp_path):
    """The process is asked once: here every time, of a processor that has AVX2."""
    (tmp_path / "cpuinfo").write_text("flags : sse avx avx2 bmi1")
    monkeypatch.setattr(available, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(available, "_was_seen_to_work", lambda: True)
    monkeypatch.setattr(available, "version", lambda name: available.FUZZED[0])
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", available.SWITCH):
        monkeypatch.delenv(name, raising=False)
    available.is_switched_off.cache_clear()
    yield available._never_available.__wrapped__
    available.is_switched_off.cache_clear()


def test_it_is_available(asked_again):
    assert asked_again() is None


@pytest.mark.parametrize("text", ["flags : sse avx bmi1", None])
def test_a_processor_without_avx2_and_another_system(text, asked_again):
    available.CPU_INFO.unlink() if text is None else available.CPU_INFO.write_text(text)
    assert asked_again() == "oneDNN is used on Linux, with AVX2"


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("limit", "has"), [("SSE41", False), ("avx", False), ("AVX2", True), ("ALL", True), ("", True)]
)
def test_oneDNN_may_be_kept_from_avx2(name, limit, has, asked_again, monkeypatch):
    monkeypatch.setenv(name, limit)
    assert (asked_again() is None) == has


def test_a_jaxlib_that_was_not_fuzzed(asked_again, monkeypatch):
    monkeypatch.setattr(available, "version", lambda name: "0.99.0")
    assert asked_again() == "the oneDNN of jaxlib 0.99.0 was not fuzzed"


def test_the_switch(asked_again, monkeypatch):
    monkeypatch.setenv(available.SWITCH, "0")
    assert asked_again() == "JAXCNN_ONEDNN=0 is set"
    available.is_switched_off.cache_clear()
    monkeypatch.setenv(available.SWITCH, "")
    assert asked_again() is None
    available.is_switched_off.cache_clear()
    monkeypatch.setenv(available.SWITCH, "off")
    with pytest.raises(ValueError, match="JAXCNN_ONEDNN must be 0 or 1 in the environment, got 'off'"):
        asked_again()


@pytest.mark.slow
@pytest.mark.parametrize("value", ["0", "1"])
def test_the_switch_of_a_process(value):
    program = """
        import jax, jaxcnn, jaxcnn.functional as F
        x, kernel = jax.numpy.ones((2, 8, 9, 16)), jax.numpy.ones((3, 3, 16, 16))
        print("__onednn" in jax.jit(F.conv).lower(x, kernel).as_text())
        jaxcnn.explain(F.conv, x, kernel)
    """
    lines = "\n".join(line.strip() for line in program.strip().splitlines())
    environment = {**os.environ, "JAXCNN_ONEDNN": value}
    done = subprocess.run(
        [sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=True
    )
    used = value == "1" and available.unavailable() is None
    assert done.stdout.startswith(str(used))
    assert ("no oneDNN: JAXCNN_ONEDNN=0 is set" in done.stdout) == (value == "0")


def test_an_unknown_instruction_is_not_available(monkeypatch):
    known = call._custom_call
    monkeypatch.setattr(call, "_custom_call", lambda target, *rest: known("__no$instruction", *rest))
    assert available._was_seen_to_work() is False


@pytest.mark.parametrize("wrong", [lambda conv, x, kernel: 0 * conv.unchanged(x, kernel),
                                   lambda conv, x, kernel: 1 + conv.unchanged(x, kernel)])  # fmt: skip
def test_one_that_computes_something_else_is_not_available(wrong, monkeypatch):
    monkeypatch.setattr(available, "call", wrong)
    assert available._was_seen_to_work() is False


@needs_onednn
def test_it_is_tried_while_another_program_is_compiled():
    available._never_available.cache_clear()
    jax.clear_caches()
    assert instructions(DENSE) == 3
    assert available._never_available.cache_info().currsize == 1


@needs_onednn
def test_many_at_once_on_every_device():
    x, kernel, _ = DENSE.arrays()
    xs = np.stack([x + i for i in range(4)])
    with jaxcnn.accelerate():
        together = jax.pmap(lambda x: DENSE.conv(x, jnp.asarray(kernel)), devices=jax.devices()[:4])
        y = [together(xs) for _ in range(20)][-1]
    alone = np.stack([DENSE.conv(x, kernel) for x in xs])
    np.testing.assert_allclose(y, alone, atol=1e-4)
