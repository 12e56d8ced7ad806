"""A program that asks for nothing lowers to the same StableHLO, with the rules of jaxcnn in force or not."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import hashlib, sys
import jax, numpy as np
from jax import export, lax

if sys.argv[1] == "jaxcnn":
    import jaxcnn
    from jaxcnn.lowering.rules import register
    assert register()
    with jaxcnn.accelerate():  # what is marked before leaves no trace either
        jax.jit(lambda x: lax.conv(x, x, (1, 1), "SAME")).lower(np.ones((2, 2, 3, 3), np.float32))

def conv(groups, dtype, lhs_dilation=1):
    x, kernel = np.ones((2, 8, 9, 6), dtype), np.ones((3, 3, 6 // groups, 12), dtype)
    def total(x, kernel):
        y = lax.conv_general_dilated(
            x, kernel, (2, 1), ((1, 1), (2, 0)), (1, lhs_dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups)
        return (y.real ** 2).sum()
    return jax.value_and_grad(total, (0, 1)), (x, kernel)

def pool(op, start):
    window = ((1, 3, 2, 1), (1, 2, 2, 1), "SAME")
    return jax.value_and_grad(lambda x: (lax.reduce_window(x, start, op, *window) ** 2).sum()), (
        np.ones((2, 8, 9, 6), np.float32),)

programs = {
    "dense": conv(1, np.float32), "grouped": conv(3, np.float32), "depthwise": conv(6, np.float32),
    "transposed": conv(1, np.float32, 2), "complex": conv(2, np.complex64), "half": conv(6, np.float16),
    "max pool": pool(lax.max, -np.inf), "sum pool": pool(lax.add, 0.0)}
for name, (function, arrays) in programs.items():
    texts = {"jit": jax.jit(function).lower(*arrays).as_text()}
    for platform in ("cpu", "cuda", "tpu"):
        texts[platform] = export.export(jax.jit(function), platforms=[platform])(*arrays).mlir_module()
    for place, text in texts.items():
        assert "stablehlo" in text
        print(name, place, hashlib.sha256(text.encode()).hexdigest())
"""


@pytest.mark.slow
def test_the_same_programs_with_and_without_the_rules(tmp_path):
    script = tmp_path / "program.py"  # one file for both: the text names the lines that it came from
    script.write_text(PROGRAM)
    outputs = [
        subprocess.run(
            [sys.executable, script, argument], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for argument in ("jax", "jaxcnn")
    ]
    assert len(outputs[0]) == 8 * 4
    assert outputs[0] == outputs[1]
