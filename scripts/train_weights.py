"""Train the weights that come with the package, each by one line, from a clean checkout:

    python scripts/train_weights.py synthetic              # 1 million parameters, painted photographs alone
    python scripts/train_weights.py synthetic-small        # 265 thousand, the same
    python scripts/train_weights.py default --data DRIVE   # from "synthetic" on: preset "best"
    python scripts/train_weights.py fast --data DRIVE      # from "synthetic-small" on: preset "laptop"

The first two learn from 150 painted eyes and take their thresholds from ten others; no genuine pixel has a
part in them. The last two learn from the 20 labelled photographs of DRIVE; their thresholds come from
cross-validation, in which every photograph is predicted by a network that never saw it:

    python benchmarks/cross_validate.py --data DRIVE --preset best

prints them, and --threshold and --threshold-single take them. `drive_unet/weights/README.md` is the model
card.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
import torchvision
from torchvision.transforms import v2

import drive_unet
from drive_unet import PRESETS, DRIVEDataset, UNet, evaluate, find_drive, fit, load_drive, synthetic, train
from drive_unet.augmentation import RandomColour, RandomPatch
from drive_unet.presets import choose_thresholds

WEIGHTS = Path(drive_unet.__file__).parent / "weights"
PAINTED = {  # widths and steps; the larger a network, the more a step costs
    "synthetic": ((32, 48, 64, 96, 128), 1200),
    "synthetic-small": ((16, 24, 32, 48, 64), 2000),
}
GENUINE = {"default": "best", "fast": "laptop"}  # weights and the preset that trains them
LEARNING, CHOOSING = range(150), range(150, 160)  # seeds of painted eyes


def from_painted(name: str, steps: int | None, seed: int, run: Path) -> UNet:
    """Train on painted eyes of every colour and sharpness, resuming where a run was stopped."""
    widths, budget = PAINTED[name]
    eyes = DRIVEDataset.painted([*LEARNING, *CHOOSING], progress=True)
    learning, choosing = eyes.subset(LEARNING), eyes.subset(CHOOSING)
    learning.transform = v2.Compose(
        [RandomPatch(256, scale=(0.75, 1.35)), RandomColour(gain=0.25, gamma=0.4, noise=0.03)]
    )
    torch.manual_seed(seed)
    model = UNet(widths=widths)
    result = fit(
        model,
        learning,
        steps=steps or budget,
        average=0.98,
        seed=seed,
        out=run,
        resume=True,
        validate_every=100,
    )
    choose_thresholds(model, choosing)
    scored = evaluate(model, load_drive("embedded").test, tta=True)
    model.notes = {
        "data": f"{len(LEARNING)} painted photographs (generator version {synthetic.VERSION}, seeds "
        f"{LEARNING[0]} to {LEARNING[-1]}); no genuine photograph",
        "threshold": f"best Dice on painted photographs {CHOOSING[0]} to {CHOOSING[-1]}",
        "scores": {"photographs": "the 20 embedded test photographs, four flips", **scored.pooled},
        "training": {"steps": len(result.history), "seed": seed, "seconds": round(result.seconds)},
        "terms": "MIT, as the package: no dataset's terms apply",
    }
    return model


def from_genuine(name: str, options: argparse.Namespace, run: Path) -> UNet:
    """Train by a preset on all labelled photographs of DRIVE."""
    photographs = DRIVEDataset.from_pairs(find_drive(options.data).training)
    preset = GENUINE[name]
    model, result = train(preset, photographs, steps=options.steps, seed=options.seed, out=run, resume=True)
    if options.threshold:
        model.threshold, model.threshold_single = options.threshold, options.threshold_single
    model.notes |= {
        "data": f"the {len(photographs)} training photographs of DRIVE: {', '.join(photographs.names)}; "
        f'first weights "{PRESETS[preset].start}", from painted photographs',
        "threshold": "best Dice of cross-validated predictions"
        if options.threshold
        else "best Dice on the photographs learned from",
        "training": {
            "preset": preset,
            "steps": len(result.history),
            "seed": options.seed,
            "seconds": round(result.seconds),
        },
        "terms": "DRIVE is for research and education, and so are these weights",
    }
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*PAINTED, *GENUINE])
    parser.add_argument("--data", help="a copy of DRIVE; by default $DRIVE_UNET_DATA")
    parser.add_argument("--steps", type=int, help="another budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads; all by default")
    parser.add_argument("--threshold", type=float, help="for four flips, from cross-validation")
    parser.add_argument("--threshold-single", type=float, help="for one pass, from cross-validation")
    parser.add_argument("--run", type=Path, help="folder of checkpoints, to resume a stopped training")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    if (options.threshold is None) != (options.threshold_single is None):
        parser.error("--threshold and --threshold-single come together")
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        run = options.run or Path(temporary)
        if options.name in PAINTED:
            model = from_painted(options.name, options.steps, options.seed, run)
        else:
            model = from_genuine(options.name, options, run)
    notes: dict[str, Any] = {
        "limits": "Not a medical device. "
        "It knows healthy and mildly diabetic eyes of one camera, or painted ones.",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "drive_unet": drive_unet.__version__,
        },
    }
    model.notes |= notes
    path = model.save_pretrained(options.out / f"{options.name}.safetensors", half=True)
    print(
        f"written to {path}, {path.stat().st_size / 1e6:.2f} MB; "
        f"thresholds {model.threshold:.3f} with flips, {model.threshold_single:.3f} for one pass"
    )


if __name__ == "__main__":
    main()
