"""Behind ``drive-unet synthesize``: painted photographs as files."""

from __future__ import annotations

import argparse
import shlex
import sys

from drive_unet.painter import painting
from drive_unet.painter.store import unfinished


def run(options: argparse.Namespace) -> None:
    """Paint photographs, and say where they are and what to do with them."""
    try:
        folder = painting.synthesize(
            options.folder,
            options.images,
            seed=options.seed,
            workers=options.workers,
            overwrite=options.overwrite,
        )
    except KeyboardInterrupt:
        if (work := unfinished(options.folder)).exists():
            print(f"\nThe same command goes on with the eyes that are finished, in {work}", file=sys.stderr)
        raise
    print(f"{options.images} painted photographs with labels are in {folder}")
    print(f"Learn from them: drive-unet train --data {shlex.quote(str(folder))} --out RUN")
