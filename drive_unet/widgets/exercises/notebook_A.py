"""The exercises of appendix A, the painted eyes."""

from __future__ import annotations

from drive_unet.painter import paint
from drive_unet.widgets.exercises.checking import Exercise, answered


def _thin(share, fundus) -> bool:
    return abs(share - (fundus.calibre[fundus.vessels] <= 3).mean()) <= 0.01


def _crossings(function) -> bool | str:
    for seed in (11, 12):
        fundus = paint(seed, (146, 141))
        expected = (fundus.arteries & fundus.veins).sum() / fundus.vessels.sum()
        share = float(answered(function(fundus)))
        if abs(share - expected) > 1e-6:
            return f"of an eye with {expected:.4f} it says {share:.4f}"
    return True


EXERCISES = {
    "A-1": Exercise(_thin, "look at fundus.calibre where fundus.vessels is true"),
    "A-2": Exercise(_crossings, "fundus.arteries and fundus.veins are both true where vessels cross"),
}
