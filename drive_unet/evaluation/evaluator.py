"""A predictor's scores on a dataset, with the protocol they were taken by, as a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.errors import DataError
from drive_unet.evaluation.tables import html_table, number, text_table, without_nan
from drive_unet.inference import predict_each
from drive_unet.metrics.exact import SCORES, scores
from drive_unet.metrics.pixels import Images, as_images
from drive_unet.metrics.streaming import Pool

# ---------------------------------------------------------------------- what comes back


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one predictor: pooled over all pixels, and image by image. It prints as a table.

    Args:
        name: of the predictor.
        names: of the images, in the dataset's order.
        threshold: a pixel is vessel where `probability >= threshold`; None for finished segmentations.
        threshold_from: where the threshold came from, in words.
        inside_fov: whether only the field of view was scored, or the whole frame.
        pooled: score by name (`metrics.SCORES`), pixels pooled over the images; clDice is the mean over the
            images.
        per_image: for each image its "name" and scores; nan where a score is not defined.
        binned: None where every pixel was kept; else how far AUC may be from the exact one at most, because
            the pixels of so many images were counted in bins (see `drive_unet.metrics.PixelCounts`).
    """

    name: str
    names: list[str]
    threshold: float | None
    threshold_from: str
    inside_fov: bool
    pooled: dict[str, float]
    per_image: list[dict[str, Any]]
    binned: float | None = None

    @property
    def protocol(self) -> str:
        """How the scores were taken, in one sentence."""
        return f"{self.conditions}; {self._threshold_words()}."

    @property
    def conditions(self) -> str:
        """The protocol without the threshold: what must be equal for two evaluations to be compared."""
        region = "Inside the field of view" if self.inside_fov else "On the whole frame"
        count = len(self.names)
        images = f"pixels pooled over {count} images" if count > 1 else "on 1 image"
        text = f"{region}, at native size, {images} ({_listed(self.names)}), clDice averaged over images"
        if self.binned is not None:
            text += f", AUC and AP from bins (AUC within {max(self.binned, 1e-7):.0e})"
        return text

    def mean(self) -> dict[str, float]:
        """Mean over the images of every score; images where it is not defined (nan) are left out."""
        return {
            key: float(np.mean(values)) if len(values := self._known(key)) else math.nan for key in SCORES
        }

    def std(self) -> dict[str, float]:
        """Sample standard deviation (n - 1) over the images of every score; nan for fewer than two images."""
        return {
            key: float(np.std(values, ddof=1)) if len(values := self._known(key)) > 1 else math.nan
            for key in SCORES
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, for `json.dump`; nan becomes None."""
        return {
            "name": self.name,
            "names": list(self.names),
            "threshold": self.threshold,
            "threshold_from": self.threshold_from,
            "inside_fov": self.inside_fov,
            "auc_within": self.binned,
            "protocol": self.protocol,
            "pooled": without_nan(self.pooled),
            "mean": without_nan(self.mean()),
            "std": without_nan(self.std()),
            "per_image": [without_nan(row) for row in self.per_image],
        }

    def to_csv(self, path: str | Path) -> Path:
        """Write the scores image by image, and return the path; undefined scores are empty."""
        path = Path(path)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["name", *SCORES])
            writer.writeheader()
            writer.writerows(
                {k: "" if v is None else v for k, v in without_nan(row).items()} for row in self.per_image
            )
        return path

    def __repr__(self) -> str:
        return f"<Evaluation of {self.name} on {len(self.names)} images>"

    def __str__(self) -> str:
        return f"{self.name}\n{text_table(['', *SCORES], self._rows())}\n{self.protocol}"

    def _repr_html_(self) -> str:
        return html_table(self.name, ["", *SCORES], self._rows(), [self.protocol])

    def _rows(self) -> list[list[str]]:
        kinds = {"pooled": self.pooled, "mean": self.mean(), "± sd": self.std()}
        return [[kind, *(number(values[key]) for key in SCORES)] for kind, values in kinds.items()]

    def _known(self, key: str) -> list[float]:
        return [row[key] for row in self.per_image if not math.isnan(row[key])]

    def _threshold_words(self) -> str:
        if self.threshold is None:
            return self.threshold_from
        return f"threshold ≈ {self.threshold:.3f}, {self.threshold_from}"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several evaluations, a row each; it prints as a table. Numbers tell rows of unlike protocol apart."""

    evaluations: list[Evaluation]

    def to_dict(self) -> list[dict[str, Any]]:
        """Everything, for `json.dump`."""
        return [evaluation.to_dict() for evaluation in self.evaluations]

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(evaluation.name for evaluation in self.evaluations)}>"

    def __str__(self) -> str:
        header, rows, notes = self._table()
        return "\n".join([text_table(header, rows), *notes])

    def _repr_html_(self) -> str:
        header, rows, notes = self._table()
        return html_table("", header, rows, notes)

    def _table(self) -> tuple[list[str], list[list[str]], list[str]]:
        conditions = list(dict.fromkeys(evaluation.conditions for evaluation in self.evaluations))
        rows = []
        for evaluation in self.evaluations:
            mark = f" [{conditions.index(evaluation.conditions) + 1}]" if len(conditions) > 1 else ""
            threshold = "-" if evaluation.threshold is None else f"{evaluation.threshold:.3f}"
            numbers = (number(evaluation.pooled[key]) for key in SCORES)
            rows.append([evaluation.name + mark, *numbers, threshold])
        sources = dict.fromkeys(e.threshold_from for e in self.evaluations if e.threshold is not None)
        thresholds = f"; thresholds: {', or '.join(sources)}" if sources else ""
        header = ["", *SCORES, "threshold"]
        if len(conditions) == 1:
            return header, rows, [f"{conditions[0]}{thresholds}."]
        notes = [f"[{number}] {text}{thresholds}." for number, text in enumerate(conditions, start=1)]
        return header, rows, [*notes, "Rows with different numbers cannot be compared."]


# ---------------------------------------------------------------------- scoring


def evaluate(
    predictor: torch.nn.Module | Images,
    dataset: DRIVEDataset,
    *,
    threshold: float | None = None,
    tta: bool = False,
    name: str | None = None,
    inside_fov: bool = True,
    threshold_from: str | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score a model, or finished predictions, on labelled photographs at their native size.

    A model's photographs are predicted one after the other, so memory does not grow with their number; up to
    30 million pixels all scores are exact, beyond them AUC and AP come from fine bins, and the result says
    how close.

    Args:
        predictor: a network; or for each photograph in turn a probability map (H, W) float 0..1, or a
            segmentation (H, W) of bool, or of 0 and 1.
        dataset: the photographs; its transform is left out.
        threshold: 0..1; None takes the network's own, and 0.5 for probability maps.
        tta: average the network over four flips.
        name: for the tables; None takes the network's class.
        inside_fov: score the field of view only, this project's protocol; False scores the whole frame.
        threshold_from: where a given threshold came from, in words, for the protocol.
        device: where a model computes; by default where it is.
        progress: show a progress bar while a model predicts.

    Returns:
        The scores with their protocol.

    Raises:
        DataError: if the dataset has no labels, or the predictions do not fit it.
    """
    _refuse_unlabelled(dataset)
    if isinstance(predictor, torch.nn.Module):
        maps, finished = predict_each(predictor, dataset, tta=tta, device=device, progress=progress), False
        name = name or type(predictor).__name__ + (", 4 flips averaged" if tta else "")
        # A foreign network's `threshold` is not taken: nobody knows whether it is for flips or for one pass.
        own = predictor.threshold_for(tta) if hasattr(predictor, "threshold_for") else None
    elif tta:
        raise ValueError(
            "tta averages over a network's predictions; finished ones cannot be flipped any more."
        )
    else:
        maps, own = _as_maps(predictor, dataset), None
        finished = maps[0].dtype == bool
    if finished:
        value, source = None, "segmentations given as such, without a threshold"
    elif threshold is not None:
        value, source = float(threshold), threshold_from or "given"
    elif own is not None:
        passes = "four flips" if tta else "one pass"
        value, source = float(own), threshold_from or f"the network's own for {passes}"
    else:
        value, source = 0.5, threshold_from or "by default"
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"threshold must be in 0..1, got {value}.")
    return _score(maps, dataset, value, source, name or "predictions", inside_fov)


def evaluate_second_observer(dataset: DRIVEDataset, *, inside_fov: bool = True) -> Evaluation | None:
    """Score the second human observer against the first, the bar that a model has to reach.

    Args:
        dataset: the photographs; those without a second observer are left out.
        inside_fov: as for `evaluate`.

    Returns:
        The scores; None if no photograph has a second observer.

    Raises:
        DataError: if the dataset has no labels of the first observer.
    """
    observer = dataset.second_observer
    present = [index for index in range(len(dataset)) if observer[index] is not None]
    if not present:
        return None
    masks = (np.asarray(observer[index], dtype=bool) for index in present)
    source = "drawn by hand, without a threshold"
    scored = dataset.subset(present)
    _refuse_unlabelled(scored)
    return _score(masks, scored, None, source, "second observer", inside_fov)


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Put evaluations into one table, a row each.

    Args:
        evaluations: one or more.

    Returns:
        What prints, and shows in a notebook, as that table.
    """
    evaluations = [
        e for e in ([evaluations] if isinstance(evaluations, Evaluation) else evaluations) if e is not None
    ]
    if not evaluations:
        raise ValueError("compare needs at least one evaluation.")
    return Comparison(evaluations)


def _score(
    maps: Iterable[np.ndarray],
    dataset: DRIVEDataset,
    threshold: float | None,
    source: str,
    name: str,
    inside_fov: bool,
) -> Evaluation:
    cut = 0.5 if threshold is None else threshold
    vessels, fovs, pixels, rows = dataset.vessels, dataset.fovs, Pool(cut), []
    for index, (image, probability) in enumerate(zip(dataset.names, maps, strict=True)):
        truth, fov = vessels[index], fovs[index] if inside_fov else None
        try:
            rows.append({"name": image, **scores(probability, truth, fov, cut)})
        except DataError as error:
            raise DataError(f"Image {image}: {error}") from error
        pixels.update(probability, truth, fov)
    known = [row["clDice"] for row in rows if not math.isnan(row["clDice"])]
    pooled = pixels.scores() | {"clDice": float(np.mean(known)) if known else math.nan}
    binned = None if pixels.exact else pixels.counts.error
    return Evaluation(name, list(dataset.names), threshold, source, inside_fov, pooled, rows, binned)


# ---------------------------------------------------------------------- checks and tables


def _refuse_unlabelled(dataset: DRIVEDataset) -> None:
    if len(dataset) == 0:
        raise DataError("There is no photograph to score: the dataset is empty.")
    if not dataset.has_labels:
        raise DataError(
            f"These {len(dataset)} photographs have no vessel labels, as today's official DRIVE test set, "
            "and cannot be scored; score held-out training photographs instead: load_drive().held_out."
        )


def _as_maps(predictor: Images, dataset: DRIVEDataset) -> list[np.ndarray]:
    if isinstance(predictor, str) or not hasattr(predictor, "__len__"):
        raise TypeError(f"evaluate needs a network or a list of (H, W) maps, got {type(predictor).__name__}.")
    maps = as_images(predictor, "predictions")
    if len(maps) != len(dataset):
        raise DataError(
            f"There are {len(maps)} predictions for {len(dataset)} photographs; give one map for each."
        )
    for image, one, vessels in zip(dataset.names, maps, dataset.vessels, strict=True):
        if one.shape != vessels.shape:
            raise DataError(
                f"The prediction for image {image} is {one.shape[0]}x{one.shape[1]}, the photograph "
                f"{vessels.shape[0]}x{vessels.shape[1]}; bring it back to native size first."
            )
    floating = [np.issubdtype(one.dtype, np.floating) for one in maps]
    if all(floating):
        return maps
    if any(floating):
        raise DataError(
            "Some predictions are probability maps, others finished segmentations; give one kind."
        )
    if any(one.dtype != bool and not np.isin(one, (0, 1)).all() for one in maps):
        raise DataError(
            "Integer predictions must hold 0 and 1 only; divide 0..255 by 255 to score probabilities."
        )
    return [one.astype(bool) for one in maps]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{names[0]} to {names[-1]}"
