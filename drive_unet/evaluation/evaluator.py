"""A predictor's scores on a dataset, with the protocol they were taken by, as a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.errors import DataError
from drive_unet.evaluation.finished import FinishedPredictions, finished_predictions
from drive_unet.evaluation.records import UNRANKED, Labels, Prediction, Record, over, record, total_confusion
from drive_unet.evaluation.tables import ends, html_table, number, span, text_table, without_nan
from drive_unet.files import write_text
from drive_unet.inference import predict_each
from drive_unet.metrics.bootstrap import Statistic, intervals, mean_of, pooled_scores, within
from drive_unet.metrics.exact import SCORES, Confusion, deviation, mean_of_known
from drive_unet.metrics.pixels import Images, as_images
from drive_unet.metrics.ranking import Ranking
from drive_unet.metrics.streaming import Pool

# Pixels of arteries and of veins (H, W) bool by photograph, each read when it is asked for.
Kinds = Mapping[str, tuple[np.ndarray, np.ndarray]]

# Where thresholds come from that nobody gives, in words.
BY_DEFAULT, GIVEN, RECORDED = "by default", "given", "recorded by drive-unet predict, which froze it"

# ---------------------------------------------------------------------- what comes back


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one predictor: pooled over all pixels, and image by image. It prints as a table.

    Args:
        name: of the predictor.
        names: of the images, in the dataset's order.
        threshold: a pixel is vessel where `probability >= threshold`; None for finished segmentations, and
            where photographs have thresholds of their own (see `records`).
        threshold_from: where the threshold came from, in words.
        inside_fov: whether only the field of view was scored, or the whole frame.
        pooled: score by name (`metrics.SCORES`), pixels pooled over the images; clDice is the mean over the
            images.
        per_image: for each image its "name" and scores; nan where a score is not defined.
        binned: None where every pixel was kept; else how far AUC may be from the exact one at most, because
            the pixels of so many images were counted in bins (see `drive_unet.metrics.PixelCounts`).
        records: what is kept of each image, for intervals and for what `thorough` adds.
        pixels: all pixels, for the curves; None without a ranking.
        whole_frame: the same on the whole frame, where `thorough` asked for it.
        members: the evaluations of several networks, of which this one is the mean.
    """

    name: str
    names: list[str]
    threshold: float | None
    threshold_from: str
    inside_fov: bool
    pooled: dict[str, float]
    per_image: list[dict[str, Any]]
    binned: float | None = None
    records: list[Record] = field(default_factory=list, repr=False)
    pixels: Pool | None = field(default=None, repr=False)
    whole_frame: Evaluation | None = field(default=None, repr=False)
    members: list[Evaluation] = field(default_factory=list, repr=False)

    @property
    def protocol(self) -> str:
        """How the scores were taken, in one sentence."""
        return f"{self.conditions}; {self._threshold_words()}."

    @property
    def conditions(self) -> str:
        """The protocol without the threshold, and how exact AUC and AP are."""
        if self.binned is None:
            return self.terms
        return f"{self.terms}, AUC and AP from bins (AUC within {max(self.binned, 1e-7):.0e})"

    @property
    def terms(self) -> str:
        """What must be equal for two evaluations to be compared: region, photographs, number of networks."""
        region = "Inside the field of view" if self.inside_fov else "On the whole frame"
        count = len(self.names)
        images = f"pixels pooled over {count} images" if count > 1 else "on 1 image"
        text = f"{region}, at native size, {images} ({_listed(self.names)}), clDice averaged over images"
        if self.members:
            text += f", mean of {len(self.members)} networks"
        return text

    @property
    def confusion(self) -> Confusion:
        """The four counts of all pixels."""
        return total_confusion(self.records)

    @cached_property
    def ranking(self) -> Ranking | None:
        """All pixels ranked by their probability, for curves and thresholds; None for segmentations."""
        return None if self.pixels is None else self.pixels.ranking()

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the pooled scores over photographs (`metrics.bootstrap`); nan for fewer than 5.

        They say how far the score of other photographs of the same kind may be from this one's.
        """
        if not self.records:
            return {key: (math.nan, math.nan) for key in SCORES}
        statistic = self.statistic()
        limits = intervals(statistic, len(self.records))
        # Resamples rank pixels by bins, which moves AUC and AP a little, and all of them alike.
        point = statistic(np.ones((1, len(self.records))))[:, 0]
        limits = limits + (np.array([self.pooled[key] for key in SCORES]) - point)
        return {key: (float(low), float(high)) for key, low, high in zip(SCORES, *limits, strict=True)}

    def statistic(self, names: Sequence[str] | None = None) -> Statistic:
        """Its pooled scores as a function of how often each photograph is drawn; of all, or of these."""
        if self.members:
            return mean_of([member.statistic(names) for member in self.members])
        samples = {part.name: part.sample for part in self.records}
        return pooled_scores([samples[name] for name in (self.names if names is None else names)])

    def only(self, names: Sequence[str]) -> Evaluation:
        """The evaluation of some of the photographs: AUC and AP from bins, within 1e-4 or so."""
        chosen = [part for part in self.records if part.name in set(names)]
        if len(chosen) == len(self.records):
            return self
        evaluation = _pooled(self.name, chosen, self.threshold_from, self.inside_fov, None)
        return replace(evaluation, threshold=evaluation.threshold or self.threshold)

    def seed_spread(self) -> dict[str, float]:
        """Sample standard deviation (n - 1) of the pooled scores over networks; nan for fewer than two."""
        return {key: deviation([member.pooled[key] for member in self.members]) for key in SCORES}

    def mean(self) -> dict[str, float]:
        """Mean over the images of every score; images where it is not defined (nan) are left out."""
        return {key: mean_of_known(self._known(key)) for key in SCORES}

    def std(self) -> dict[str, float]:
        """Sample standard deviation (n - 1) over the images of every score; nan for fewer than two images."""
        return {key: deviation(self._known(key)) for key in SCORES}

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
            "intervals": {k: ends(*v) for k, v in self.intervals.items()},
            "per_image": [without_nan(row) for row in self.per_image],
        }

    def to_csv(self, path: str | Path) -> Path:
        """Write the scores image by image, making the folder, and return the path; undefined are empty."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["name", *SCORES])
        writer.writeheader()
        writer.writerows(
            {k: "" if v is None else v for k, v in without_nan(row).items()} for row in self.per_image
        )
        return write_text(Path(path), text.getvalue())

    def __repr__(self) -> str:
        return f"<Evaluation of {self.name} on {len(self.names)} images>"

    def __str__(self) -> str:
        return f"{self.name}\n{text_table(['', *SCORES], self._rows())}\n{self.protocol}"

    def _repr_html_(self) -> str:
        return html_table(self.name, ["", *SCORES], self._rows(), [self.protocol])

    def _rows(self) -> list[list[str]]:
        kinds = {"pooled": self.pooled, "mean": self.mean(), "± sd": self.std()}
        rows = [[kind, *(number(values[key]) for key in SCORES)] for kind, values in kinds.items()]
        return [rows[0], *self.interval_row(), *rows[1:]]

    def interval_row(self) -> list[list[str]]:
        """A row of a table with the intervals of the pooled scores; none for too few photographs."""
        if all(math.isnan(low) for low, _ in self.intervals.values()):
            return []
        return [["[95 %]", *(span(*self.intervals[key]) for key in SCORES)]]

    def _known(self, key: str) -> list[float]:
        return [row[key] for row in self.per_image if not math.isnan(row[key])]

    def _threshold_words(self) -> str:
        cuts = [part.threshold for part in self.records if part.threshold is not None]
        if self.threshold is None and cuts:
            return f"thresholds ≈ {min(cuts):.3f} to {max(cuts):.3f}, {self.threshold_from}"
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
        # Of rows that may be compared, the note tells how far the least exact can be off.
        coarsest = sorted(self.evaluations, key=lambda evaluation: evaluation.binned or 0)
        note = {evaluation.terms: evaluation.conditions for evaluation in coarsest}
        terms = list(dict.fromkeys(evaluation.terms for evaluation in self.evaluations))
        conditions = [note[text] for text in terms]
        rows = []
        for evaluation in self.evaluations:
            mark = f" [{terms.index(evaluation.terms) + 1}]" if len(conditions) > 1 else ""
            threshold = "-" if evaluation.threshold is None else f"{evaluation.threshold:.3f}"
            numbers = (number(evaluation.pooled[key]) for key in SCORES)
            rows.append([evaluation.name + mark, *numbers, threshold])
            rows += [[f"  {label}", *cells, ""] for label, *cells in evaluation.interval_row()]
        sources = dict.fromkeys(e.threshold_from for e in self.evaluations if e.threshold is not None)
        thresholds = f"; thresholds: {', or '.join(sources)}" if sources else ""
        header = ["", *SCORES, "threshold"]
        if len(conditions) == 1:
            return header, rows, [f"{conditions[0]}{thresholds}."]
        notes = [f"[{number}] {text}{thresholds}." for number, text in enumerate(conditions, start=1)]
        return header, rows, [*notes, "Rows with different numbers cannot be compared."]


# ---------------------------------------------------------------------- scoring


def evaluate(
    predictor: torch.nn.Module | Images | str | Path | FinishedPredictions,
    dataset: DRIVEDataset,
    *,
    threshold: float | Sequence[float] | None = None,
    tta: bool = False,
    name: str | None = None,
    inside_fov: bool = True,
    threshold_from: str | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
    thorough: bool = False,
    kinds: Kinds | None = None,
) -> Evaluation:
    """Score a model, or finished predictions, on labelled photographs at their native size.

    A model's photographs are predicted one after the other, and files read likewise, so memory does not grow
    with their number; up to 30 million pixels all scores are exact, beyond them AUC and AP come from fine
    bins, and the result says how close.

    Args:
        predictor: a network; or for each photograph in turn a probability map (H, W) float 0..1, or a
            segmentation (H, W) of bool, or of 0 and 1; or a folder of either as image files, paired with the
            photographs by number or name (see `finished_predictions`), or what is known of one.
        dataset: the photographs; its transform is left out.
        threshold: 0..1, or one for each photograph; None takes the network's own, for a folder the one that
            ``drive-unet predict`` recorded in it, and 0.5 for other probability maps.
        tta: average the network over four flips, as `predict` does.
        name: for the tables; None takes the network's class, or the folder.
        inside_fov: score the field of view only, this project's protocol; False scores the whole frame.
        threshold_from: where a given threshold came from, in words, for the protocol.
        device: where a model computes; by default where it is.
        progress: show a progress bar while a model predicts.
        thorough: look at vessels one by one, at calibration, at the second observer and at the whole frame
            too, for reports: about a fifth of a second a photograph of DRIVE's size.
        kinds: arteries and veins by the photograph's name, where they are known; for `thorough`.

    Returns:
        The scores with their protocol.

    Raises:
        DataError: if the dataset has no labels, or the predictions do not fit it.
    """
    refuse_unlabelled(dataset)
    predictions: Iterable[Prediction]
    recorded: list[float] | None = None
    if isinstance(predictor, (str, Path)):
        name = name or str(predictor)
        predictor = finished_predictions(Path(predictor).expanduser(), dataset)
    if isinstance(predictor, torch.nn.Module):
        maps = predict_each(predictor, dataset, tta=tta, device=device, progress=progress)
        predictions, finished = (Prediction(values) for values in maps), False
        name = name or type(predictor).__name__ + (", 4 flips averaged" if tta else "")
        # A foreign network's `threshold` is not taken: nobody knows whether it is for flips or for one pass.
        asked = getattr(predictor, "threshold_for", None)
        own = None if asked is None else asked(tta)
    elif tta:
        raise ValueError(
            "tta averages over a network's predictions; finished ones cannot be flipped any more."
        )
    elif isinstance(predictor, FinishedPredictions):
        predictions, own = predictor.of(dataset.names), None
        finished = predictor.finished and threshold is None
        recorded = predictor.recorded(dataset.names) if threshold is None else None
        if not finished:
            predictions = (
                Prediction(p.vessels if p.probability is None else p.probability) for p in predictions
            )
    else:
        listed, own = _as_maps(predictor, dataset), None
        predictions, finished = (Prediction(values) for values in listed), listed[0].dtype == bool
    if finished or (isinstance(predictor, FinishedPredictions) and not predictor.ranked):
        value, source = None, "segmentations given as such, without a threshold"
    elif threshold is not None:
        value, source = threshold, threshold_from or GIVEN
    elif recorded is not None:
        value, source = recorded, threshold_from or RECORDED
    elif own is not None:
        passes = "four flips" if tta else "one pass"
        value, source = float(own), threshold_from or f"the network's own for {passes}"
    else:
        value, source = 0.5, threshold_from or BY_DEFAULT
    given: Any = value
    cuts: list[float | None] = [given] * len(dataset) if np.ndim(given) == 0 else list(given)
    if len(cuts) != len(dataset):
        raise ValueError(f"{len(cuts)} thresholds were given for {len(dataset)} photographs: give one each.")
    for cut in cuts:
        if cut is not None and not 0 <= cut <= 1:
            raise ValueError(f"threshold must be in 0..1, got {cut}.")
    scored = _score(
        predictions, dataset, cuts, source, name or "predictions", inside_fov, thorough=thorough, kinds=kinds
    )
    if finished and recorded is not None and len(set(recorded)) == 1:  # of the maps beside segmentations
        return replace(scored, threshold=float(recorded[0]), threshold_from=threshold_from or RECORDED)
    return scored


def evaluate_second_observer(dataset: DRIVEDataset, *, thorough: bool = False) -> Evaluation | None:
    """Score the second human observer against the first, the bar that a model has to reach.

    Args:
        dataset: the photographs; those without a second observer are left out.
        thorough: as for `evaluate`.

    Returns:
        The scores; None if no photograph has a second observer.

    Raises:
        DataError: if the dataset has no labels of the first observer.
    """
    observer = dataset.second_observer
    present = [index for index in range(len(dataset)) if observer[index] is not None]
    if not present:
        return None
    masks = (Prediction(None, np.asarray(observer[index], dtype=bool)) for index in present)
    source = "drawn by hand, without a threshold"
    scored = dataset.subset(present)
    refuse_unlabelled(scored)
    cuts = [None] * len(present)
    return _score(masks, scored, cuts, source, "second observer", True, thorough=thorough)


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
    predictions: Iterable[Prediction],
    dataset: DRIVEDataset,
    cuts: Sequence[float | None],
    source: str,
    name: str,
    inside_fov: bool,
    *,
    thorough: bool = False,
    kinds: Kinds | None = None,
) -> Evaluation:
    pixels, records, frame, beyond = Pool(), [], [], Pool()
    for (image, labels), prediction, cut in zip(labels_of(dataset), predictions, cuts, strict=True):
        known = labels._replace(fov=labels.fov if inside_fov else None)
        if not thorough:
            known = known._replace(second=None)
        elif kinds is not None and image in kinds:
            known = known._replace(kinds=kinds[image])
        cut = 0.5 if cut is None else float(cut)
        try:
            records.append(record(image, prediction, known, cut, pixels, thorough=thorough))
            if thorough and inside_fov:
                frame.append(record(image, prediction, Labels(labels.vessels, None), cut, beyond))
        except DataError as error:
            raise DataError(f"Image {image}: {error}") from error
    evaluation = _pooled(name, records, source, inside_fov, pixels)
    if not frame:
        return evaluation
    return replace(evaluation, whole_frame=_pooled(name, frame, source, False, beyond))


def labels_of(dataset: DRIVEDataset) -> Iterator[tuple[str, Labels]]:
    """The labels of each photograph with its name, read when it is its turn."""
    vessels, fovs, second = dataset.vessels, dataset.fovs, dataset.second_observer
    for index, name in enumerate(dataset.names):
        yield name, Labels(vessels[index], fovs[index], second[index])


def _pooled(
    name: str, records: Sequence[Record], source: str, inside_fov: bool, pixels: Pool | None
) -> Evaluation:
    """The evaluation of photographs that were scored one by one; without their pixels by coarse bins."""
    samples, binned = [part.sample for part in records], None
    if pixels is None:
        values = pooled_scores(samples)(np.ones((1, len(records))))[:, 0]
        areas = dict(zip(SCORES[:2], map(float, values[:2]), strict=True))
        binned = within(samples)
    elif pixels.counts.finished:
        areas = UNRANKED
    else:
        areas = pixels.ranking().areas()
        binned = None if pixels.exact else pixels.counts.error
    lines = mean_of_known(part.scores["clDice"] for part in records)
    scores = areas | total_confusion(records).scores() | {"clDice": lines}
    cuts = {part.threshold for part in records}
    return Evaluation(
        name,
        [part.name for part in records],
        cuts.pop() if len(cuts) == 1 else None,
        source,
        inside_fov,
        scores,
        [part.row() for part in records],
        binned,
        list(records),
        None if pixels is None or pixels.counts.finished else pixels,
    )


def join(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Several evaluations, of different photographs each, as one: such as those of all folds, out of fold.

    Args:
        evaluations: by the same protocol; each photograph in one of them. The first one's name stays.

    Returns:
        The scores over all their pixels, photographs sorted by name; thresholds stay those of each part.
    """
    first = evaluations[0]
    if len(evaluations) == 1:
        return first
    pixels = None
    if all(evaluation.pixels is not None for evaluation in evaluations):
        pixels = Pool()
        for evaluation in evaluations:
            pixels.join(evaluation.pixels)
    records = sorted((part for each in evaluations for part in each.records), key=lambda part: part.name)
    sources = ", or ".join(dict.fromkeys(evaluation.threshold_from for evaluation in evaluations))
    joined = _pooled(first.name, records, sources, first.inside_fov, pixels)
    frames = [evaluation.whole_frame for evaluation in evaluations]
    return joined if None in frames else replace(joined, whole_frame=join(frames))


def over_seeds(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Several trainings, as with several seeds, on the same photographs: the mean of their evaluations.

    Args:
        evaluations: of the same photographs by the same protocol.

    Returns:
        The mean of their pooled scores, with intervals of that mean over photographs. The spread from seed to
        seed is in `seed_spread`; the photographs' is larger by far.

    Raises:
        ValueError: if they are not of the same photographs.
    """
    first = evaluations[0]
    if any(evaluation.names != first.names for evaluation in evaluations):
        raise ValueError("evaluations of different photographs have no mean: score all seeds on the same")
    if len(evaluations) == 1:
        return first
    records = [over(parts) for parts in zip(*(e.records for e in evaluations), strict=True)]
    mean = _pooled(
        f"{first.name}, {len(evaluations)} networks", records, first.threshold_from, first.inside_fov, None
    )
    frames = [e.whole_frame for e in evaluations]
    return replace(
        mean,
        pooled={key: float(np.mean([e.pooled[key] for e in evaluations])) for key in SCORES},
        whole_frame=None if None in frames else over_seeds(frames),
        members=list(evaluations),
        binned=first.binned,
    )


# ---------------------------------------------------------------------- checks and tables


def refuse_unlabelled(dataset: DRIVEDataset) -> None:
    """DataError if there is nothing to score, or nothing to score it against."""
    if not isinstance(dataset, DRIVEDataset):
        raise DataError(
            f"the dataset is a {type(dataset).__name__}, no DRIVEDataset: give one, such as "
            "load_drive().held_out"
        )
    if len(dataset) == 0:
        raise DataError("There is no photograph to score: the dataset is empty.")
    if not dataset.has_labels:
        raise DataError(
            f"These {len(dataset)} photographs have no vessel labels, as today's official DRIVE test set, "
            "and cannot be scored; score held-out training photographs instead: load_drive().held_out."
        )


def _as_maps(predictor: Images, dataset: DRIVEDataset) -> list[np.ndarray]:
    if not hasattr(predictor, "__len__"):
        raise TypeError(
            "evaluate needs a network, a folder of predictions or a list of (H, W) maps, got "
            f"{type(predictor).__name__}."
        )
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
