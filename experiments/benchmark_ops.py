"""Time every operation of a grid in jaxcnn, in lax alone, in PyTorch and in other JAX libraries.

    python experiments/benchmark_ops.py --cores 1 2
    python experiments/benchmark_ops.py --rows depthwise --peers
    python experiments/benchmark_ops.py --help

"lax" is the same function of jaxcnn inside `jaxcnn.accelerate(False)`. All libraries get the same arrays, in
one process, and take turns; the median counts. Forward and backward returns the output and the gradient of
every operand, for a random cotangent that is an operand too, so that nothing is left out or computed
beforehand. PyTorch is timed with contiguous and with channels_last tensors, and the faster one counts. Errors
are against float64.
"""

import dataclasses
import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_grid import (
    GRID,
    Arrays,
    Function,
    Operation,
    channels_first,
    channels_last,
    in_jaxcnn,
    in_torch,
)
from benchmark_report import Table, bars, console, description, number, show, write_between
from stopwatch import circumstances, command, geometric_mean, installed, medians, process_on

import jaxcnn
from jaxcnn.training.console import mistakes_in_one_line, read_flags
from jaxcnn.training.run import write_json

SCRIPT = "benchmark_ops"
LAYOUTS = {"first": "contiguous_format", "last": "channels_last"}
"""Where the channels stand in PyTorch's memory, and PyTorch's name of it."""


@dataclass(frozen=True)
class Config:
    """Time every operation of a grid in jaxcnn, in lax alone, in PyTorch and in other JAX libraries."""

    rows: str = ""
    """Only the operations whose name contains this."""
    cores: tuple[int, ...] = ()
    """Numbers of CPU cores, each in a process of its own; by default all there are."""
    peers: bool = False
    """Time Flax, Haiku, Equinox and Keras too, where they are installed (the extra "bench")."""
    repetitions: int = 15
    """Turns of each library; the median counts."""
    seconds: float = 3.0
    """A library has no further turn in a row once it has been timed for so long."""
    out: Path = Path("runs/benchmark_ops")
    """Folder for ops.json and a chart for each number of cores."""
    markdown: Path | None = None
    """A file whose part <!-- benchmark_ops --> is replaced by the tables."""


@dataclass(frozen=True)
class Measurement:
    """One operation in one library."""

    operation: str
    library: str
    forward: float
    """Seconds, as are all times."""
    gradient: float
    """Forward and backward."""
    errors: dict[str, float]
    """Of the output "y" and each operand's gradient: largest error over the largest number."""
    compilation: float | None = None
    """Of forward and backward."""
    temporaries: int | None = None
    """Bytes that forward and backward need beside operands and results."""
    layout: str = ""
    """PyTorch's: channels "first" or "last"."""
    same_as_lax: tuple[str, ...] = ()
    """Which of "forward" and "gradient" XLA compiled to the very instructions of lax."""


class Program(NamedTuple):
    """An operation in one library, ready to run."""

    forward: Callable[[], Any]
    gradient: Callable[[], tuple[Any, Sequence[Any]]]
    """Gives the output and the gradients."""
    compile: Callable[[], Any] | None = None
    """Compiles `gradient` anew."""
    temporaries: int | None = None
    instructions: Mapping[str, str] = {}
    """What XLA made of "forward" and "gradient"."""
    channels_first: bool = False
    layout: str = ""


def main(config: Config) -> None:
    """Measure, show, and leave ops.json and the charts in config.out."""
    with mistakes_in_one_line(SCRIPT):
        operations = check(config)
        config.out.mkdir(parents=True, exist_ok=True)
    screen = console()
    runs: list[dict[str, Any]] = []
    pages: list[str] = []
    for cores in config.cores or (len(os.sched_getaffinity(0)),):
        measurements: list[Measurement] = []
        with process_on(cores) as process:
            run = process.submit(circumstances).result()
            screen.print(description(run), soft_wrap=True)
            for operation in operations:
                found = process.submit(measure, operation, config).result()
                measurements += found
                screen.print(f"  {operation.name}: {in_words(found)}", soft_wrap=True)
        runs.append(run | {"measurements": [dataclasses.asdict(m) for m in measurements]})
        write_json(config.out / "ops.json", {"command": command(), "runs": runs})
        tables, remarks = report(operations, measurements, cores)
        show(screen, tables, remarks)
        draw(config.out / f"ops-{cores}.png", operations, measurements, cores)
        texts = [f"{description(run)}. `{command()}`", *(table.markdown() for table in tables)]
        pages.append("\n\n".join([*texts, "\n".join(f"- {remark}" for remark in remarks)]))
    if config.markdown is not None:
        write_between(config.markdown, SCRIPT, "\n\n".join(pages))
    screen.print(f"ops.json and the charts are in {config.out}")


def check(config: Config) -> list[Operation]:
    """Refuse settings that no run can have, and give the operations to measure."""
    operations = [operation for operation in GRID if config.rows in operation.name]
    if not operations:
        raise ValueError(f"--rows must be part of a name, such as {GRID[8].name!r}, got {config.rows!r}")
    available = len(os.sched_getaffinity(0))
    if not all(1 <= cores <= available for cores in config.cores):
        raise ValueError(f"--cores must be from 1 to {available}, got {config.cores}")
    if config.repetitions < 1 or not config.seconds >= 0:
        raise ValueError(
            "--repetitions must be at least 1 and --seconds at least 0, "
            f"got {config.repetitions} and {config.seconds}"
        )
    if config.markdown is not None and f"<!-- {SCRIPT} -->" not in config.markdown.read_text("utf-8"):
        raise ValueError(f"--markdown: {config.markdown} must hold the line <!-- {SCRIPT} -->")
    return operations


def measure(operation: Operation, config: Config) -> list[Measurement]:
    """Time one operation in all libraries, and compare their numbers with float64."""
    arrays = operation.arrays()
    shape = jax.eval_shape(in_jaxcnn(operation), *arrays.values()).shape
    cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    programs = make_programs(operation, arrays, cotangent, peers=config.peers)
    lax = programs["lax"]
    times = partial(medians, repetitions=config.repetitions, seconds=config.seconds)
    forward = times({name: program.forward for name, program in programs.items()})
    gradient = times({name: program.gradient for name, program in programs.items()})
    compilers = {name: program.compile for name, program in programs.items() if program.compile}
    compilation = medians(compilers, repetitions=3, seconds=config.seconds)
    expected = oracle(operation, arrays, cotangent)
    return [
        Measurement(
            operation.name,
            "torch" if program.layout else name,
            forward[name].seconds,
            gradient[name].seconds,
            errors(outputs(program, gradient[name].result, arrays), expected),
            compilation[name].seconds if name in compilation else None,
            program.temporaries,
            program.layout,
            tuple(what for what, text in program.instructions.items() if text == lax.instructions[what]),
        )
        for name, program in programs.items()
    ]


def make_programs(
    operation: Operation, arrays: Arrays, cotangent: np.ndarray, *, peers: bool
) -> dict[str, Program]:
    """The operation in every library that has it, by name."""
    ours, operands = in_jaxcnn(operation), jax_operands(arrays, cotangent)
    programs = {
        "jaxcnn": jax_program(ours, operands),
        "lax": jax_program(ours, operands, tracing=partial(jaxcnn.accelerate, False)),
    }
    if installed("torch") and (theirs := in_torch(operation)):
        for layout in LAYOUTS if len(operation.size) > 1 else ("first",):
            programs[f"torch {layout}"] = torch_program(theirs, arrays, cotangent, layout=layout)
    if peers:
        from benchmark_peers import PEERS

        for name, peer in PEERS.items():
            if installed(peer.module) and (function := peer.function(operation)):
                first = peer.channels_first
                theirs = jax_operands(arrays, cotangent, first=True) if first else operands
                programs[name] = jax_program(function, theirs, channels_first=first)
    return programs


def jax_operands(arrays: Arrays, cotangent: np.ndarray, *, first: bool = False) -> list[jax.Array]:
    """The operands, and last the cotangent, on the device; `first` puts the channels first."""
    named = [*arrays.items(), ("y", cotangent)]
    return [jnp.array(channels_first(name, array) if first else array) for name, array in named]


def jax_program(
    function: Function,
    operands: Sequence[jax.Array],
    *,
    channels_first: bool = False,
    tracing: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Program:
    """A function of JAX arrays, compiled inside a context."""

    def gradient(*operands):
        y, pullback = jax.vjp(function, *operands[:-1])
        return y, pullback(operands[-1])

    def compiled(function: Function, *arguments: jax.Array) -> Any:
        with tracing():  # a new function each time: what jit has compiled already would be taken
            return jax.jit(lambda *arguments: function(*arguments)).lower(*arguments).compile()

    forward, both = compiled(function, *operands[:-1]), compiled(gradient, *operands)
    return Program(
        forward=lambda: jax.block_until_ready(forward(*operands[:-1])),
        gradient=lambda: jax.block_until_ready(both(*operands)),
        compile=lambda: compiled(gradient, *operands),
        temporaries=both.memory_analysis().temp_size_in_bytes,
        instructions={"forward": instructions(forward), "gradient": instructions(both)},
        channels_first=channels_first,
    )


def instructions(compiled: Any) -> str:
    """What XLA runs, without tags and places in the source."""
    lines = [line for line in compiled.as_text().splitlines() if " = " in line]
    return re.sub(r",? *(metadata|frontend_attributes)=\{[^}]*\}", "", "\n".join(lines))


def torch_program(
    function: Function, arrays: Arrays, cotangent: np.ndarray, *, layout: str, dtype: str = "float32"
) -> Program:
    """A function of torch tensors, in one of its memory layouts."""
    torch = importlib.import_module("torch")

    def tensor(name: str, array: np.ndarray) -> Any:
        turned = torch.from_numpy(channels_first(name, array).copy()).to(getattr(torch, dtype))
        wanted = LAYOUTS[layout]
        if turned.ndim < 4 or name not in ("x", "y", "kernel"):
            wanted = LAYOUTS["first"]
        elif turned.ndim == 5 and layout == "last":
            wanted = "channels_last_3d"
        return turned.contiguous(memory_format=getattr(torch, wanted))

    operands = [tensor(name, array).requires_grad_() for name, array in arrays.items()]
    seed = tensor("y", cotangent)

    def forward() -> Any:
        with torch.inference_mode():
            return function(*operands)

    def gradient() -> tuple[Any, Sequence[Any]]:
        y = function(*operands)
        return y.detach(), torch.autograd.grad(y, operands, seed)

    return Program(forward, gradient, channels_first=True, layout=layout)


def oracle(operation: Operation, arrays: Arrays, cotangent: np.ndarray) -> Arrays:
    """Output and gradients in float64: PyTorch's, or those of lax where there is none."""
    theirs = in_torch(operation) if installed("torch") else None
    if theirs:
        program = torch_program(theirs, arrays, cotangent, layout="first", dtype="float64")
        return outputs(program, program.gradient(), arrays)
    with jax.enable_x64(True):
        doubled = {name: array.astype(np.float64) for name, array in arrays.items()}
        operands = jax_operands(doubled, cotangent.astype(np.float64))
        program = jax_program(in_jaxcnn(operation), operands, tracing=partial(jaxcnn.accelerate, False))
        return outputs(program, program.gradient(), arrays)


def outputs(program: Program, result: tuple[Any, Sequence[Any]], names: Iterable[str]) -> Arrays:
    """What a program's gradient gave, by name and channels last."""
    y, gradients = result
    named = {"y": y} | dict(zip(names, gradients, strict=True))
    turned = channels_last if program.channels_first else lambda _, array: array
    return {name: turned(name, np.asarray(array)) for name, array in named.items()}


def errors(found: Arrays, expected: Arrays) -> dict[str, float]:
    """Largest error of each array over its largest number."""
    return {
        name: float(np.abs(found[name] - array).max() / np.abs(array).max())
        for name, array in expected.items()
    }


def report(
    operations: Sequence[Operation], measurements: Sequence[Measurement], cores: int
) -> tuple[list[Table], list[str]]:
    """The tables of one run, and what sums them up."""
    rows = [fastest(operation, measurements) for operation in operations]
    where = f"{cores} {'core' if cores == 1 else 'cores'}"
    tables = [times_table(rows, where), costs_table(operations, rows, where)]
    if any(name not in ("jaxcnn", "lax", "torch") for row in rows for name in row):
        tables.append(peers_table(rows, where))
    convolutions = [row for o, row in zip(operations, rows, strict=True) if o.is_convolution]
    remarks = []
    for other in ("lax", "torch"):
        for what in ("forward", "gradient"):
            ratios = {row["jaxcnn"].operation: ratio(row, what, other) for row in rows}
            inner = [r for row in convolutions if (r := ratio(row, what, other)) is not None]
            worst = sorted(((r, name) for name, r in ratios.items() if r is not None), reverse=True)
            above = [(r, name) for r, name in worst if r > LIMITS[other]]
            if worst:
                listed = ", ".join(f"{name} {number(r)}" for r, name in above or worst[:1])
                remarks.append(
                    f"jaxcnn / {other}, {WORDS[what]}: geometric mean over the {len(inner)} convolutions "
                    f"{number(geometric_mean(inner))}; {f'above {LIMITS[other]}' if above else 'highest'}: "
                    f"{listed}"
                )
    inexact = [row["jaxcnn"].operation for row in rows if not is_exact(row)]
    slow = [row["jaxcnn"].operation for row in rows if not is_soon_compiled(row)]
    remarks.append(f"compiled in more than lax's time and 1 s: {', '.join(slow) or 'none'}")
    remarks.append(f"error above 1e-5 and above lax's own: {', '.join(inexact) or 'none'}")
    large = [o.name for o, row in zip(operations, rows, strict=True) if not is_small(o, row)]
    remarks.append(f"temporaries above lax's and twice the padded input: {', '.join(large) or 'none'}")
    return tables, remarks


WORDS = {"forward": "forward", "gradient": "forward + backward"}
LIMITS = {"lax": 1.05, "torch": 1.0}
"""Ratios above these are named."""


def fastest(operation: Operation, measurements: Sequence[Measurement]) -> dict[str, Measurement]:
    """The measurements of one row by library; of PyTorch's layouts the faster, forward and backward each."""
    found = [m for m in measurements if m.operation == operation.name]
    row = {m.library: m for m in found if not m.layout}
    layouts = [m for m in found if m.layout]
    if layouts:
        forward, gradient = (min(layouts, key=lambda m: getattr(m, what)) for what in WORDS)
        both = dict.fromkeys((forward.layout, gradient.layout))
        row["torch"] = dataclasses.replace(gradient, forward=forward.forward, layout=", ".join(both))
    return row


def ratio(row: dict[str, Measurement], what: str, other: str) -> float | None:
    """Time of jaxcnn over that of another library; 1 where it is the same program as lax."""
    if other == "lax" and what in row["jaxcnn"].same_as_lax:
        return 1.0
    return getattr(row["jaxcnn"], what) / getattr(row[other], what) if other in row else None


def is_soon_compiled(row: dict[str, Measurement]) -> bool:
    """Whether jaxcnn needs at most a second more than lax to compile."""
    return (row["jaxcnn"].compilation or 0.0) <= (row["lax"].compilation or 0.0) + 1.0


def is_exact(row: dict[str, Measurement]) -> bool:
    """Whether no error of jaxcnn's is above 1e-5 and above that of lax."""
    ours, lax = row["jaxcnn"].errors, row["lax"].errors
    return all(error <= max(1e-5, lax[name]) for name, error in ours.items())


def is_small(operation: Operation, row: dict[str, Measurement]) -> bool:
    """Whether jaxcnn needs at most the memory of lax and twice the padded input."""
    ours, lax = row["jaxcnn"].temporaries or 0, row["lax"].temporaries or 0
    return ours <= lax + 2 * operation.padded_input_bytes


def times_table(rows: Sequence[dict[str, Measurement]], where: str) -> Table:
    """Forward, and forward and backward, against lax and PyTorch."""
    columns = ["milliseconds"]
    columns += [f"{word} {library}" for word in ("forward", "both") for library in ("jaxcnn", "lax", "torch")]
    columns += [f"jaxcnn/{library} {word}" for library in ("lax", "torch") for word in ("forward", "both")]
    cells = []
    for row in rows:
        times = [
            number(1e3 * getattr(row[library], what)) if library in row else number(None)
            for what in WORDS
            for library in ("jaxcnn", "lax", "torch")
        ]
        same = row["jaxcnn"].same_as_lax
        ratios = ["same" if what in same else number(ratio(row, what, "lax")) for what in WORDS]
        ratios += [number(ratio(row, what, "torch")) for what in WORDS]
        layout = row["torch"].layout if "torch" in row else number(None)
        cells.append([row["jaxcnn"].operation, *times, *ratios, layout])
    return Table(f"Times, {where} (both: forward + backward)", [*columns, "torch's channels"], cells)


def costs_table(operations: Sequence[Operation], rows: Sequence[dict[str, Measurement]], where: str) -> Table:
    """Compile time, memory and errors against lax."""
    columns = ["forward + backward", "compile s jaxcnn", "lax", "temporaries MiB jaxcnn", "lax", "allowed"]
    columns += ["error of y jaxcnn", "lax", "of gradients jaxcnn", "lax"]
    cells = []
    for operation, row in zip(operations, rows, strict=True):
        pair = (row["jaxcnn"], row["lax"])
        memory = [m.temporaries or 0 for m in pair]
        memory.append(memory[1] + 2 * operation.padded_input_bytes)
        gradients = [max(error for name, error in m.errors.items() if name != "y") for m in pair]
        cells.append(
            [
                operation.name,
                *(number(m.compilation, 2) for m in pair),
                *(number(size / 2**20) for size in memory),
                *(f"{m.errors['y']:.0e}" for m in pair),
                *(f"{error:.0e}" for error in gradients),
            ]
        )
    return Table(f"Compile time, memory, errors, {where}", columns, cells)


def peers_table(rows: Sequence[dict[str, Measurement]], where: str) -> Table:
    """Forward and backward in all libraries."""
    libraries = dict.fromkeys(["jaxcnn", "lax", "torch"] + [name for row in rows for name in row])
    cells = [
        [
            row["jaxcnn"].operation,
            *(number(1e3 * row[name].gradient) if name in row else number(None) for name in libraries),
        ]
        for row in rows
    ]
    return Table(f"Forward + backward, {where}", ["milliseconds", *libraries], cells)


def in_words(found: Sequence[Measurement]) -> str:
    """Forward and backward of one operation, in milliseconds."""
    return ", ".join(f"{m.library} {m.layout}".strip() + f" {number(1e3 * m.gradient)} ms" for m in found)


def draw(
    path: Path, operations: Sequence[Operation], measurements: Sequence[Measurement], cores: int
) -> None:
    """Chart forward and backward as multiples of PyTorch's time, or of jaxcnn's where nothing has PyTorch."""
    rows = [fastest(operation, measurements) for operation in operations]
    unit = "torch" if any("torch" in row for row in rows) else "lax"
    rows = [row for row in rows if unit in row]
    libraries = [name for name in dict.fromkeys(name for row in rows for name in row) if name != unit]
    series = {
        name: [row[name].gradient / row[unit].gradient if name in row else None for row in rows]
        for name in libraries
    }
    title = f"Forward + backward, {cores} {'core' if cores == 1 else 'cores'}: time as a multiple of {unit}'s"
    bars(path, title, [row["jaxcnn"].operation for row in rows], series, f"multiple of {unit}'s time")


if __name__ == "__main__":
    main(read_flags(Config, SCRIPT))
