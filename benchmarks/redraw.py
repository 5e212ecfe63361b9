"""How long the explorer takes from a moved slider to the new picture and its scores, without a browser.

    python benchmarks/redraw.py

For each layer the median of ten redraws of one painted photograph, with its label and field of view: the
threshold moves, the picture is drawn and compressed, and the scores are counted anew. A redraw uses one
thread, and its core's time is taken, which other programs do not lengthen. What a browser adds is in
tests/test_browser.py, which prints it.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from statistics import median

import numpy as np

from drive_unet import explore
from drive_unet.painter.painting import paint
from drive_unet.widgets.explorer import LAYERS

REDRAWS = 10


def redraws(size: tuple[int, int]) -> dict[str, float]:
    """Milliseconds of a core for a redraw by layer, of a photograph of this size (height, width)."""
    eye = paint(0, size)
    noise = np.random.default_rng(0).random(size)
    probability = (0.6 * eye.vessels + 0.4 * noise).astype(np.float32)
    explorer = explore([(eye.image, eye.vessels, eye.fov)], [probability])
    taken: dict[str, float] = {}
    for layer in LAYERS:
        explorer.layer.value = layer
        times = []
        for threshold in np.linspace(0.3, 0.7, REDRAWS):
            before = time.thread_time()
            explorer.threshold.value = threshold
            times.append(1000 * (time.thread_time() - before))
        taken[layer] = median(times)
    return taken


def main(arguments: list[str] | None = None) -> None:
    """Print a row of milliseconds for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--sizes", metavar="HEIGHTxWIDTH", nargs="+", default=["584x565", "1411x1411", "2336x3504"]
    )
    options = parser.parse_args(arguments)
    print(f"one of {os.cpu_count()} {platform.machine()} cores; milliseconds, median of {REDRAWS} redraws")
    for size in options.sizes:
        height, width = map(int, size.split("x"))
        cells = [f"{layer} {taken:.0f}" for layer, taken in redraws((height, width)).items()]
        print(f"{size}: {', '.join(cells)}")


if __name__ == "__main__":
    main()
