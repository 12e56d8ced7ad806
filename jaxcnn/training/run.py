"""The folder of a run: named, described, and resumed only with the configuration it was made with."""

import importlib.metadata
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SUMMARY = "summary.json"
"""The file that a run writes at its end."""

PACKAGES = ("jaxcnn", "jax", "jaxlib", "flax", "optax")


def open_run(
    runs_dir: str | Path,
    name: str | None,
    default_name: str,
    files: Mapping[str, Mapping[str, Any]],
    *,
    resume: bool,
) -> Path:
    """Make the folder of a new run, or find that of an interrupted one.

    A new run never writes into an old one's folder. Without a name the first free one of default_name,
    default_name-2, ... is taken; to resume, the last one there is.

    Args:
        runs_dir: where runs are kept.
        name: the folder's name, or None.
        default_name: the name if there is none; what does not suit a folder's name is replaced by "-".
        files: what decides the result of the run, as JSON has it, by the names of the files that keep it,
            such as config.json.
        resume: find the folder instead, and compare its files.

    Returns:
        runs_dir/name, which exists.

    Raises:
        FileNotFoundError: there is no run to resume.
        FileExistsError: a new run has the name of an old one, or the run to resume is complete.
        ValueError: the run to resume was made with other settings, or name is no folder's name.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as runs:
        ...     files = {"config.json": {"seed": 0}}
        ...     first = open_run(runs, None, "digits", files, resume=False)
        ...     second = open_run(runs, None, "digits", files, resume=False)
        ...     first.name, second.name, open_run(runs, "digits", "", files, resume=True) == first
        ('digits', 'digits-2', True)
    """
    runs_dir = Path(runs_dir)
    if name is not None and (name in ("", ".", "..") or "/" in name or os.sep in name):
        raise ValueError(f"name must be the name of a folder inside {runs_dir}, got {name!r}")
    if resume:
        run = runs_dir / name if name else _last_run(runs_dir, _as_folder_name(default_name))
        if (run / SUMMARY).exists():
            raise FileExistsError(f"--resume: {run} is complete; start another run without --resume")
        for file, values in files.items():
            _compare(run / file, json.loads(json.dumps(values)))
        return run
    if name is None:
        run = _free_run(runs_dir, _as_folder_name(default_name))
    else:
        run = runs_dir / name
        if run.exists():
            raise FileExistsError(
                f"{run} exists already; go on with it by --resume, or choose another --name"
            )
    run.mkdir(parents=True)
    for file, values in files.items():
        write_json(run / file, values)
    return run


def write_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    path = Path(path)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(new, path)


def environment(devices: Sequence[Any]) -> dict[str, Any]:
    """What a result depends on beside the configuration: versions, the devices used and CPU cores."""
    return {
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "devices": len(devices),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _as_folder_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "run"


def _numbered_runs(runs_dir: Path, name: str) -> dict[int, Path]:
    """The runs called name (number 1), name-2, name-3, ..."""
    pattern = re.compile(re.escape(name) + r"(?:-(\d{1,4}))?")
    matches = ((path, pattern.fullmatch(path.name)) for path in runs_dir.glob("*"))
    return {int(match[1] or 1): path for path, match in matches if match}


def _free_run(runs_dir: Path, name: str) -> Path:
    taken = _numbered_runs(runs_dir, name)
    number = max(taken, default=0) + 1
    return runs_dir / (name if number == 1 else f"{name}-{number}")


def _last_run(runs_dir: Path, name: str) -> Path:
    runs = _numbered_runs(runs_dir, name)
    if not runs:
        raise FileNotFoundError(f"--resume: there is no run {runs_dir / name}; start it without --resume")
    return runs[max(runs)]


def _compare(file: Path, values: Mapping[str, Any]) -> None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"--resume: there is no run {file.parent} (no {file.name}); start it without --resume"
        ) from None
    except ValueError as error:
        raise ValueError(f"--resume: {file} is no JSON file: {error}") from None
    differences = [
        f"{key} {found.get(key)!r}, not {values.get(key)!r}"
        for key in sorted(found.keys() | values.keys())
        if found.get(key) != values.get(key)
    ]
    if differences:
        raise ValueError(f"--resume: {file.parent} was started with {'; '.join(differences)}")
