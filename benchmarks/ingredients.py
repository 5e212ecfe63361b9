"""What each ingredient of the painted photographs is worth: train without it, score on genuine ones.

    python benchmarks/ingredients.py --data DRIVE

A run learns from 64 painted eyes for 400 steps, about three minutes on one core; its threshold comes from
eight more, painted alike. It is scored in one pass on the 20 labelled photographs of DRIVE, of which it has
seen none. The first row has all ingredients at their usual strength, each other row lacks one. Finished runs
are passed over, and so are those that another process has claimed: start the same line several times (each
with ``--threads 1``) to share the list, or again to go on where it was stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import torch
from records import RUNS, labelled, once, parsed, spread
from torchvision.transforms import v2

from drive_unet import UNet, evaluate, fit
from drive_unet.augmentation import RandomColour, RandomPatch
from drive_unet.data import DRIVEDataset
from drive_unet.data.painted import painted_dataset
from drive_unet.painter.eye import AS_USUAL, Ingredients
from drive_unet.presets import choose_thresholds

EYES, CHOOSING = 64, 8
SCORES = ("AUC", "Dice", "Se", "Sp", "clDice")
VARIANTS: dict[str, Ingredients] = {"everything": AS_USUAL} | {
    f"no {name}": AS_USUAL._replace(**{name: 0.0}) for name in Ingredients._fields if name != "density"
}


def run(mix: Ingredients, seed: int, steps: int, genuine: DRIVEDataset) -> dict:
    """Train on eyes painted with `mix`, and score on the genuine photographs."""
    first = seed * (EYES + CHOOSING)
    learned = painted_dataset(range(first, first + EYES), mix=mix)
    learned.transform = v2.Compose(
        [RandomPatch(256, exact=0.5, scale=(0.75, 1.35)), RandomColour(gain=0.25, gamma=0.4, noise=0.03)]
    )
    torch.manual_seed(seed)
    model = UNet()
    training = fit(model, learned, steps=steps, average=0.98, seed=seed, progress=False)
    choose_thresholds(model, painted_dataset(range(first + EYES, first + EYES + CHOOSING), mix=mix))
    scored = evaluate(model, genuine).pooled
    return {name: scored[name] for name in SCORES} | {"seconds": round(training.seconds), "steps": steps}


def report(records: dict[str, list[dict]]) -> str:
    """A Markdown table, a row for each variant, and what it lacks against the first."""
    rows = ["| | " + " | ".join(SCORES) + " | Dice lost | seeds |", "|---|" + "---|" * (len(SCORES) + 2)]
    usual = {record["seed"]: record["Dice"] for record in records["everything"]}
    for name, runs in records.items():
        cells = [spread([record[score] for record in runs]) for score in SCORES]
        lost = [usual[record["seed"]] - record["Dice"] for record in runs if record["seed"] in usual]
        cells += [f"{mean(lost):+.4f}" if lost and name != "everything" else "", str(len(runs))]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"variants; by default all: {', '.join(VARIANTS)}")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=RUNS / "ingredients")
    options = parsed(parser, arguments)
    unknown = sorted(set(options.names) - set(VARIANTS))
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; choose from {', '.join(VARIANTS)}")
    genuine = labelled(options.data)
    records: dict[str, list[dict]] = {}
    for seed in options.seeds:
        for name in dict.fromkeys(["everything", *(options.names or VARIANTS)]):
            target = options.out / f"{name.replace(' ', '-')}-{options.steps}-{seed}.json"
            work = lambda name=name, seed=seed: run(VARIANTS[name], seed, options.steps, genuine)  # noqa: E731
            record = once(target, work)
            if record is not None:
                records.setdefault(name, []).append(record | {"seed": seed})
                print(name, seed, {key: record[key] for key in (*SCORES, "seconds")}, flush=True)
    if "everything" in records:
        print(report(records))


if __name__ == "__main__":
    main()
