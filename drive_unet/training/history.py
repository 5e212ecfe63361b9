"""What a run leaves for people to read: its steps as a table, and its curve as a picture."""

from __future__ import annotations

import csv
import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from drive_unet.files import write_atomically

if TYPE_CHECKING:
    from drive_unet.training.loop import TrainingRun

TABLE, CURVE = "history.csv", "history.png"
COLUMNS = ("step", "loss", "lr", "dice", "threshold")


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
