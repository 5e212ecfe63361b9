"""Measurements of vessels: the truth of painted eyes, against the true mask, against the photograph.

    python benchmarks/measurements.py --weights fast synthetic-fast
    python benchmarks/measurements.py --weights fast synthetic-fast --save   # and keep the intervals' factors
    python benchmarks/measurements.py --weights default --eyes 300 300 --save
    python benchmarks/measurements.py --weights fast --labelled path/to/HRF  # against manual labels

Against manual labels, widths are also compared vessel by vessel, where the label and the network both have
one: the mean calibres of a label with fine vessels and of an answer without them differ for that alone.

Painted eyes, forty unless told, are measured three ways; intervals are calibrated on thirty others. Every
eye's numbers are kept in `benchmarks/runs/measurements`, so that a run goes on where it was stopped and a
table costs nothing a second time. Budget: five to eight seconds an eye and network on one core.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from records import RUNS

from drive_unet import UNet, painter
from drive_unet.commands.networks import fingerprint
from drive_unet.data import DRIVEDataset, Sample, find_dataset
from drive_unet.files import write_atomically
from drive_unet.inference import Segmenter, predict_flips
from drive_unet.measurement import (
    MEASURES,
    Disc,
    Measurements,
    Trace,
    calibrate,
    measure,
    save_calibration,
    trace,
    widths_along,
    with_spread,
)

CHECKED, CALIBRATED = 7_000, 8_000  # first seeds of the eyes that are reported, and that factors are found on
SHOWN = [key for key in MEASURES if key not in ("calibre_5", "calibre_25", "calibre_75")]
_labels: dict[str, tuple[dict, Trace]] = {}  # by the name of the photograph
REGIONS = ("whole", "B", "C")


def painted_truth(fundus: painter.Fundus, disc: Disc) -> dict[str, dict[str, float]]:
    """What the painter knows: widths along the exact centrelines. Other measures are None of its business.

    The label's lines are measured for the rest: how many branch points and how much winding there is depends
    on what one calls a vessel, and the label says that.
    """
    rows, columns = np.ogrid[: fundus.fov.shape[0], : fundus.fov.shape[1]]
    away = np.hypot(rows - disc.row, columns - disc.column) / disc.diameter
    known = {}
    for region, (near, far) in {"whole": (0, np.inf), "B": (1, 1.5), "C": (1, 2.5)}.items():
        there = fundus.centreline & (away >= near) & (away < far)
        widths = fundus.calibre[there & (fundus.calibre > 0)]
        known[region] = {"calibre_mean": float(widths.mean()), "calibre_sd": float(widths.std())}
        known[region] |= {f"calibre_{q}": float(np.percentile(widths, q)) for q in (5, 25, 50, 75, 95)}
    return known


def run(name: str, seed: int) -> dict:
    """One painted eye: what the painter knows, measured from the label, from the photograph; and spreads."""
    target = RUNS / "measurements" / f"{name}-{seed}.json"
    model = UNet.from_pretrained(name).requires_grad_(False)
    weight = sum(float(parameter.double().abs().sum()) for parameter in model.parameters())
    mark = f"painter {painter.VERSION}, weights {weight:.6f}, threshold {model.threshold_for(tta=True):.4f}"
    if target.is_file() and (record := json.loads(target.read_text()))["of"] == mark:
        return record
    torch.set_num_threads(1)
    fundus = painter.paint(seed)
    disc = Disc(float(fundus.eye.disc[1]), float(fundus.eye.disc[0]), 2 * float(fundus.eye.disc_radius))
    label = measure(fundus.vessels, fundus.fov, disc=disc)
    flips = predict_flips(model, fundus.image, fov=fundus.fov)
    table, spread = with_spread(flips, model.threshold_for(tta=True), fundus.fov, disc=disc)
    record = {
        "of": mark,
        "painted": painted_truth(fundus, disc),
        "label": label.values,
        "photograph": table.values,
        "spread": spread,
        "fov_width": table.fov_width,
    }
    write(target, record)
    return record


def compared(truth: np.ndarray, measured: np.ndarray) -> tuple[float, float, float, int]:
    """Bias and spread of the difference in per cent of the true mean, correlation, number of photographs."""
    known = np.isfinite(truth) & np.isfinite(measured)
    truth, measured = truth[known], measured[known]
    if len(truth) < 3:
        return (*[float("nan")] * 3, len(truth))
    off = 100 * (measured - truth) / truth.mean()
    constant = truth.std() == 0 or measured.std() == 0
    r = float("nan") if constant else float(np.corrcoef(truth, measured)[0, 1])
    return float(off.mean()), float(off.std(ddof=1)), r, len(truth)


def column(records: list[dict], source: str, region: str, key: str) -> np.ndarray:
    """One measure of all photographs; of the painter's, None is nan."""
    return np.array([record[source].get(region, {}).get(key, np.nan) for record in records], float)


def table_of(records: list[dict], truth: str, measured: str, regions=REGIONS, factors=None) -> str:
    """Rows of bias, spread and correlation for each measure and zone, and the intervals' coverage."""
    head = "| zone | measure | truth | bias % | spread % | r |" + (" covered % |" if factors else "")
    lines = [head, "|---" * 2 + "|--:" * (head.count("|") - 3) + "|"]
    for region in regions:
        for key in SHOWN:
            true, got = (column(records, source, region, key) for source in (truth, measured))
            if np.isfinite(true).sum() < 3:
                continue
            bias, spread, r, _ = compared(true, got)
            row = f"| {region} | {MEASURES[key].title} | {np.nanmean(true):.4g} "
            row += f"| {bias:+.1f} | {spread:.1f} | {r:.2f} |"
            if factors:
                low, high = factors.get(region, {}).get(key, (np.nan, np.nan))
                unit = column(records, "spread", region, key)
                inside = (true >= got + low * unit) & (true <= got + high * unit)
                row += f" {100 * inside[np.isfinite(true) & np.isfinite(got)].mean():.0f} |"
            lines.append(row)
    return "\n".join(lines)


def coverage(records: list[dict], factors: dict) -> tuple[float, np.ndarray]:
    """The share of photographs whose interval holds the truth, in per cent: of all measures, and of each."""
    inside = []
    for region, values in factors.items():
        for key, (low, high) in values.items():
            true, got, unit = (column(records, s, region, key) for s in ("label", "photograph", "spread"))
            known = np.isfinite(true) & np.isfinite(got)
            inside.append(((true >= got + low * unit) & (true <= got + high * unit))[known])
    return 100 * float(np.concatenate(inside).mean()), 100 * np.array([each.mean() for each in inside])


def painted(names: list[str], eyes: tuple[int, int], workers: int, save: bool) -> None:
    calibrations = {}
    parts = [range(first, first + count) for first, count in zip((CHECKED, CALIBRATED), eyes, strict=True)]
    for name in names:
        with ProcessPoolExecutor(workers) as pool:
            seeds = [seed for pair in zip_longest(*parts) for seed in pair if seed is not None]
            records = dict(zip(seeds, pool.map(run, [name] * len(seeds), seeds), strict=True))
        checked, calibrated = ([records[seed] for seed in part] for part in parts)
        if name == names[0]:
            print(f"Painted truth against the true mask, {len(checked)} eyes:\n")
            print(table_of(checked, "painted", "label"), "\n")
        factors = calibrate(
            [record["label"] for record in calibrated],
            [Measurements(record["photograph"], np.empty(0), record["fov_width"]) for record in calibrated],
            [record["spread"] for record in calibrated],
        )
        calibrations[name] = factors
        print(f"True mask against the photograph, weights `{name}`, {len(checked)} eyes:\n")
        print(table_of(checked, "label", "photograph", factors=factors))
        share, each = coverage(checked, factors)
        # of a share of .9 that so few were calibrated and counted on (split conformal: a beta's variance)
        chance = 100 * (0.09 / (len(calibrated) + 2) + 0.09 / len(checked)) ** 0.5
        within = np.mean((each >= 85) & (each <= 95))
        print(f"\nIntervals of 90 % hold {share:.1f} % of the true values; by single measures")
        print(
            f"{each.min():.0f} to {each.max():.0f} %, {within:.0%} of them 85 to 95 %. The standard deviation"
        )
        print(f"of these is {each.std():.1f} %; so few eyes alone make it {chance:.1f} %.\n", flush=True)
    if save:
        print(f"Factors written to {save_calibration(calibrations)}")


def labelled(weights: str, root: Path, names: list[str] | None, degrees: float | None) -> None:
    """Photographs with manual labels: measured from the label, and from what the network finds."""
    dataset = DRIVEDataset.from_pairs(find_dataset(root).training)
    model = UNet.from_pretrained(weights)
    mark = f"{fingerprint(model)}, {degrees or 'no'} degrees"
    records = []
    for index, name in enumerate(dataset.names):
        if names and name not in names:
            continue
        target = RUNS / "measurements" / f"labelled-{name}-{Path(weights).stem}-{degrees or ''}.json"
        record = json.loads(target.read_text()) if target.is_file() else {}
        if record.get("of") != mark:
            sample = dataset[index]
            truth, traced = label_of(name, sample)
            result = Segmenter(model, tta=True, field_of_view=degrees)(sample)
            threshold = model.threshold_for(tta=True)
            table = measure(result.vessels, result.fov, result.probability, threshold=threshold)
            widths = np.array(widths_along(traced, result.vessels))
            both = np.isfinite(widths).all(axis=0)
            record = {"of": mark, "label": truth, "photograph": table.values}
            record |= {"both": float(both.mean()), "widths": widths[:, both].mean(axis=1).tolist()}
            write(target, record)
        records.append(record)
    print(f"Manual label against the photograph, weights `{weights}`, {len(records)} photographs:\n")
    print(table_of(records, "label", "photograph", regions=("whole",)))
    label, found = np.array([record["widths"] for record in records]).T
    share = np.mean([record["both"] for record in records])
    off = 100 * (found / label - 1)
    print(
        f"\nWhere both have a vessel, {share:.0%} of the label's length: {label.mean():.2f} px wide in the "
        f"label, {found.mean():.2f} px found, {off.mean():+.1f} % "
        f"({', '.join(f'{each:+.0f}' for each in off)})\n",
        flush=True,
    )


def label_of(name: str, sample: Sample) -> tuple[dict, Trace]:
    """What is measured of a manual label, and its centrelines; once, for all weights of a call."""
    if name not in _labels:
        vessels, fov = (np.asarray(part)[0] > 0 for part in (sample.vessels, sample.fov))
        _labels[name] = measure(vessels, fov).values, trace(vessels & fov)
    return _labels[name]


def write(target: Path, record: dict) -> None:
    write_atomically(target, lambda file: file.write(json.dumps(record).encode()))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", nargs="+", default=["fast", "synthetic-fast"])
    parser.add_argument("--labelled", type=Path, help="a folder of photographs with manual labels")
    parser.add_argument(
        "--photographs", metavar="NAME", nargs="+", help="of them, such as 01_h; all by default"
    )
    parser.add_argument("--field-of-view", type=float, metavar="DEGREES", help="of the labelled photographs")
    parser.add_argument(
        "--eyes",
        nargs=2,
        type=int,
        default=(40, 30),
        metavar=("CHECKED", "CALIBRATED"),
        help="so many painted ones are reported, and factors are found on so many others",
    )
    parser.add_argument("--save", action="store_true", help="keep the intervals' factors in the package")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    if options.labelled:
        for name in options.weights:
            labelled(name, options.labelled, options.photographs, options.field_of_view)
    else:
        painted(options.weights, options.eyes, options.workers, options.save)


if __name__ == "__main__":
    main()
