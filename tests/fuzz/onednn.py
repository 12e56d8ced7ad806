"""What a lowered program hands to oneDNN, and that one instruction as a program of its own."""

import json
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tests.fuzz.draw import literal
from tests.lowering.oracle import Problem

TARGET = "__onednn$convolution"
_CALL = re.compile(
    r"custom_call @" + re.escape(TARGET) + r'\(.*?backend_config = "((?:[^"\\]|\\.)*)"'
    r".*: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>"
)


class Configuration:
    """One instruction: its settings, and the shapes of its operands and result."""

    def __init__(self, settings: str, x: str, kernel: str, y: str) -> None:
        self.settings = re.sub(r"\\([0-9A-F]{2})", lambda code: chr(int(code[1], 16)), settings)
        (self.x, kind), (self.kernel, _), (self.y, _) = map(_shape, (x, kernel, y))
        if kind != "f32":
            raise ValueError(f"oneDNN is given {kind}, for which there is no reference here")

    @property
    def key(self) -> str:
        """The same for equal instructions."""
        return json.dumps([self.settings, self.x, self.kernel])

    def function(self) -> Callable[..., Any]:
        """Of x and the kernel."""
        return jax.ffi.ffi_call(
            TARGET,
            jax.ShapeDtypeStruct(self.y, np.float32),
            custom_call_api_version=1,
            legacy_backend_config=self.settings,
        )

    @property
    def problem(self) -> Problem:
        """What it is to compute."""
        config = json.loads(self.settings)["onednn_conv_config"]
        window, groups = config["window"], int(config.get("feature_groups", 1))
        of_x, of_kernel, of_y = (config[name] for name in ("input", "kernel", "output"))
        images = [
            (data["batch_dim"], data["feature_dim"], data["spatial_dims"])
            for data in (of_x["data"], of_y["data"])
        ]
        filters = of_kernel["filter"]
        spatial = images[0][2]
        return Problem(
            size=tuple(self.x[axis] for axis in spatial),
            window=tuple(window["size"]),
            batch=self.x[images[0][0]],
            group_in=self.kernel[filters["input_feature_dim"]],
            group_out=self.kernel[filters["output_feature_dim"]] // groups,
            groups=groups,
            stride=tuple(window["strides"]),
            padding=tuple(zip(window["pad_left"], window["pad_right"], strict=True)),
            dilation=tuple(window["window_dilations"]),
            numbers=(
                _letters("NC", *images[0]),
                _letters(
                    "IO", filters["input_feature_dim"], filters["output_feature_dim"], filters["spatial_dims"]
                ),
                _letters("NC", *images[1]),
            ),
        )

    def __str__(self) -> str:
        return literal(self.problem)


def configurations(text: str) -> list[Configuration]:
    """Every instruction of a lowered program, each once."""
    found = [Configuration(*call.groups()) for call in _CALL.finditer(text)]
    if len(found) != text.count(f"custom_call @{TARGET}"):
        raise ValueError("an instruction for oneDNN is written in a way that the fuzzer cannot read")
    return list({each.key: each for each in found}.values())


def _letters(names: str, first: int, second: int, spatial: list[int]) -> str:
    letters = {first: names[0], second: names[1], **dict(zip(spatial, "HWD", strict=False))}
    return "".join(letters[axis] for axis in sorted(letters))


def _shape(text: str) -> tuple[tuple[int, ...], str]:
    *sizes, kind = text.split("x")
    return tuple(map(int, sizes)), kind
