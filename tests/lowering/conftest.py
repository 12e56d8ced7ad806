"""Every rewrite is tested, whether or not this JAX has the instructions of oneDNN, which replace most."""

import jax
import pytest

from jaxcnn.lowering import onednn


@pytest.fixture
def without_onednn(monkeypatch):
    """The rewrites of this package, also where oneDNN would be taken."""
    jax.clear_caches()
    monkeypatch.setattr(onednn, "is_available", lambda: False)
    yield
    jax.clear_caches()


@pytest.fixture(params=["with oneDNN", "without oneDNN"])
def either(request):
    """A test with oneDNN, and without."""
    if request.param == "without oneDNN":
        request.getfixturevalue("without_onednn")
    elif not onednn.is_available():
        pytest.skip("this JAX does not have oneDNN's instructions")
