"""Every rewrite is tested, whether or not this JAX has the instructions of oneDNN, which replace most."""

import jax
import pytest

from jaxcnn.lowering.onednn import instruction
from jaxcnn.lowering.onednn.available import unavailable


@pytest.fixture
def without_onednn(monkeypatch):
    """The rewrites of this package, also where oneDNN would be taken."""
    jax.clear_caches()
    monkeypatch.setattr(instruction, "unavailable", lambda: "a test is without it")
    yield
    jax.clear_caches()


@pytest.fixture(params=["with oneDNN", "without oneDNN"])
def either(request):
    """A test with oneDNN, and without."""
    if request.param == "without oneDNN":
        request.getfixturevalue("without_onednn")
    elif unavailable():
        pytest.skip("this JAX does not have oneDNN's instructions")
