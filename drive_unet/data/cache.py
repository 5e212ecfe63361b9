"""Where everything lies that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The folder for all that can be made again: DRIVE_UNET_CACHE, or the system's own for user caches."""
    named = os.environ.get("DRIVE_UNET_CACHE") or platformdirs.user_cache_dir("drive-unet", appauthor=False)
    return Path(named).expanduser()
