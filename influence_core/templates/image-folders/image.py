"""Folders of images, a folder per class, become a study; then: why was this one taken for another digit?

Run it with ``python image.py``. It writes scikit-learn's digits as PNG files first; put your own in their place.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from influence_core import attribute
from influence_core.readers import import_images, open_images
from influence_core.run import Run

FOLDER, STUDY = Path("digit-images"), Path("studies/digit-images")


def write_images() -> None:
    """Write one PNG per digit: ``digit-images/<class>/<number>.png``."""
    digits = load_digits()
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = FOLDER / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(folder / f"{i:04d}.png")


if __name__ == "__main__":
    write_images()
    run = Run()
    with open_images(FOLDER, run) as images:
        study = import_images(images, STUDY, run)
    first = study.task.ids("test")[0]
    print(attribute(study, "gas", test=[first]).to_frame(5))
    print(f"In the browser: make run, then open {study.header.title}.")
