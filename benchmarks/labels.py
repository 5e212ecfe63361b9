"""What the labels of the training photographs are like: the facts that the notebooks state of genuine DRIVE.

    python benchmarks/labels.py --data DRIVE
    python benchmarks/labels.py --data embedded

Vessels' shares and widths, what vanishes in the article's squash to 256x256, and what the article's accuracy
(pixels of the squashed frame at which prediction and label are equal) gives an empty and a perfect
prediction, with vessels as the label and with the masks of the field of view. Budget: a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from PIL import Image
from records import labelled

from drive_unet.data import DRIVEDataset
from drive_unet.plots.overlays import calibre
from drive_unet.preprocessing import vanished_fraction

SIZE = 256  # the article's squash


def facts(photographs: DRIVEDataset) -> dict[str, float]:
    """Named numbers; shares are of 1, pooled over the photographs unless the name says otherwise."""
    labels, fovs = (np.array(masks) for masks in (photographs.vessels, photographs.fovs))  # (N, H, W) bool
    shares = [label[fov].mean() for label, fov in zip(labels, fovs, strict=True)]
    widths = np.concatenate([width[line] for label in labels for width, line in [calibre(label)]])
    named = {
        "field of view, of the frame": fovs.mean(),
        "vessels, of the field of view": labels[fovs].mean(),
        "vessels, of the field of view, least": min(shares),
        "vessels, of the field of view, most": max(shares),
        "labelled pixels outside": (labels & ~fovs).sum(),
        "centreline one pixel wide": (widths <= 1.5).mean(),
        "empty prediction, whole frame: accuracy": 1 - labels.mean(),
        "empty prediction, inside: accuracy": 1 - labels[fovs].mean(),
    }
    for of in ("pixels", "centreline", "segments"):
        named[f"vanished {of}, mean"] = np.mean([vanished_fraction(label, of=of) for label in labels])
    for role, masks in (("vessels", labels), ("masks", fovs)):
        perfect, empty = article_accuracy(masks)
        named[f"article's accuracy, {role}, perfect"] = perfect
        named[f"article's accuracy, {role}, empty"] = empty
    return {name: float(value) for name, value in named.items()}


def article_accuracy(masks: Sequence[np.ndarray]) -> tuple[float, float]:
    """What a perfect and an empty prediction get where 0 or 1 must equal a label that a squash made grey."""
    grey = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks]
    squashed = np.array([file.resize((SIZE, SIZE), Image.Resampling.BILINEAR) for file in grey]) / 255
    return float(((squashed > 0.5) == squashed).mean()), float((squashed == 0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help='a copy of DRIVE, or "embedded"; by default $DRIVE_UNET_DATA')
    for name, value in facts(labelled(parser.parse_args().data)).items():
        print(f"{name:42} {value:.{0 if value.is_integer() else 4}f}")


if __name__ == "__main__":
    main()
