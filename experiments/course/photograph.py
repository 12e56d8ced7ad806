"""The photograph of a cat that several lessons look at."""

import importlib.util
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxcnn.data import read_image


def cat() -> UInt8[np.ndarray, "height width 3"]:
    """Chelsea the cat, 300 x 451 pixels, 0..255: chelsea.png of scikit-image.

    Raises:
        FileNotFoundError: scikit-image, or its photograph, is not there; the message says what to install.
    """
    # The package is found and not imported: all that is needed of it is one file.
    package = importlib.util.find_spec("skimage")
    folders = [] if package is None else package.submodule_search_locations or []
    for folder in folders:
        photograph = Path(folder) / "data" / "chelsea.png"
        if photograph.is_file():
            return read_image(photograph)
    raise FileNotFoundError(
        "cat: the photograph chelsea.png of scikit-image is not there; pip install scikit-image"
    )
