"""How many of the field of view's pixels have which level of red, green and blue, pooled over photographs.

    python benchmarks/histograms.py --data DRIVE
    python benchmarks/histograms.py --data embedded

Printed are the labelled training photographs' histograms as Python, ready to be pasted into notebook A: per
mille of the pixels in sixteen bins of sixteen grey levels. Budget: seconds.
"""

from __future__ import annotations

import argparse

import numpy as np
from records import labelled

BINS = 16


def histograms(root: str | None) -> dict[str, list[int]]:
    """Per mille of the pixels inside the fields of view by level, for each colour; rounding may miss 1000."""
    counts = np.zeros((3, BINS), np.int64)
    for sample in labelled(root):
        levels = (sample.image[:, sample.fov[0] > 0] * 255).round().int().numpy()  # (3, pixels)
        counts += [np.bincount(colour * BINS // 256, minlength=BINS) for colour in levels]
    shares = np.rint(1000 * counts / counts.sum(1, keepdims=True)).astype(int)
    return dict(zip(("red", "green", "blue"), shares.tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help='a copy of DRIVE, or "embedded"; by default $DRIVE_UNET_DATA')
    for colour, shares in histograms(parser.parse_args().data).items():
        print(f'    "{colour}": {shares},')


if __name__ == "__main__":
    main()
