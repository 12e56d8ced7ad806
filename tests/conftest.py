"""Four CPU devices, strict promotion and run-time shape checks for every test; nothing outside is written."""

import os
import tempfile

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jaxtyping
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same draws every time; --hypothesis-profile=thorough makes more of them.
settings.register_profile("quick", max_examples=10, deadline=None, derandomize=True, database=None)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=150)
settings.load_profile("quick")

data_dir = tempfile.TemporaryDirectory(prefix="jaxcnn-test-data-")  # removed at exit
os.environ["TFDS_DATA_DIR"] = data_dir.name

# Every annotation of the package is checked at run time, arrays' dtypes and shapes included.
jaxtyping.install_import_hook("jaxcnn", "beartype.beartype")


@pytest.fixture
def unchecked():
    """Turn the annotation checks off, so that the package's own error messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
