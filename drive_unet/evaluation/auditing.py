"""One set of predictions scored by the usual habits: what each adds, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.evaluation.evaluator import GIVEN, Evaluation, labels_of
from drive_unet.evaluation.guarding import FROM_TEST, Guard
from drive_unet.evaluation.records import UNRANKED, Labels, Prediction
from drive_unet.evaluation.results import plain
from drive_unet.evaluation.tables import html_table, text_table
from drive_unet.metrics.exact import SCORES, Confusion, called, count
from drive_unet.metrics.ranking import Ranking
from drive_unet.metrics.streaming import Pool
from drive_unet.preprocessing.fov import box

SQUASHED = 512  # pixels along a side
PATCH, STRIDE = 48, 24
_SHOWN = ("AUC", "AP", "Dice", "Acc", "Se", "Sp", "MCC")


@dataclass(frozen=True)
class Habit:
    """One way to score the same predictions.

    Args:
        name: in a few words.
        scores: by their names in `metrics.SCORES`; nan where one is not defined or not asked for.
        why: in one sentence, why they differ from the first row's.
        selection: whether something was chosen on the photographs that are scored.
    """

    name: str
    scores: dict[str, float]
    why: str
    selection: bool = False


@dataclass(frozen=True)
class Audit:
    """Scores by every habit; it prints as a verdict and a table.

    Args:
        predictor: its name.
        protocol: of the first row, in a sentence.
        habits: a row each; the first is this project's protocol, which the others are compared with.
        guards: what is suspicious.
        notes: what could not be computed, and why.
    """

    predictor: str
    protocol: str
    habits: list[Habit]
    guards: list[Guard]
    notes: list[str]

    def added(self, habit: Habit) -> dict[str, float]:
        """What a habit adds to each score."""
        first = self.habits[0].scores
        return {key: habit.scores[key] - first[key] for key in SCORES}

    @property
    def verdict(self) -> str:
        """What the usual habits are worth: the whole frame, and what flatters Dice most; two sentences."""
        key = "Acc" if math.isnan(self.habits[0].scores["AUC"]) else "AUC"
        word = {"Acc": "accuracy", "AUC": "AUC", "Dice": "Dice"}
        sentences = []
        for score, habits in ((key, self.habits[1:2]), ("Dice", self.habits[2:])):
            known = [habit for habit in habits if not math.isnan(habit.scores[score])]
            known = [habit for habit in known if habit.name not in _ABSURD]
            if not known:
                continue
            habit = max(known, key=lambda row: row.scores[score])
            gain, honest = self.added(habit)[score], self.habits[0].scores[score]
            if gain < 5e-4:
                sentences.append(f"Your {word[score]} is {_short(honest)}, and '{habit.name}' adds nothing.")
                continue
            sentences.append(
                f"Your {_short(habit.scores[score])} is {_short(honest)}: the first is the {word[score]} "
                f"by the habit '{habit.name}', the second inside the field of view at native size, pooled."
            )
        return " ".join(sentences)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for `json.dump`; what is not defined is None."""
        return {
            "verdict": self.verdict,
            "predictor": self.predictor,
            "protocol": self.protocol,
            "rows": [
                {
                    "name": habit.name,
                    **plain(habit.scores),
                    "adds": plain(self.added(habit)),
                    "why": habit.why,
                    "selection_on_the_test": habit.selection,
                }
                for habit in self.habits
            ],
            "guards": [guard.to_dict() for guard in self.guards],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        reasons = [f"{n}. {row.name}: {row.why}" for n, row in enumerate(self.habits, start=1)]
        blocks = [self.verdict, text_table(*self._table()), "\n".join(reasons), _MARK, self.protocol]
        blocks += [f"Suspicious, {guard}" for guard in self.guards]
        return "\n\n".join([*blocks, *self.notes])

    def __repr__(self) -> str:
        return f"<Audit of {self.predictor} by {len(self.habits)} habits>"

    def _repr_html_(self) -> str:
        reasons = [f"{n}. {row.why}" for n, row in enumerate(self.habits, start=1)]
        return html_table(self.verdict, *self._table(), [*reasons, _MARK, self.protocol, *self.notes])

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for number, habit in enumerate(self.habits, start=1):
            added = self.added(habit)
            cells = [_cell(habit.scores[key], None if number == 1 else added[key]) for key in _SHOWN]
            rows.append([f"{number}. {habit.name}{' (!)' if habit.selection else ''}", *cells])
        return ["scored", *_SHOWN], rows


_MARK = "(!) marks selection on the photographs that are scored; in brackets what a habit adds to row 1."
_ABSURD = ("labels and scores sorted", "second observer as reference")


def audit(
    predictions: Iterable[Prediction],
    photographs: DRIVEDataset,
    evaluation: Evaluation,
    *,
    guards: Sequence[Guard] = (),
    from_training: tuple[float, str] | None = None,
    seen: Sequence[str] = (),
) -> Audit:
    """Score one set of predictions by the usual habits.

    Args:
        predictions: for each photograph in turn, at its native size.
        photographs: with labels.
        evaluation: of the same predictions by this project's protocol, `thorough`.
        guards: what is suspicious.
        from_training: a threshold chosen on training photographs, or one that was given, and in words where
            it came from; None where there is none.
        seen: the photographs that the network had learned from, where that is known.

    Returns:
        A row for each habit; those of a threshold only for probabilities.
    """
    pools = {name: _Counted() for name in ("cropped", "squashed", "patches", "second")}
    for (name, labels), prediction in zip(labels_of(photographs), predictions, strict=True):
        cut = next(part.threshold for part in evaluation.records if part.name == name)
        _count_photograph(pools, prediction, labels, 0.5 if cut is None else cut)
    suspected = any(guard.name == FROM_TEST for guard in guards)
    if seen:
        chosen = "but the network had learned from these"
    elif suspected:
        chosen = "but its threshold is the best there is on these photographs"
    else:
        unless = ", unless the threshold that was given was" if evaluation.threshold_from == GIVEN else ""
        chosen = f"nothing chosen on these photographs{unless}"
    frame = evaluation.whole_frame.pooled if evaluation.whole_frame else _nothing()
    habits = [
        Habit(
            "inside the field of view",
            evaluation.pooled,
            f"the protocol of this project: native size, pixels pooled, {chosen}.",
        ),
        Habit(
            "whole frame",
            frame,
            "the black surround counts as background found: it is no part of the eye, and nobody gets it "
            "wrong.",
        ),
        Habit(
            "cropped",
            pools["cropped"].scores(),
            "the frame is cut to a box around the field of view, whose black corners still count.",
        ),
        Habit(
            f"resized to {SQUASHED}",
            pools["squashed"].scores(),
            f"predictions and labels are squashed to {SQUASHED} x {SQUASHED} before they are compared, on "
            "the whole frame: thin vessels and doubtful edges change or vanish from the reference itself.",
        ),
        Habit(
            "per-image mean",
            evaluation.mean(),
            "every photograph is scored for itself and the scores are averaged: each has its own ranking, so "
            "that differences between photographs no longer count against the AUC.",
        ),
        *_thresholds(evaluation, from_training, seen, suspected),
        Habit(
            "patches pooled",
            pools["patches"].scores(),
            f"{PATCH} x {PATCH} patches that lie wholly inside are pooled, overlapping by half: the middle "
            "counts up to four times, and the rim, where errors gather, hardly at all.",
        ),
        Habit(
            "labels and scores sorted",
            _sorted_scores(evaluation),
            "labels and scores are each sorted before they are compared (a mistake that is easily made): "
            "which pixel is which is lost, and the AUC of random numbers is near 1.",
        ),
    ]
    notes = []
    if pools["second"].size:
        habits.append(
            Habit(
                "second observer as reference",
                pools["second"].scores(),
                "the other human is taken for the truth; where the two differ, a model that was taught by "
                "one is wrong by the other.",
            )
        )
    else:
        notes.append("No second observer's labels are here, so nothing is scored against them.")
    if evaluation.ranking is None:
        notes.append("These are finished segmentations: rows of thresholds, AUC and AP need probabilities.")
    elif from_training is None:
        notes.append(
            "No threshold from training photographs is known: add their predictions to the folder, or give "
            "--threshold."
        )
    return Audit(evaluation.name, evaluation.protocol, habits, list(guards), notes)


class _Counted:
    """The pixels of one habit: ranked where there are probabilities, and counted."""

    def __init__(self) -> None:
        self.pool, self.confusion, self.size, self.ranked = Pool(), Confusion(0, 0, 0, 0), 0, True

    def add(self, values: np.ndarray | None, drawn: np.ndarray, truth: np.ndarray) -> None:
        self.size += truth.size
        self.ranked &= values is not None
        if self.ranked:
            self.pool.add(values, truth)
        self.confusion = self.confusion.plus(count(drawn, truth))

    def scores(self) -> dict[str, float]:
        if not self.size:
            return _nothing()
        areas = self.pool.ranking().areas() if self.ranked else UNRANKED
        return areas | self.confusion.scores() | {"clDice": math.nan}


def _count_photograph(pools: dict[str, _Counted], prediction: Prediction, labels: Labels, cut: float) -> None:
    probability, vessels = prediction
    if probability is not None and probability.dtype == bool:
        probability, vessels = None, probability if vessels is None else vessels
    drawn = called(probability, cut) if vessels is None else vessels
    truth, fov = labels.vessels, labels.fov

    def within(window: Any) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        return tuple(None if part is None else part[window].ravel() for part in (probability, drawn, truth))

    pools["cropped"].add(*within(box(fov)))
    small_truth = _squash(truth) >= 0.5
    small = None if probability is None else _squash(probability).clip(0, 1)
    small_drawn = small >= cut if vessels is None else _squash(drawn) >= 0.5
    pools["squashed"].add(None if small is None else small.ravel(), small_drawn.ravel(), small_truth.ravel())
    times = _coverage(fov)
    repeated = [None if part is None else np.repeat(part, times.ravel()) for part in within(...)]
    pools["patches"].add(*repeated)
    if labels.second is not None:
        values, called_vessel, _ = within(fov)
        pools["second"].add(values, called_vessel, labels.second[fov].astype(bool))


def _squash(plane: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(plane.astype(np.float32))
    return np.asarray(picture.resize((SQUASHED, SQUASHED), Image.Resampling.BILINEAR))


def _coverage(fov: np.ndarray) -> np.ndarray:
    """How many patches inside the field of view hold each pixel, (H, W) int."""
    sums = np.pad(fov.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    times = np.zeros(fov.shape, np.int64)
    for top in range(0, fov.shape[0] - PATCH + 1, STRIDE):
        for left in range(0, fov.shape[1] - PATCH + 1, STRIDE):
            down, right = top + PATCH, left + PATCH
            held = sums[down, right] - sums[top, right] - sums[down, left] + sums[top, left]
            if held == PATCH * PATCH:
                times[top:down, left:right] += 1
    return times


def _thresholds(
    evaluation: Evaluation, from_training: tuple[float, str] | None, seen: Sequence[str], suspected: bool
) -> list[Habit]:
    ranking = evaluation.ranking
    if ranking is None or not ranking.tp[-1]:
        return []
    best = ranking.best()[1]
    habits = [
        Habit(
            f"best threshold on the test, {best:.3f}",
            _at(evaluation, ranking, best),
            "the threshold was chosen on the photographs that are scored, which nobody can do with new ones.",
            selection=True,
        ),
        Habit("threshold .5", _at(evaluation, ranking, 0.5), "a convention, chosen on no photograph at all."),
    ]
    if from_training is not None:
        value, source = from_training
        name = "threshold given" if source == GIVEN else "threshold from training"
        if seen:
            why = f"the one that came with weights that had learned from these photographs ({source})."
        elif suspected:
            why = (
                f"the best there is on these photographs, so hardly chosen before they were seen ({source})."
            )
        elif source == GIVEN:
            why = "whether it was chosen before these photographs were seen, only who gave it knows."
        else:
            why = f"chosen before these photographs were seen, and frozen ({source})."
        habits.insert(0, Habit(f"{name}, {value:.3f}", _at(evaluation, ranking, value), why))
    return habits


def _at(evaluation: Evaluation, ranking: Ranking, threshold: float) -> dict[str, float]:
    """The scores at another threshold; areas do not change, and centrelines are not looked at again."""
    above = int(np.searchsorted(-ranking.threshold, -threshold, side="right"))
    tp, fp = (int(part[above - 1]) if above else 0 for part in (ranking.tp, ranking.fp))
    counts = Confusion(tp, fp, int(ranking.tp[-1]) - tp, int(ranking.fp[-1]) - fp)
    areas = {key: evaluation.pooled[key] for key in ("AUC", "AP")}
    return areas | counts.scores() | {"clDice": math.nan}


def _sorted_scores(evaluation: Evaluation) -> dict[str, float]:
    counts = evaluation.confusion
    vessels, drawn, total = counts.tp + counts.fn, counts.tp + counts.fp, sum(counts)
    areas, ranking = UNRANKED, evaluation.ranking
    if ranking is not None:
        everything = ranking.tp + ranking.fp
        tp = np.minimum(everything, vessels)
        areas = Ranking(tp, everything - tp, ranking.threshold).areas()
    tp = min(drawn, vessels)
    matched = Confusion(tp, drawn - tp, vessels - tp, total - max(drawn, vessels))
    return areas | matched.scores() | {"clDice": math.nan}


def _nothing() -> dict[str, float]:
    return dict.fromkeys(SCORES, math.nan)


def _short(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def _cell(value: float, added: float | None) -> str:
    if math.isnan(value):
        return "-"
    gain = "" if added is None or math.isnan(added) else f" ({added:+.4f})".replace("0.", ".", 1)
    return f"{value:.4f}{gain}"
