"""A project with a release: pictures of circles and squares, imported and trained through the command line."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from demo.installation import Installation

MANIFEST = "{id: shapes, title: 'Round or square?', kind: classification, classes: [round, square], train: {at_least_new: 100000}}"


def make(installation: Installation, folder: Path, each: int = 15) -> None:
    """Add the project, import `each` pictures of each class, train, and wait for nothing."""
    random = np.random.default_rng(0)
    for name in ("round", "square"):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            shade, x, y = (int(v) for v in random.integers(20, 100, 3))
            picture = Image.new("RGB", (160, 160), (255 - shade, 250, 255 - shade // 2))
            box = (x // 2, y // 2, x // 2 + 90, y // 2 + 90)
            draw = ImageDraw.Draw(picture)
            (draw.ellipse if name == "round" else draw.rectangle)(box, fill=(shade, 40, shade))
            picture.save(folder / name / f"{number}.png")
    manifest = folder / "shapes.yaml"
    manifest.write_text(MANIFEST)
    installation.command("project", "add", str(manifest))
    installation.command("import", "shapes", str(folder))
    installation.command("train", "shapes")
