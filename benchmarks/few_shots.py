"""What painted photographs are worth where few genuine ones are labelled: the k-shot curve.

    python benchmarks/few_shots.py --data DRIVE --seeds 0 1 2

A run learns from k photographs for 200 steps of eight patches, once from random weights and once from those
packaged as "synthetic-fast", which have seen painted photographs only; 90 s each on one core. Its
threshold comes from the photographs that it learned from. It is scored in one pass on the four of fold 0 (21,
26, 31, 36); the k are drawn by the seed from the other 16. k = 0 is "synthetic-fast" as it is. Start the same
line several times (each with ``--threads 1``) to share the list, or again to go on where it was stopped.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from records import RUNS, labelled, once, parsed, spread

from drive_unet import UNet, evaluate, fit
from drive_unet.data import DRIVEDataset, folds
from drive_unet.presets import choose_thresholds

SHOTS = (1, 2, 4, 8, 16)
STARTS = {"random weights": None, "painted first": "synthetic-fast"}
SCORES = ("AUC", "Dice", "clDice")


def run(start: str | None, k: int, seed: int, steps: int, everything: DRIVEDataset) -> dict:
    """Train on k photographs from the start named, and score on those of fold 0."""
    names, held_out = folds(everything.names)[0]
    torch.manual_seed(seed)
    model = UNet.from_pretrained(start) if start else UNet()
    seconds = 0.0
    if k:
        learned = everything.subset(random.Random(seed).sample(names, k))
        seconds = fit(model, learned, steps=steps, seed=seed, progress=False).seconds
        choose_thresholds(model, learned)
    scored = evaluate(model, everything.subset(held_out)).pooled
    return {name: scored[name] for name in SCORES} | {"seconds": round(seconds)}


def report(records: dict[tuple[str, int], list[dict]]) -> str:
    """A Markdown table, a row for each k: AUC, Dice and clDice of both starts, and the Dice gained."""
    head = [f"{score}, {name}" for name in STARTS for score in SCORES]
    rows = ["| k | " + " | ".join(head) + " | Dice gained |", "|--:|" + "---|" * (len(head) + 1)]
    for k in sorted({k for _, k in records}):
        cells, dice = [], {}
        for name in STARTS:
            runs = records.get((name, k), [])
            cells += [spread([record[score] for record in runs]) if runs else "" for score in SCORES]
            dice[name] = {record["seed"]: record["Dice"] for record in runs}
        both = dice["random weights"].keys() & dice["painted first"].keys()
        gained = [dice["painted first"][seed] - dice["random weights"][seed] for seed in sorted(both)]
        rows.append(f"| {k} | " + " | ".join(cells) + f" | {spread(gained) if gained else ''} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RUNS / "few_shots")
    options = parsed(parser, arguments)
    everything = labelled(options.data)
    records: dict[tuple[str, int], list[dict]] = {}
    cases = [(k, seed, name) for seed in options.seeds for k in options.shots for name in STARTS]
    for k, seed, name in [(0, 0, "painted first"), *cases]:
        target = options.out / f"{name.replace(' ', '-')}-{k}-{options.steps}-{seed}.json"
        work = lambda k=k, seed=seed, name=name: run(STARTS[name], k, seed, options.steps, everything)  # noqa: E731
        record = once(target, work)
        if record is not None:
            records.setdefault((name, k), []).append(record | {"seed": seed})
            print(k, name, seed, record, flush=True)
    print(report(records))


if __name__ == "__main__":
    main()
