"""Train the weights that come with the package, on the embedded photographs alone.

    python scripts/train_weights.py            # about 4 minutes on two cores

writes drive_unet/weights/embedded.safetensors. The 16 training photographs teach, the 4 held-out ones choose
the step and the threshold, and the 20 test photographs are scored once, at the end; the scores travel in the
file's notes.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import torch
import torchvision

import drive_unet
from drive_unet import UNet, evaluate, fit, load_drive, synthetic

WEIGHTS = Path(drive_unet.__file__).parent / "weights" / "embedded.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()

    drive = load_drive("embedded")
    torch.manual_seed(options.seed)
    model = UNet()
    run = fit(
        model, drive.train, drive.validation, steps=options.steps, seed=options.seed, validate_every=200
    )
    print(run)
    result = evaluate(model, drive.test, threshold_from="chosen on the validation photographs")
    print(result)
    model.notes = {
        "data": f"embedded synthetic photographs, generator version {synthetic.VERSION}, seed 0",
        "training": {"steps": options.steps, "seed": options.seed, "images": drive.train.names},
        "validation": {"dice": run.best_dice, "step": run.best_step, "images": drive.validation.names},
        "test": {"protocol": result.protocol, **result.pooled},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "drive_unet": drive_unet.__version__,
        },
        "limits": "Trained on painted photographs only. Not a medical device.",
    }
    print(f"written to {model.save_pretrained(options.out)}")


if __name__ == "__main__":
    main()
