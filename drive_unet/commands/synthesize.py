"""Behind ``drive-unet synthesize``: painted photographs as files."""

from __future__ import annotations

import argparse
import shlex

from drive_unet.painter import painting


def run(options: argparse.Namespace) -> None:
    """Paint photographs, and say where they are and what to do with them."""
    folder = painting.synthesize(options.folder, options.images, seed=options.seed, workers=options.workers)
    print(f"{options.images} painted photographs with labels are in {folder}")
    print(f"Learn from them: drive-unet train --data {shlex.quote(str(folder))} --out RUN")
