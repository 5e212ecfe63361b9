"""Where everything lies that can be made again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import platformdirs

_A_DAY = 24 * 3600  # seconds


def cache_folder() -> Path:
    """The folder for all that can be made again: DRIVE_UNET_CACHE, or the system's own for user caches."""
    named = os.environ.get("DRIVE_UNET_CACHE") or platformdirs.user_cache_dir("drive-unet", appauthor=False)
    return Path(named).expanduser()


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left unfinished in this folder more than a day ago."""
    for part in folder.glob(".*.part"):
        try:
            if time.time() - part.stat().st_mtime > _A_DAY:
                part.unlink()
        except OSError:
            pass  # of another user, or gone
