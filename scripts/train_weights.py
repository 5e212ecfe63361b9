"""Train the weights that come with the package, each by one line, from a clean checkout:

    python scripts/train_weights.py synthetic
    python scripts/train_weights.py synthetic-fast
    python scripts/train_weights.py fast --drive DRIVE --threshold .4375 --threshold-single .4453
    python scripts/train_weights.py drive --drive DRIVE
    python scripts/train_weights.py default --drive DRIVE --hrf HRF
    python scripts/train_weights.py open --hrf HRF

`synthetic`, at full resolution, and `synthetic-fast`, at half, learn from eyes while they are painted, and
take their thresholds from ten others, the former at three sizes; no genuine pixel has a part in them. `fast`
starts from the latter and learns by the preset "laptop" from the 20 labelled photographs of DRIVE; its
thresholds come from cross-validation, in which every photograph is predicted by a network that never saw it
(`python benchmarks/cross_validate.py --data DRIVE --preset laptop`). `drive`, `open` and `default` learn at
full resolution from painted eyes beside DRIVE, HRF and both. `open` and `drive` start from `synthetic`,
`default` from `drive`; what they start from is trained before them unless it lies in the folder of runs.

A run that was stopped goes on at its last checkpoint. With `--without FOLD` the photographs of that fold, of
five, of each camera are left out of these three: thresholds are then chosen and scores printed on
them, and no packaged file is written. `drive_unet/weights/README.md` is the model card.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torchvision.transforms import v2

import drive_unet
from drive_unet import (
    PRESETS,
    DRIVEDataset,
    PaintedStream,
    UNet,
    evaluate,
    find_dataset,
    fit,
    folds,
    painter,
    train,
)
from drive_unet.augmentation import RandomColour, RandomFocus, RandomLight, RandomPatch, training_transform
from drive_unet.data.painted import painted_dataset
from drive_unet.preprocessing import Preprocessing
from drive_unet.presets import choose_thresholds
from drive_unet.training.provenance import versions

WEIGHTS = Path(drive_unet.__file__).parent / "weights"
TITLES = {"drive": "DRIVE", "hrf": "HRF"}
TERMS = {
    "drive": "DRIVE is for research and education, and so are these weights",
    "hrf": "HRF is CC BY 4.0, its artery/vein labels are MIT: name both",
}
EYES = {
    "drive": "healthy and mildly diabetic eyes of DRIVE's camera",
    "hrf": "eyes of HRF's camera that are healthy or have diabetic retinopathy or glaucoma",
    "painted": "painted eyes only",
}
REUSE = 64  # patches of each eye of a stream
BESIDE = range(1000, 1040)  # seeds of the eyes that stay beside genuine photographs
CHOOSING = range(150, 160)  # seeds of the eyes that thresholds are chosen on where nothing genuine is learned
SIZES = (584, 565), (1168, 1130), (2336, 2260)  # of their frames; the larger ones for networks of many scales
FULL = {"stem": 1, "widths": (8, 16, 32, 48, 64)}  # full resolution
COLOURS = RandomColour(gain=0.25, gamma=0.4, noise=0.03)


@dataclass(frozen=True)
class Recipe:
    """What weights learn from, and how long.

    Attributes:
        steps: of eight patches of 256x256.
        transform: of the photographs that patches are cut from.
        network: arguments of the U-Net where it starts from random weights.
        start: the recipe whose weights it starts from; None is random ones.
        shares: how often each photograph of a camera comes in a round, by `TITLES`; the eyes of `BESIDE` come
            once beside them. Nothing: a stream of eyes that are painted meanwhile.
        reduced: how often each photograph comes besides, reduced to DRIVE's width beforehand, antialiased.
        preprocessing: the scales that it learns at.
        precision: of the convolutions: "bf16" takes half the time on processors that have it, and more on
            others.
    """

    steps: int
    transform: v2.Compose
    network: dict = field(default_factory=dict)
    start: str | None = None
    shares: dict[str, int] = field(default_factory=dict)
    reduced: int = 0
    preprocessing: Preprocessing = Preprocessing()
    precision: str = "no"


def cameras(widest: int, focus: float, exact: float = 0.4) -> v2.Compose:
    """Patches as any camera could have taken them: size, sharpness, light, colours, noise."""
    size = RandomPatch(256, exact=exact, widths=(480, widest))
    return v2.Compose([size, RandomFocus(share=focus), RandomLight(), COLOURS])


FINE = Preprocessing(finest=1080)  # fields of view from DRIVE's width to twice as wide
NEAR_DRIVE = v2.Compose([RandomPatch(256, exact=0.5, scale=(0.75, 1.35)), COLOURS])
RECIPES = {
    "synthetic": Recipe(
        7000, cameras(900, 0.5), FULL, preprocessing=Preprocessing(finest=810), precision="bf16"
    ),
    "synthetic-fast": Recipe(4500, NEAR_DRIVE, precision="bf16"),
    "drive": Recipe(6000, training_transform(), start="synthetic", shares={"drive": 4}, precision="bf16"),
    "default": Recipe(
        5000,
        cameras(1200, 0.3, exact=0.7),
        start="drive",
        shares={"drive": 5, "hrf": 3},
        preprocessing=FINE,
        precision="bf16",
    ),
    "open": Recipe(
        4000,
        cameras(1200, 0.3, exact=0.6),
        start="synthetic",
        shares={"hrf": 2},
        reduced=2,
        preprocessing=FINE,
        precision="bf16",
    ),
}


def labelled(camera: str, options: argparse.Namespace) -> DRIVEDataset:
    """The labelled photographs of one camera's copy; of HRF 01 to 10 of each group."""
    folder = getattr(options, camera)
    if folder is None:
        raise SystemExit(f"these weights learn from {TITLES[camera]}: name its folder with --{camera}")
    pairs = find_dataset(folder).labelled
    if camera == "hrf":  # 11 to 15 of each group are for scoring
        pairs = [pair for pair in pairs if int(pair.name[:2]) <= 10]
    return DRIVEDataset.from_pairs(pairs)


def run_name(name: str, without: int | None) -> str:
    """What a run and its weights are called."""
    return name if without is None else f"{name}-without-{without}"


def first_weights(recipe: Recipe, options: argparse.Namespace) -> UNet:
    """The network before its training; weights to start from are trained first where they are missing."""
    if recipe.start is None:
        torch.manual_seed(options.seed)
        return UNet(**recipe.network)
    without = options.without if RECIPES[recipe.start].shares else None  # nothing is left out of painted eyes
    file = options.runs / f"{run_name(recipe.start, without)}.safetensors"
    if not file.exists():
        whole = argparse.Namespace(**vars(options) | {"steps": None, "without": without, "precision": None})
        by_recipe(recipe.start, whole).save_pretrained(file, half=True)
    model = UNet.from_pretrained(file)
    model.notes = {"trained_on": model.notes["trained_on"]}
    return model


def by_recipe(name: str, options: argparse.Namespace) -> UNet:
    """Train weights by their recipe, and choose their thresholds."""
    recipe = RECIPES[name]
    steps, precision = options.steps or recipe.steps, options.precision or recipe.precision
    model = first_weights(recipe, options)
    model.preprocessing = recipe.preprocessing
    learned, left_out = [], {}
    for camera in recipe.shares:
        everything = labelled(camera, options)
        names, others = everything.names, []
        if options.without is not None:
            names, others = folds(everything.names)[options.without]
        learned.append(everything.subset(names))
        left_out[camera] = everything.subset(others)
    if learned:
        rounds = [
            part for part, times in zip(learned, recipe.shares.values(), strict=True) for _ in range(times)
        ]
        if recipe.reduced:
            rounds += [part.prepared(Preprocessing()) for part in learned] * recipe.reduced
        photographs = sum([*rounds[1:], painted_dataset(BESIDE)], start=rounds[0])
        choosing, where = learned, "the photographs learned from, the mean of what is best for each camera"
        if options.without is not None:
            choosing, where = list(left_out.values()), "the photographs left out"
    else:
        photographs = PaintedStream(-(-steps * 8 // REUSE), seed=options.seed, reuse=REUSE)
        sizes = SIZES if recipe.preprocessing.finest else SIZES[:1]
        choosing = [painted_dataset(CHOOSING, size=size) for size in sizes]
        where = f"{len(CHOOSING)} other painted photographs"
        if len(sizes) > 1:
            where += f" at {len(sizes)} sizes, the mean of what is best for each"
    photographs.transform = recipe.transform
    run = options.runs / run_name(name, options.without)
    result = fit(
        model,
        photographs,
        steps=steps,
        average=0.98,
        seed=options.seed,
        out=run,
        resume=True,
        mixed_precision=precision,
    )
    choose_thresholds(model, *choosing)
    sets = [
        f"{len(part)} photographs of {TITLES[key]}" for key, part in zip(recipe.shares, learned, strict=True)
    ]
    eyes = len(BESIDE) if learned else len(photographs)
    sets.append(f"{eyes} painted photographs (painter {painter.VERSION})")
    first = f'first weights "{recipe.start}"' if recipe.start else "no genuine one"
    if recipe.start and not RECIPES[recipe.start].shares:
        first += ", from painted photographs"
    known = " and ".join(EYES[key] for key in recipe.shares or ["painted"])
    model.notes["trained_on"]["source"] = (
        " and ".join(TITLES[key] for key in recipe.shares) or "painted photographs"
    )
    model.notes |= {
        "data": f"{', '.join(sets)}; {first}",
        "threshold": f"best Dice on {where}",
        "training": {
            "steps": steps,
            "seed": options.seed,
            "precision": precision,
            "seconds": round(result.seconds),
        },
        "terms": "; ".join(TERMS[key] for key in recipe.shares)
        or "MIT, as the package: no dataset's terms apply",
        "limits": f"Not a medical device. It knows {known}.",
    }
    for key, part in left_out.items():
        for way, tta in {"one pass": False, "four flips": True}.items():
            if len(part):
                print(f"{TITLES[key]}, left out, {way}: {evaluate(model, part, tta=tta).pooled}", flush=True)
    return model


def by_preset(name: str, preset: str, options: argparse.Namespace) -> UNet:
    """Train by a preset on all labelled photographs of DRIVE."""
    photographs = labelled("drive", options)
    model, result = train(
        preset, photographs, steps=options.steps, seed=options.seed, out=options.runs / name, resume=True
    )
    model.notes["trained_on"]["source"] = "DRIVE"
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
        "terms": TERMS["drive"],
        "limits": "Not a medical device. It knows healthy and mildly diabetic eyes of one camera.",
    }
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*RECIPES, "fast"])
    parser.add_argument("--drive", type=Path, help="a copy of DRIVE")
    parser.add_argument("--hrf", type=Path, help="a copy of HRF")
    parser.add_argument("--without", type=int, choices=range(5), help="the fold to be left out and scored")
    parser.add_argument("--steps", type=int, help="another budget than the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads; all by default")
    parser.add_argument("--precision", choices=["no", "bf16"], help="another one than the recipe's")
    parser.add_argument("--threshold", type=float, help="of `fast`, for four flips, from cross-validation")
    parser.add_argument(
        "--threshold-single", type=float, help="of `fast`, for one pass, from cross-validation"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/weights"), help="folder of checkpoints")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    if (options.threshold is None) != (options.threshold_single is None):
        parser.error("--threshold and --threshold-single come together")
    if options.threads:
        torch.set_num_threads(options.threads)
    model = (
        by_preset(options.name, "laptop", options)
        if options.name == "fast"
        else by_recipe(options.name, options)
    )
    model.notes |= {"versions": versions()}
    packaged = options.without is None
    folder = options.out if packaged else options.runs
    path = model.save_pretrained(folder / f"{run_name(options.name, options.without)}.safetensors", half=True)
    print(
        f"written to {path}, {path.stat().st_size / 1e6:.2f} MB; "
        f"thresholds {model.threshold:.3f} with flips, {model.threshold_single:.3f} for one pass"
    )


if __name__ == "__main__":
    main()
