"""Whether oneDNN's instruction may be used in this process, and why not."""

import functools
import math
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.lowering.convolution import Convolution
from jaxcnn.lowering.onednn.call import call
from jaxcnn.lowering.tag import rewriting

FUZZED = ("0.10.2", "0.12.0.1")
"""The releases of jaxlib whose oneDNN was fuzzed (`make fuzz`): that of another one may have other faults."""
SWITCH = "JAXCNN_ONEDNN"
CPU_INFO = Path("/proc/cpuinfo")
WITHOUT_AVX2 = ("SSE41", "AVX")  # of the values that ONEDNN_MAX_CPU_ISA can have


def unavailable() -> str | None:
    """Why the instruction is not available now; None if it is."""
    settings: Any = jax.config
    if settings.jax_enable_compilation_cache and settings.jax_compilation_cache_dir:
        return "JAX cannot keep a program with oneDNN's instruction (jax_compilation_cache_dir)"
    return _never_available()


@functools.cache
def is_switched_off() -> bool:
    """Whether the environment turns the instruction off; asked once."""
    value = os.environ.get(SWITCH) or "1"
    if value not in ("0", "1"):
        raise ValueError(f"{SWITCH} must be 0 or 1 in the environment, got {value!r}")
    return value == "0"


@functools.cache
def _never_available() -> str | None:
    if is_switched_off():
        return f"{SWITCH}=0 is set"
    if version("jaxlib") not in FUZZED:
        return f"the oneDNN of jaxlib {version('jaxlib')} was not fuzzed"
    # Without AVX2 oneDNN has only its fallback code. Linux tells; elsewhere nothing was tried.
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    if limit.upper() in WITHOUT_AVX2 or not (CPU_INFO.is_file() and " avx2 " in CPU_INFO.read_text()):
        return "oneDNN is used on Linux, with AVX2"
    return None if _was_seen_to_work() else "this JAX lacks oneDNN's instruction"


# The first one detects how numbers are stored: once they were stored plus one, which would make another, but
# valid, convolution of it.
PROBES = (
    Convolution(
        batch=1, size=(1,), channels_in=1, window=(1,), channels_out=1, output=(1,), stride=(3,),
        padding=((1, 1),), lhs_dilation=(1,), dilation=(1,),
    ),
    Convolution(
        batch=1, size=(4, 6), channels_in=1, window=(2, 3), channels_out=1, output=(3, 2), stride=(1, 2),
        padding=((0, 0), (0, 1)), lhs_dilation=(1, 1), dilation=(1, 2),
    ),
)  # fmt: skip


def _was_seen_to_work() -> bool:
    cpu = jax.local_devices(backend="cpu")[0]
    # It runs while another program is being compiled, on any device, perhaps inside accelerate().
    with jax.ensure_compile_time_eval(), jax.default_device(cpu), rewriting():
        try:
            return all(map(_agrees, PROBES))
        except jax.errors.JaxRuntimeError:  # no such instruction
            return False


def _agrees(conv: Convolution) -> bool:
    x = np.arange(1, 1 + math.prod(conv.size), dtype=np.float32).reshape(1, *conv.size, 1)
    kernel = np.arange(1, 1 + conv.taps, dtype=np.float32).reshape(*conv.window, 1, 1)
    both = jax.jit(lambda *operands: (call(conv, *operands), conv.unchanged(*operands)))
    return np.array_equal(*jax.device_get(both(*jax.device_put((x, kernel)))))
