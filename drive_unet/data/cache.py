"""Where everything lies that can be made again, and how a file gets there whole."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import platformdirs

_A_DAY = 24 * 3600  # seconds


def cache_folder() -> Path:
    """The folder for all that can be made again: DRIVE_UNET_CACHE, or the system's own for user caches."""
    named = os.environ.get("DRIVE_UNET_CACHE") or platformdirs.user_cache_dir("drive-unet", appauthor=False)
    return Path(named).expanduser()


def write_atomically(path: Path, write: Callable) -> None:
    """Have `write` fill a file opened for bytes, and give it its name when it is complete.

    Raises:
        OSError: if it cannot be written; nothing is left then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False)
    try:
        with part:
            write(part)
        try:
            os.replace(part.name, path)
        except PermissionError:
            if not path.exists():  # where another process has it mapped, some systems do not replace it
                raise
    finally:
        Path(part.name).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left unfinished in this folder more than a day ago."""
    for part in folder.glob(".*.part"):
        try:
            if time.time() - part.stat().st_mtime > _A_DAY:
                part.unlink()
        except OSError:
            pass  # of another user, or gone
