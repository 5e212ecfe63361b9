"""Whether probabilities and thresholds travel from one camera to another.

    python benchmarks/calibration.py --weights fast synthetic-fast --data DRIVE HRF

For each set of weights and each camera that is scored: Dice at the weights' own threshold, at the one that is
best for the other camera, and at the best of its own; expected calibration error as the network says it,
after a temperature chosen on the other camera, and after one of its own. What is chosen on the photographs it
is scored on stands in brackets: of Dice it is a bound, not a score; temperatures are chosen by likelihood.
Photographs that were learned from are marked.

Protocol: all labelled photographs of a folder, inside the field of view, native size, pixels pooled, four
flips. Pixels are counted in bins of probability (`drive_unet.metrics.PixelCounts`), which are kept in
`benchmarks/runs/calibration`. Budget: two seconds a photograph of DRIVE, six of HRF on one core.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from records import RUNS

from drive_unet import UNet
from drive_unet.commands.networks import fingerprint
from drive_unet.data import DRIVEDataset, find_dataset
from drive_unet.files import write_atomically
from drive_unet.inference import predict_all
from drive_unet.metrics import PixelCounts
from drive_unet.metrics.reliability import calibration, choose_temperature, tempered
from drive_unet.metrics.streaming import FINE
from drive_unet.training.provenance import seen

MIDDLE = FINE.middles()


def counted(model: UNet, photographs: DRIVEDataset) -> PixelCounts:
    """The pixels of one camera's photographs by their probability; kept, and found again."""
    counts = PixelCounts()
    all_of_them = hashlib.sha256("".join(photographs.fingerprints).encode()).hexdigest()[:16]
    target = RUNS / "calibration" / f"{fingerprint(model)}-{all_of_them}.npz"
    if target.is_file():
        counts.vessels, counts.background = np.load(target)["counts"]
        return counts
    for name in photographs.names:
        one = photographs.subset([name])
        counts.update(predict_all(model, one, tta=True), one.vessels, one.fovs)
    both = np.stack([counts.vessels, counts.background])
    write_atomically(target, lambda file: np.savez_compressed(file, counts=both))
    return counts


def dice(counts: PixelCounts, threshold: float) -> float:
    """Dice where a pixel is vessel from the bin of this threshold on."""
    start = int(FINE.of(np.array([threshold]))[0])
    tp, fp = counts.vessels[start:].sum(), counts.background[start:].sum()
    return float(2 * tp / (tp + fp + counts.vessels.sum()))


def temperature(counts: PixelCounts) -> float:
    """What makes the probabilities of these pixels most likely."""
    held = (counts.vessels + counts.background) > 0
    return choose_temperature(MIDDLE[held], counts.vessels[held], counts.background[held])


def error(counts: PixelCounts, temperature: float = 1.0) -> float:
    """Expected calibration error after the log odds were divided by a temperature."""
    pixels = counts.vessels + counts.background
    held = pixels > 0
    share = counts.vessels[held] / pixels[held]
    return calibration(tempered(MIDDLE[held], temperature), share, pixels[held].astype(float)).ece


def rows(weights: str, cameras: dict[str, DRIVEDataset]) -> list[str]:
    """A row of Markdown a camera that is scored and a camera that threshold and temperature come from."""
    model = UNet.from_pretrained(weights)
    counts = {camera: counted(model, photographs) for camera, photographs in cameras.items()}
    best = {camera: own.ranking().best()[1] for camera, own in counts.items()}
    heat = {camera: temperature(own) for camera, own in counts.items()}
    lines = []
    for scored, own in counts.items():
        learned = " (learned from)" if seen(model.notes, cameras[scored]) else ""
        for other in (camera for camera in counts if camera != scored):
            cells = [
                weights,
                scored + learned,
                other,
                f"{dice(own, model.threshold):.4f} at {model.threshold:.3f}",
                f"{dice(own, best[other]):.4f} at {best[other]:.3f}",
                f"({dice(own, best[scored]):.4f} at {best[scored]:.3f})",
                f"{error(own):.4f}",
                f"{error(own, heat[other]):.4f} at {heat[other]:.2f}",
                f"({error(own, heat[scored]):.4f} at {heat[scored]:.2f})",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", nargs="+", default=["fast", "synthetic-fast"])
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="a folder for each camera")
    parser.add_argument("--threads", type=int, help="CPU threads; all by default")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    cameras = {}
    for folder in options.data:
        cameras[folder.name] = DRIVEDataset.from_pairs(find_dataset(folder).labelled)
    head = ("weights", "scored on", "chosen on", "Dice, own threshold", "chosen there", "best here")
    head += ("calibration error", "temperature from there", "from here")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for weights in options.weights:
        print("\n".join(rows(weights, cameras)), flush=True)


if __name__ == "__main__":
    main()
