"""How a file gets onto the disk whole."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from drive_unet.errors import DataError

_A_DAY = 24 * 3600.0  # seconds


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], *, durable: bool = False, keep: Path | None = None
) -> None:
    """Have `write` fill a file opened for bytes, and give it its name when it is complete.

    Whoever is killed meanwhile leaves the older file whole, and beside it a hidden one that ends in `.part`.

    Args:
        path: of the file; its folder is made.
        write: called with the open file.
        durable: wait until the disk has it, so that a computer that is switched off loses neither the older
            nor the newer content.
        keep: the name that the older file gets, if there is one, in place of what is called so.

    Raises:
        OSError: if it cannot be written; the older file is as it was, and nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        with part.open("xb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        try:
            os.replace(part, path)
        except PermissionError:
            if not path.exists():  # where another process has it mapped, some systems do not replace it
                raise
        if durable:
            _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text in UTF-8, whole or not at all; names of files that are no UTF-8 as they are printed.

    Returns:
        The path, with the home folder for "~".

    Raises:
        DataError: naming the file, if it cannot be written.
    """
    path = path.expanduser()
    try:
        write_atomically(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}): make room, or name another file"
        ) from error
    return path


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder, where the system can be asked for that."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(opened)
    except OSError:  # nor do all file systems
        pass
    finally:
        os.close(opened)


def nearest(path: Path) -> Path:
    """What exists of a path: itself, or the nearest of its parents; itself where nothing does."""
    return next((place for place in (path, *path.parents) if os.path.lexists(place)), path)


def refuse_unwritable(path: Path) -> None:
    """Refuse a file that could not be written after long work, and its folder not made; nothing is made here.

    Raises:
        DataError: what stands in the way.
    """
    existing = nearest(path.absolute())
    if path.is_dir():
        fault = "it is a folder"
    elif existing != path.absolute() and not existing.is_dir():
        fault = f"{existing} is no folder"
    elif not os.access(existing, os.W_OK):
        fault = f"no permission to write to {existing}"
    else:
        return
    raise DataError(f"{path} cannot be written, {fault}: name another file")


def sweep(folder: Path, seconds: float = _A_DAY) -> None:
    """Remove what processes that were killed left unfinished in this folder longer ago than that."""
    for part in folder.glob(".*.part"):
        try:
            if time.time() - part.stat().st_mtime > seconds:
                part.unlink()
        except OSError:
            pass  # of another user, or gone
