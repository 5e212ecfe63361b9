"""What a run leaves for people to read: a log as it goes, its steps as a table, its curve as a picture."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from drive_unet.data.pairing import listed
from drive_unet.files import sweep, write_atomically
from drive_unet.training.checkpoints import BEFORE, BEST, LAST, written_into
from drive_unet.training.provenance import versions

if TYPE_CHECKING:
    from drive_unet.training.loop import TrainingRun

LOG, TABLE, CURVE = "train.log", "history.csv", "history.png"
COLUMNS = ("step", "loss", "lr", "dice", "threshold")


class Log:
    """``train.log`` in a run's folder, to which lines are added as the run goes, each with date and time.

    Args:
        folder: the run's; None keeps no log.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def __call__(self, words: str) -> None:
        """Add a line.

        Raises:
            DataError: if it cannot be written.
        """
        if self.folder is None:
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {' '.join(words.split())}\n"
        with written_into(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LOG).open("ab", buffering=0) as file:  # in one piece
                file.write(line.encode())

    def begin(
        self, settings: Mapping[str, Any], names: Sequence[str], device: torch.device, done: int, anew: bool
    ) -> None:
        """Tell data, settings and versions; `anew` leaves what an earlier run told."""
        if self.folder is not None and anew:
            with written_into(self.folder):
                (self.folder / LOG).unlink(missing_ok=True)
        self(f"goes on after step {done}" if done else "begins")
        self(f"learns from {len(names)} photographs: {listed(names, 40)}")
        self("settings: " + _listed({key: value for key, value in settings.items() if key != "images"}))
        self(f"versions: {_listed(versions())}; on {device}, {torch.get_num_threads()} threads")

    def step(self, run: TrainingRun, steps: int) -> None:
        """Tell how far a run has come."""
        row = run.history[-1]
        words = f"step {row['step']} of {steps} in {run.seconds:.0f} s: loss {run.recent_loss:.4f}, "
        words += f"learning rate {row['lr']:.3g}"
        if "dice" in row:
            words += f", validation Dice {row['dice']:.4f} at threshold {row['threshold']:.3f}"
        self(words)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def write_history(run: TrainingRun, folder: Path) -> None:
    """Write ``history.csv``, a row a step, into a run's folder, in place of an older one.

    The columns are step (from 1), loss, lr (learning rate), and dice and threshold, which are empty but where
    the network was validated.

    Args:
        run: what `drive_unet.fit` returned.
        folder: the run's.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    table.writerows(run.history)
    write_atomically(folder / TABLE, lambda file: file.write(text.getvalue().encode()))


def draw_history(folder: Path) -> None:
    """Draw ``history.png`` beside every ``history.csv`` in a run's folder and in those of its members."""
    import matplotlib.pyplot as plt

    from drive_unet.plots import plot_history

    for table in [*folder.glob(TABLE), *folder.glob(f"member-*/{TABLE}")]:
        with table.open(newline="") as file:
            rows = [
                {key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)
            ]
        if rows:
            figure = plot_history(rows)
            write_atomically(table.with_name(CURVE), partial(figure.savefig, format="png", dpi=100))
            plt.close(figure)


def make_way(folder: Path, overwrite: bool) -> None:
    """Remove what killed runs left unfinished in a folder, and with `overwrite` all that an earlier run left.

    Its checkpoints, or those of its members, tell that a run was there: files of these names without one
    stay, and so do a table with other columns, and a picture without the table of a run.

    Raises:
        DataError: if something cannot be removed.
    """
    members = sorted(folder.glob("member-*"))
    kept = {place: any((place / name).exists() for name in (LAST, BEFORE)) for place in (folder, *members)}
    kept[folder] |= any(kept.values())
    sweep(folder, seconds=3600)
    for place in [place for place in kept if overwrite and kept[place]]:
        with written_into(place):
            drawn = (CURVE, TABLE) if _is_table(place / TABLE) else ()
            for name in (BEST, *drawn, LOG):
                (place / name).unlink(missing_ok=True)
    for place in [place for place in reversed(kept) if overwrite and kept[place]]:  # last what tells all this
        with written_into(place):
            for name in (BEFORE, LAST):
                (place / name).unlink(missing_ok=True)
            with suppress(OSError):  # something else is in it
                if place != folder:
                    place.rmdir()


def _is_table(path: Path) -> bool:
    """Whether a file begins as `write_history` begins one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline().strip() == ",".join(COLUMNS).encode()
