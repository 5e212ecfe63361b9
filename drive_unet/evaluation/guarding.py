"""What is suspicious about a score: too good, nothing found, seen before, a threshold from the test, ..."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.layouts import OWN, PUBLISHED
from drive_unet.data.pairing import listed
from drive_unet.evaluation.evaluator import BY_DEFAULT, Evaluation

# Inside the field of view of DRIVE; the best that is known there, and a little more. Accuracy: Kovács and
# Fazekas (arXiv 2111.03853) find .9582 at most among honest ones. Dice: about .83, and .79 between observers.
ACCURACY, DICE = 0.960, 0.840
FROM_TEST = "threshold from the test"
_SIZED = ("DRIVE", "HRF", "CHASE_DB1", "STARE")
# Of published sets, (height, width).
NATIVE = {layout.name: layout.size for layout in PUBLISHED if layout.name in _SIZED}


@dataclass(frozen=True)
class Guard:
    """A suspicion.

    Args:
        name: of the rule, such as "too good to be true".
        sentence: what was seen, and what to do about it.
    """

    name: str
    sentence: str

    def to_dict(self) -> dict[str, str]:
        """For `json.dump`."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"


def guards(
    evaluation: Evaluation,
    photographs: DRIVEDataset,
    kind: str,
    *,
    training: DRIVEDataset | None = None,
    seen: Sequence[str] | None = None,
) -> list[Guard]:
    """All suspicions about an evaluation.

    Args:
        evaluation: inside the field of view.
        photographs: those that were scored.
        kind: of the dataset, see `DriveFolder.kind`.
        training: the dataset's training photographs, if others were scored.
        seen: the photographs that weights were trained on, by their own record.
    """
    return [
        *too_good(evaluation, kind),
        *not_as_asked(evaluation),
        *in_both(photographs, training, seen),
        *resized_labels(photographs, kind),
        *threshold_from_test(evaluation),
    ]


def too_good(evaluation: Evaluation, kind: str) -> Iterator[Guard]:
    """Scores inside the field of view that nobody is known to reach on DRIVE."""
    above = [
        f"{words} of {evaluation.pooled[key]:.4f} is above {limit:.3f}"
        for key, words, limit in (("Acc", "an accuracy", ACCURACY), ("Dice", "a Dice", DICE))
        if evaluation.inside_fov and evaluation.pooled[key] > limit
    ]
    if above:
        other = "your photographs" if kind == OWN else kind
        elsewhere = "" if kind == "DRIVE" else f" That limit is known for DRIVE; {other} may be easier."
        yield Guard(
            "too good to be true",
            f"{' and '.join(above)} inside the field of view, more than is known of any honest score; look "
            f"for photographs that were learned from, and for labels among the predictions.{elsewhere}",
        )


def not_as_asked(evaluation: Evaluation) -> Iterator[Guard]:
    """Predictions in another form than the one that is scored: on another scale, or inverted."""
    counts = evaluation.confusion
    called, vessel, pixels = counts.tp + counts.fp, counts.tp + counts.fn, sum(counts)
    if vessel and not called:
        yield Guard(
            "nothing is called vessel",
            "not one pixel is: masks are black and white (0 and 255), maps of probability 0 to 255 in 8 "
            "bits, 0 to 65535 in 16 or 0 to 1 in floats; write them so, or see what the threshold cuts.",
        )
    if called > pixels / 2 and vessel < pixels / 2:
        yield Guard(
            "inverted",
            f"{called / pixels:.0%} of the pixels are called vessel, and {vessel / pixels:.0%} are: here "
            "vessels are white and the background is black.",
        )


def in_both(
    photographs: DRIVEDataset, training: DRIVEDataset | None, seen: Sequence[str] | None
) -> Iterator[Guard]:
    """Photographs that were learned from and are scored, by their pixels and whatever their names."""
    if seen:
        yield Guard(
            "in training and test",
            f"these weights were trained on {listed(seen)}, so scores there say nothing of others.",
        )
    if training is not None and (shared := photographs.shared_with(training)):
        yield Guard(
            "in training and test",
            f"{_are(shared)} among the training photographs too, pixel for pixel: leave them out of one of "
            "both.",
        )


def resized_labels(photographs: DRIVEDataset, kind: str) -> Iterator[Guard]:
    """Labels that are not of the size that was published, or were enlarged by repeating pixels."""
    sizes, repeated, native = {}, [], NATIVE.get(kind)
    for name, vessels in zip(photographs.names, photographs.vessels, strict=True):
        if native is not None and vessels.shape != native:
            sizes[name] = f"{vessels.shape[1]}x{vessels.shape[0]}"
        if _repeats(vessels) or _repeats(vessels.T):
            repeated.append(name)
    if sizes:
        yield Guard(
            "resized labels",
            f"{_are(sizes)} not of {kind}'s own size ({next(iter(sizes.values()))} instead of "
            f"{native[1]}x{native[0]}): resizing changes thin vessels, so such scores compare with no "
            "others.",
        )
    elif repeated:
        yield Guard(
            "resized labels",
            f"the labels of {listed(repeated)} repeat rows or columns, as masks do that were enlarged: score "
            "at the size in which they were drawn.",
        )


def threshold_from_test(evaluation: Evaluation) -> Iterator[Guard]:
    """A threshold that is the very best for the photographs that are scored, unless nobody chose it."""
    ranking = evaluation.ranking
    if evaluation.threshold is None or evaluation.threshold_from == BY_DEFAULT:
        return
    if ranking is None or not ranking.tp[-1] or len(ranking.threshold) < 100:
        return
    dice, best = ranking.best()
    if dice - evaluation.pooled["Dice"] <= 2e-6:
        yield Guard(
            FROM_TEST,
            f"{evaluation.threshold:.4f} gives the best Dice there is on these photographs (at {best:.4f}), "
            "which hardly happens unless it was chosen on them: choose it on validation photographs.",
        )


def _are(names: Collection[str]) -> str:
    return f"{listed(names)} {'is' if len(names) == 1 else 'are'}"


def _repeats(mask: np.ndarray) -> bool:
    """Whether rows repeat as regularly as enlarging repeats them; drawn vessels rarely have equal rows."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) < 20:
        return False
    part = mask[rows[0] : rows[-1] + 1]
    same = (part[1:] == part[:-1]).all(axis=1)
    # Enlarged by less than 2, every so many rows one is the same; by more, every so many rows one is not.
    return any(len(at) >= 10 and np.ptp(np.diff(at)) <= 1 for at in map(np.flatnonzero, (same, ~same))) and (
        same.mean() > 0.05
    )


def sentences(items: Iterable[Guard]) -> str:
    """Suspicions as lines of text; empty without any."""
    return "\n".join(f"Suspicious, {item}" for item in items)
