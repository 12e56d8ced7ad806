"""The benchmarks compare like with like, and say of it what is so. Nothing here is timed."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import benchmark_models
import benchmark_ops
import chex
import jax
import numpy as np
import pytest
import stopwatch
from benchmark_grid import GRID, Operation, channels_first, channels_last, in_jaxcnn, in_torch
from benchmark_ops import Measurement
from benchmark_peers import PEERS
from benchmark_report import Table, number, write_between
from flax import nnx
from PIL import Image

from jaxcnn import models

SCRIPTS = Path(benchmark_ops.__file__).parent
QUICK = benchmark_ops.Config(repetitions=1, seconds=0.0)


def tiny(operation: Operation) -> Operation:
    """The operation on images of odd sizes, with fewer channels where groups leave that open."""
    channels = 2 * operation.groups if operation.groups > 1 else 3
    channels = operation.groups if operation.groups == operation.channels else channels
    windows = operation.window or (1,) * len(operation.size)
    sizes = tuple(max(n, w) for n, w in zip((7, 6, 5), windows, strict=False))
    outputs = channels if operation.outputs else 0
    return dataclasses.replace(operation, size=sizes, channels=channels, outputs=outputs, batch=2)


def needs(module: str) -> None:
    """Skip a test of a library that is not installed; Keras must not be imported to see that it is."""
    if not stopwatch.installed(module):
        pytest.skip(f"{module} is optional")


def named(name: str) -> Operation:
    return next(operation for operation in GRID if operation.name == name)


# -------------------------------------------------------------------------------------------- operations


def test_the_grid_means_the_shapes_it_names():
    shapes = {o.name: jax.eval_shape(in_jaxcnn(o), *o.arrays().values()).shape for o in GRID}
    assert len(shapes) == len(GRID) == 35
    assert shapes["stem 7x7 s2 3->64 @224"] == (8, 112, 112, 64)
    assert shapes["depthwise 5x5 s2 240 @28"] == (8, 14, 14, 240)
    assert shapes["dilated 12 3x3 256 @28"] == (8, 28, 28, 256)
    assert shapes["transposed 4x4 s2 64 @56"] == (8, 112, 112, 64)
    assert shapes["transposed 2x2 s2 128 @28"] == (8, 56, 56, 128)
    assert shapes["1-D 9 64 @1024"] == (8, 1024, 64)
    assert shapes["3-D 3x3x3 32->64 @16x32x32"] == (2, 16, 32, 32, 64)
    assert shapes["max pool 3x3 s2 64 @56"] == (8, 28, 28, 64)
    assert shapes["average pool 3x3 s1 64 @56"] == (8, 56, 56, 64)
    assert shapes["bilinear 2x 64 @56"] == (8, 112, 112, 64)
    assert sum(o.is_convolution for o in GRID) == 26


def test_operands_are_of_unit_variance_through_the_kernel():
    arrays = named("3x3 128 @28").arrays()
    assert list(arrays) == ["x", "kernel"] and arrays["kernel"].shape == (3, 3, 128, 128)
    assert arrays["x"].dtype == arrays["kernel"].dtype == np.float32
    assert arrays["kernel"].std() * np.sqrt(9 * 128) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", ["x", "y", "kernel", "scale"])
def test_layouts_are_each_others_inverse(name):
    array = np.random.default_rng(0).normal(size=(3,) if name == "scale" else (2, 3, 4, 5))
    np.testing.assert_array_equal(channels_last(name, channels_first(name, array)), array)
    shape = {"scale": (3,), "kernel": (5, 4, 2, 3)}.get(name, (2, 5, 3, 4))
    assert channels_first(name, array).shape == shape


@pytest.mark.parametrize("operation", GRID, ids=lambda o: o.name)
def test_torch_computes_the_same(operation):
    needs("torch")
    torch = importlib.import_module("torch")
    operation = tiny(operation)
    function = in_torch(operation)
    if function is None:
        assert operation.kind == "deform_conv"
        return
    arrays = operation.arrays()
    tensors = [torch.from_numpy(channels_first(*item).copy()) for item in arrays.items()]
    y = channels_last("y", function(*tensors).numpy())
    np.testing.assert_allclose(y, in_jaxcnn(operation)(*arrays.values()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("library", PEERS)
@pytest.mark.parametrize("operation", GRID, ids=lambda o: o.name)
def test_other_libraries_compute_the_same(operation, library):
    peer, operation = PEERS[library], tiny(operation)
    needs(peer.module)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        function = peer.function(operation)
        if function is None:
            assert not operation.is_convolution
            return
        arrays = operation.arrays()
        turned = [channels_first(*item) if peer.channels_first else item[1] for item in arrays.items()]
        y = np.asarray(jax.jit(function)(*turned))
    y = channels_last("y", y) if peer.channels_first else y
    # Flax and Haiku take the variance as E[x^2] - E[x]^2.
    np.testing.assert_allclose(y, in_jaxcnn(operation)(*arrays.values()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["depthwise 3x3 s2 96 @112", "layer norm 64 @56", "deform_conv 3x3 64 @28"])
def test_a_measurement_holds_times_errors_and_memory(name):
    operation = tiny(named(name))
    found = benchmark_ops.measure(operation, QUICK)
    torch = ["torch", "torch"] * stopwatch.installed("torch") * (operation.kind != "deform_conv")
    assert [m.library for m in found] == ["jaxcnn", "lax", *torch]
    for m in found:
        assert m.operation == operation.name and m.forward > 0 and m.gradient > 0
        assert list(m.errors) == ["y", *operation.arrays()]
        assert max(m.errors.values()) < 1e-5
        assert (m.layout != "") == (m.library == "torch") == (m.compilation is None)
    assert found[1].same_as_lax == ("forward", "gradient")
    assert (found[0].same_as_lax == ()) == operation.is_convolution  # a norm has nothing to rewrite
    assert [m.layout for m in found[2:]] == ["first", "last"][: len(torch)]


def test_an_error_is_seen():
    operation = tiny(named("3x3 64 @56"))
    arrays = operation.arrays()
    cotangent = np.ones((2, 7, 6, 3), np.float32)
    operands = benchmark_ops.jax_operands(arrays, cotangent)
    expected = benchmark_ops.oracle(operation, arrays, cotangent)
    wrong = benchmark_ops.jax_program(lambda x, kernel: 1.01 * in_jaxcnn(operation)(x, kernel), operands)
    found = benchmark_ops.outputs(wrong, wrong.gradient(), arrays)
    assert list(expected) == ["y", "x", "kernel"]
    assert benchmark_ops.errors(found, expected) == pytest.approx(dict.fromkeys(expected, 0.01), rel=1e-3)


def measured(library: str, forward: float, gradient: float, layout: str = "", error: float = 1e-7, **more):
    return Measurement(
        "3x3 64 @56", library, forward, gradient, {"y": 1e-7, "x": error}, layout=layout, **more
    )


def test_the_report_takes_the_faster_layout_and_names_what_is_above_the_limits():
    rows = [named("3x3 64 @56")]
    others = [
        measured("lax", 2.0, 8.0),
        measured("torch", 1.0, 5.0, "first"),
        measured("torch", 4.0, 4.0, "last"),
    ]
    tables, remarks = benchmark_ops.report(rows, [measured("jaxcnn", 2.0, 2.0), *others], 2)
    cells = dict(zip(tables[0].columns, tables[0].rows[0], strict=True))
    assert cells["forward torch"] == "1,000" and cells["both torch"] == "4,000"
    assert cells["torch's channels"] == "first, last"
    assert [cells[f"jaxcnn/{other}"] for other in ("lax forward", "lax both")] == ["1.00", "0.250"]
    assert [cells[f"jaxcnn/{other}"] for other in ("torch forward", "torch both")] == ["2.00", "0.500"]
    name, mean = "3x3 64 @56", "geometric mean over the 1 convolutions"
    assert remarks[0] == f"jaxcnn / lax, forward: {mean} 1.00; highest: {name} 1.00"
    assert remarks[2] == f"jaxcnn / torch, forward: {mean} 2.00; above 1.0: {name} 2.00"
    assert [remark.split(": ")[-1] for remark in remarks[4:]] == ["none", "none", "none"]
    same = measured("jaxcnn", 3.0, 2.0, same_as_lax=("forward",))  # only noise tells 3.0 from 2.0
    tables, remarks = benchmark_ops.report(rows, [same, *others], 2)
    cells = dict(zip(tables[0].columns, tables[0].rows[0], strict=True))
    assert cells["jaxcnn/lax forward"] == "same" and cells["jaxcnn/lax both"] == "0.250"
    assert remarks[0] == f"jaxcnn / lax, forward: {mean} 1.00; highest: {name} 1.00"
    wrong = measured("jaxcnn", 2.0, 2.0, error=2e-5, compilation=1.5, temporaries=10**9)
    remarks = benchmark_ops.report(rows, [wrong, *others], 2)[1]
    assert [remark.split(": ")[-1] for remark in remarks[4:]] == [name, name, name]


# ------------------------------------------------------------------------------------------------ models


def test_a_training_step_changes_the_statistics_and_drops_nothing():
    options = {"dropout": 0.5, "input_size": (8, 6), "num_classes": 5, "in_channels": 3}
    model = models.create_model("mlp", **options, rngs=nnx.Rngs(0))
    training = benchmark_models.nnx_training(model)
    images, labels = np.ones((4, 8, 6, 3), np.float32), np.arange(4, dtype=np.int32)
    (loss, _), gradient = training.step(training.parameters, training.others, images, labels)
    model.eval()
    plain = benchmark_models.nnx_training(model)
    (expected, _), wanted = plain.step(plain.parameters, plain.others, images, labels)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    chex.assert_trees_all_close(gradient, wanted, rtol=1e-5)

    resnet = models.create_model("resnet20", num_classes=5, rngs=nnx.Rngs(0))
    training = benchmark_models.nnx_training(resnet)
    (_, others), _ = jax.eval_shape(training.step, training.parameters, training.others, images, labels)
    chex.assert_trees_all_equal_shapes_and_dtypes(others, training.others)


def test_a_model_of_this_package_is_measured(monkeypatch):
    monkeypatch.setattr(benchmark_models, "installed", lambda _: False)
    config = benchmark_models.Config(batch=2, size=32, classes=5, repetitions=1, seconds=0.0)
    found = benchmark_models.measure("lenet5", config)
    assert [(m.model, m.library) for m in found] == [("lenet5", "jaxcnn")]
    (m,) = found
    assert m.gradient > 0 and m.alone and m.compilation and m.compilation_alone
    assert m.parameters == sum(x.size for x in jax.tree.leaves(lenet5_parameters()))
    assert m.distance is not None and m.distance < 1e-5 and 1.0 < m.loss < 3.0
    assert m.rounding is not None and 0 < m.rounding < 1e-4
    table, remarks = benchmark_models.report(found, 1)
    assert table.rows[0][0] == "lenet5" and len(table.rows[0]) == len(table.columns)
    assert remarks[-1] == "numbers of parameters that differ: none"


def lenet5_parameters():
    model = nnx.eval_shape(lambda: models.create_model("lenet5", num_classes=5, rngs=nnx.Rngs(0)))
    return nnx.state(model, nnx.Param)


def test_torchvision_drops_nothing_and_is_the_same_in_both_layouts():
    needs("torchvision")
    config = benchmark_models.Config(classes=10)
    random = np.random.default_rng(0)
    images, labels = random.normal(size=(4, 32, 32, 3)).astype(np.float32), np.arange(4)
    losses = []
    for layout in benchmark_models.LAYOUTS:
        step, parameters = benchmark_models.torch_step(
            "efficientnet_b0", config, images, labels, layout=layout
        )
        losses += [float(step()[0]), float(step()[0])]
        assert parameters == 4_020_358
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)


@pytest.mark.slow
def test_keras_drops_nothing():
    needs("keras")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        config = benchmark_models.Config(size=32, classes=10)
        training = benchmark_models.keras_training("EfficientNetB0", config)
        operands = (np.ones((4, 32, 32, 3), np.float32), np.arange(4, dtype=np.int32))
        jaxpr = str(jax.make_jaxpr(training.step)(training.parameters, training.others, *operands))
    assert "conv_general_dilated" in jaxpr and "random_bits" not in jaxpr
    assert sum(x.size for x in training.parameters) == 4_020_358


def test_the_models_report_compares_with_the_faster_layout_and_says_where_sizes_differ():
    def of(library: str, gradient: float, parameters: int = 10, **more):
        return benchmark_models.Measurement("resnet50", library, gradient, parameters, 1.0, **more)

    rivals = [of("torch", 0.4, layout="first"), of("torch", 0.2, layout="last")]
    table, remarks = benchmark_models.report(
        [*rivals, of("keras", 0.3, 12, alone=0.6, compilation=4.0, compilation_alone=2.0)], 2
    )
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["torch"] == "200" and cells["its channels"] == "last"
    assert cells["/ torch"] == "1.50" and cells["/ alone"] == "0.500"
    assert remarks[0] == "keras accelerated / torch: geometric mean of 1 models 1.50, highest resnet50 1.50"
    assert remarks[-2] == "compiled in more than 1.5 times the time alone: resnet50 in keras"
    assert remarks[-1].endswith("resnet50 in keras 12, in torch 10")


# ---------------------------------------------------------------------------------------------- stopwatch


def test_calls_take_turns_and_slow_ones_fewer(monkeypatch):
    clock, order = [0.0], []

    def call(name: str, seconds: float):
        def run():
            order.append(name)
            clock[0] += seconds
            return len(order)

        return run

    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: clock[0])
    calls = {"slow": call("slow", 5.0), "quick": call("quick", 0.05)}
    found = stopwatch.medians(calls, repetitions=4, seconds=3.0)
    assert {name: timing.seconds for name, timing in found.items()} == pytest.approx(
        {"slow": 5.0, "quick": 0.05}
    )
    assert {name: timing.result for name, timing in found.items()} == {"slow": 1, "quick": 2}
    # Once each that does not count; then to and fro until the slow one has had its time.
    assert order == ["slow", "quick", "slow", "quick", "quick", "quick", "quick"]


def test_a_short_call_fills_its_turn(monkeypatch):
    clock, calls = [0.0], []

    def run():
        calls.append(None)
        clock[0] += 0.004

    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: clock[0])
    assert stopwatch.medians({"": run}, repetitions=2, seconds=1.0)[""].seconds == pytest.approx(0.004)
    assert len(calls) == 1 + 2 * (1 + 5)


def test_geometric_mean():
    assert stopwatch.geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)
    assert np.isnan(stopwatch.geometric_mean([]))


def test_circumstances_are_those_that_a_figure_depends_on():
    found = stopwatch.circumstances()
    assert found["versions"]["jax"] == jax.__version__ and found["platform"] == "cpu"
    assert found["processor"] and found["date"] > "2024"
    json.dumps(found)


@pytest.mark.slow
def test_a_process_sees_the_cores_it_is_given():
    before = os.sched_getaffinity(0)
    with stopwatch.process_on(1) as process:
        assert os.sched_getaffinity(0) == before
        assert process.submit(stopwatch.circumstances).result()["cpu_cores"] == 1


# ------------------------------------------------------------------------------------------------- report


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0.00"),
        (0.012345, "0.0123"),
        (0.999, "0.999"),
        (1.0, "1.00"),
        (12.345, "12.3"),
        (123.45, "123"),
        (5918.2, "5,918"),
        (1e-9, "1e-09"),
    ],
)
def test_numbers_keep_three_digits(value, text):
    assert number(value) == text


def test_tables_replace_what_stands_between_the_comments(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- ops -->\nold\n<!-- end of ops -->\nafter\n")
    table = Table("Times", ["ms", "jaxcnn"], [["conv", "1.00"]])
    write_between(page, "ops", table.markdown())
    lines = [
        "before",
        "<!-- ops -->",
        "",
        "**Times**",
        "",
        "| ms | jaxcnn |",
        "| --- | ---: |",
        "| conv | 1.00 |",
    ]
    assert page.read_text().splitlines() == [*lines, "", "<!-- end of ops -->", "after"]
    with pytest.raises(ValueError, match="must hold the lines <!-- models --> and"):
        write_between(page, "models", "")


@pytest.mark.parametrize(
    ("script", "config", "message"),
    [
        (benchmark_ops, {"rows": "9x9"}, "--rows must be part of a name, such as 'depthwise 3x3 144 @56'"),
        (benchmark_ops, {"cores": (0,)}, "--cores must be from 1 to"),
        (benchmark_ops, {"repetitions": 0}, "--repetitions must be at least 1"),
        (benchmark_ops, {"markdown": Path("pyproject.toml")}, "must hold the line <!-- benchmark_ops -->"),
        (
            benchmark_models,
            {"models": ("resnet",)},
            "--models must be names of models with published weights, such as resnet50",
        ),
        (benchmark_models, {"batch": 0}, "--batch must be at least 1"),
    ],
)
def test_mistakes_are_one_line(script, config, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.main(script.Config(**config, out=tmp_path / "out"))
    assert stopped.value.code == 1 and not (tmp_path / "out").exists()
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_leaves_figures_a_chart_and_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- benchmark_ops -->\n<!-- end of benchmark_ops -->\n")
    flags = ["--rows", "2x2 s2", "--cores", "1", "--repetitions", "1", "--seconds", "0"]
    flags += ["--out", str(tmp_path), "--markdown", str(page)]
    command = [sys.executable, str(SCRIPTS / "benchmark_ops.py"), *flags]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "geometric mean over the 1 convolutions" in said
    (run,) = json.loads((tmp_path / "ops.json").read_text())["runs"]
    assert run["cpu_cores"] == 1
    names = {m["operation"] for m in run["measurements"]}
    assert names == {"transposed 2x2 s2 128 @28", "max pool 2x2 s2 64 @56"}
    assert "| max pool 2x2 s2 64 @56 |" in page.read_text() and "--rows '2x2 s2'" in page.read_text()
    pixels = np.asarray(Image.open(tmp_path / "ops-1.png").convert("L"))
    assert min(pixels.shape) > 150 and pixels.std() > 5
