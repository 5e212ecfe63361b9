"""Cross-validated scores of a preset: every labelled photograph scored by networks that never saw it.

    python benchmarks/cross_validate.py --data DRIVE --preset laptop --seeds 0 1 2

Budget: folds x seeds trainings of the preset's length. A training that was stopped resumes at its last
checkpoint; several processes started with the same line share the list (give each ``--threads 1``). The
report is printed at the end of every call, from whatever is finished.

Protocol: inside the FOV, native size. Dice and its like are pooled over all held-out photographs; AUC and AP
over those of a fold, then the mean. The threshold of a fold is the one that is best for the other folds'
held-out photographs, so that no fold's own predictions have a say in it; of a single fold, the one that is
best for the photographs learned from. clDice is the mean over photographs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from records import RUNS, WAYS, labelled, once, parsed, spread

from drive_unet.data import DRIVEDataset, folds
from drive_unet.inference import predict_all
from drive_unet.metrics import SCORES, choose_threshold, pixel_scores, scores
from drive_unet.presets import PRESETS, train


def run(preset: str, steps: int | None, everything: DRIVEDataset, seed: int, fold: int, out: Path) -> dict:
    """Train on four folds, predict the fifth: the record, and the maps beside it."""
    names, held_out = folds(everything.names)[fold]
    model, training = train(
        preset, everything.subset(names), steps=steps, seed=seed, out=out, resume=True, progress=False
    )
    scored = everything.subset(held_out)
    record = {"preset": preset, "seed": seed, "fold": fold, "held out": held_out}
    record |= {"steps": len(training.history), "seconds": round(training.seconds, 1)}
    for way, tta in WAYS.items():
        maps = predict_all(model, scored, tta=tta)
        np.save(out / f"{way}.npy", np.stack(maps).astype(np.float16))
        own = model.threshold_for(tta)
        record[way] = {"threshold from training": own, **pixel_scores(maps, scored.vessels, scored.fovs, own)}
    print({k: v for k, v in record.items() if k not in WAYS}, flush=True)
    print({way: {k: round(record[way][k], 4) for k in ("AUC", "AP", "Dice")} for way in WAYS}, flush=True)
    return record


def report(everything: DRIVEDataset, finished: dict[tuple[int, int], Path]) -> str:
    """Scores as mean and spread over seeds, and the thresholds that packaged weights get."""
    lines = []
    for way in WAYS:
        rows, thresholds = [], []
        for seed in sorted({seed for seed, _ in finished}):
            runs = {fold: path for (trained, fold), path in finished.items() if trained == seed}
            row, threshold = one_seed(everything, runs, way)
            rows.append(row)
            thresholds.append(round(threshold, 4))
        lines.append(f"{way}, {len(finished)} trainings, seeds and thresholds {thresholds}:")
        lines.append("  " + ", ".join(f"{name} {spread([row[name] for row in rows])}" for name in SCORES))
    return "\n".join(lines)


def one_seed(everything: DRIVEDataset, runs: dict[int, Path], way: str) -> tuple[dict[str, float], float]:
    """Scores of the held-out photographs of these folds, and the threshold that is best for all of them."""
    maps = {fold: list(np.load(path / f"{way}.npy").astype(np.float32)) for fold, path in runs.items()}
    parts = {fold: everything.subset(folds(everything.names)[fold][1]) for fold in runs}
    marks = {fold: (part.vessels, part.fovs) for fold, part in parts.items()}

    def pooled(chosen: list[int]) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        groups = [(maps[fold], *marks[fold]) for fold in chosen]
        return tuple([item for group in groups for item in group[part]] for part in range(3))

    called = []
    for fold in runs:
        others = [held for held in runs if held != fold]
        record = json.loads((runs[fold] / "record.json").read_text())
        threshold = choose_threshold(*pooled(others)) if others else record[way]["threshold from training"]
        called += [probability >= threshold for probability in maps[fold]]
    _, vessels, fovs = pooled(list(runs))
    row = scores(called, vessels, fovs)
    for area in ("AUC", "AP"):  # within folds: the networks of two folds need not mean the same by .3
        row[area] = float(np.mean([pixel_scores(maps[fold], *marks[fold])[area] for fold in runs]))
    return row, choose_threshold(*pooled(list(runs)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="laptop")
    parser.add_argument("--steps", type=int, help="another budget than the preset's")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=RUNS / "cross_validate")
    options = parsed(parser)
    everything = labelled(options.data)
    finished = {}
    for seed in options.seeds:
        for fold in options.folds:
            budget = f"{options.preset}-{options.steps}" if options.steps else options.preset
            out = options.out / budget / f"seed-{seed}" / f"fold-{fold}"
            record = once(
                out / "record.json",
                lambda s=seed, f=fold, o=out: run(options.preset, options.steps, everything, s, f, o),
            )
            if record:
                finished[seed, fold] = out
    print(report(everything, finished))


if __name__ == "__main__":
    main()
