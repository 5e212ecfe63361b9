"""Scores fold by fold, with what is known of the photographs that a network learned from, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.drive import folds
from drive_unet.data.pairing import listed
from drive_unet.evaluation.evaluator import Evaluation, evaluate_second_observer
from drive_unet.evaluation.results import plain
from drive_unet.evaluation.tables import number, text_table
from drive_unet.metrics.exact import SCORES, deviation


@dataclass(frozen=True)
class Scored:
    """An evaluation, and which of its photographs the weights were trained on; None if nobody knows."""

    evaluation: Evaluation
    seen: list[str] | None

    @property
    def trained_on_these(self) -> bool | str | None:
        """Whether the weights were trained on these photographs: True, False, "partially"; None: unknown."""
        if self.seen is None or not self.seen:
            return None if self.seen is None else False
        return True if len(self.seen) == len(self.evaluation.names) else "partially"

    @property
    def marked(self) -> Evaluation:
        """The evaluation, with a name that tells whether the weights were trained on these photographs."""
        words = {True: ", trained on these", "partially": f", trained on {len(self.seen or ())} of these"}
        return replace(
            self.evaluation, name=self.evaluation.name + words.get(self.trained_on_these or False, "")
        )

    def to_dict(self) -> dict[str, Any]:
        """A fold's scores, for `json.dump`."""
        return {
            "photographs": list(self.evaluation.names),
            **plain(self.evaluation.pooled),
            "threshold": self.evaluation.threshold,
            "threshold_from": self.evaluation.threshold_from,
            "trained_on_these": self.trained_on_these,
            "seen": self.seen,
        }


def held_out_parts(photographs: DRIVEDataset, k: int | None) -> list[DRIVEDataset]:
    """The k folds' held-out photographs, see `folds`; all in one without k."""
    if k is None:
        return [photographs]
    return [photographs.subset(held_out) for _, held_out in folds(photographs.names, k)]


def over_folds(evaluations: Sequence[Evaluation]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and sample standard deviation (n - 1) over folds, by score."""
    values = {key: [evaluation.pooled[key] for evaluation in evaluations] for key in SCORES}
    return {k: float(np.mean(v)) for k, v in values.items()}, {k: deviation(v) for k, v in values.items()}


def fold_table(group: Sequence[Scored], photographs: DRIVEDataset) -> str:
    """A row a fold, mean and spread, the second observer where there is one; and how they were taken."""
    rows, evaluations = [], [scored.evaluation for scored in group]
    for fold, scored in enumerate(group):
        mark = scored.marked.name.removeprefix(scored.evaluation.name)
        threshold = scored.evaluation.threshold
        cells = [*_cells(scored.evaluation.pooled), "-" if threshold is None else f"{threshold:.3f}"]
        rows.append([f"fold {fold}: {listed(scored.evaluation.names, 4)}{mark}", *cells])
    for label, values in zip(("mean", "± sd over folds"), over_folds(evaluations), strict=True):
        rows.append([label, *_cells(values), ""])
    observer = [evaluate_second_observer(photographs.subset(e.names)) for e in evaluations]
    if None not in observer:
        rows.append(["second observer, mean", *_cells(over_folds(observer)[0]), "-"])
    sources = ", or ".join(dict.fromkeys(e.threshold_from for e in evaluations))
    return (
        f"{evaluations[0].name}\n{text_table(['', *SCORES, 'threshold'], rows)}\n"
        "Inside the field of view, at native size, pixels pooled over the photographs of a fold, clDice "
        f"averaged over them; thresholds: {sources}."
    )


def caution(group: Sequence[Scored]) -> str:
    """Whether the weights were trained on what they are scored on, in a sentence."""
    known = [name for scored in group for name in scored.seen or ()]
    if known:
        names = listed(known, 20)
        return f"These weights were trained on {names}: scores there say nothing of other photographs."
    if any(scored.seen is None for scored in group):
        return "Whether these photographs were used for training is not recorded."
    if len(group) > 1:
        return "Each photograph is scored by networks that have not seen it."
    return "These weights were not trained on these photographs."


def _cells(values: dict[str, float]) -> list[str]:
    return [number(values[key]) for key in SCORES]
