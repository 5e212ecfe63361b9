"""Files that a command writes into a folder, and a record of what each was made of.

A file that is there already is replaced only if the record says that it was written for the very same input
and settings, and it is as it was written; or if the user says so.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from drive_unet.errors import DataError

RECORD = "drive-unet.jsonl"  # a line a file; of two lines for one file the later holds


class Outputs:
    """What a command may write into a folder, which is made with the first file.

    Args:
        folder: to write to.
        overwrite: replace whatever is there.

    Raises:
        DataError: if the folder is a file, or has a record that is none.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file: name another --out, a folder")
        self.folder, self.overwrite = folder, overwrite
        self._entries = self._read()

    def check(self, names: Iterable[str], made_of: dict[str, Any]) -> None:
        """Refuse to replace files that were not made of the same.

        Args:
            names: of the files to be written.
            made_of: input and settings, JSON types.

        Raises:
            DataError: naming the first such file.
        """
        for name in names:
            path, entry = self.folder / name, self._entries.get(name)
            if self.overwrite or not os.path.lexists(path):
                continue
            if entry is None:
                why = "exists, and nothing says that this command wrote it"
            elif entry["made_of"] != made_of:
                keys = {*entry["made_of"], *made_of}
                unlike = sorted(k for k in keys if entry["made_of"].get(k) != made_of.get(k))
                why = f"exists, and was written with another {' and '.join(unlike)}"
            elif entry["sha256"] not in (None, digest(path)):
                why = "exists, and was changed after it had been written"
            else:
                continue
            raise DataError(f"{path} {why}: name another --out, or replace it with --overwrite")

    def save(self, name: str, made_of: dict[str, Any], write: Callable[[Path], Any]) -> Path:
        """Write a file, complete or not at all, and its record.

        Args:
            name: of the file.
            made_of: as for `check`, which is called again.
            write: called with the path to write to, which ends as the name does.

        Returns:
            The file's path.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f".{os.getpid()}-{name}"
        try:
            write(unfinished)
            self.check([name], made_of)
            self.note(name, made_of, digest(unfinished))
            os.replace(unfinished, self.folder / name)
        finally:
            unfinished.unlink(missing_ok=True)
        return self.folder / name

    def note(self, name: str, made_of: dict[str, Any], sha256: str | None = None) -> None:
        """Record a file that is about to be written; None for one whose content may still change."""
        entry = {"file": name, "sha256": sha256, "made_of": made_of}
        if self._entries.get(name) == entry:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / RECORD).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._entries[name] = entry

    def _read(self) -> dict[str, dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = {}
        path = self.folder / RECORD
        if not path.exists():
            return entries
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
            try:
                entry = json.loads(line)
                entries[entry["file"]] = {key: entry[key] for key in ("file", "sha256", "made_of")}
                entry["made_of"].keys()
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                if number > 1:  # torn by a computer that was switched off, or the end
                    continue
                raise DataError(
                    f"{path} is no record of drive-unet's: name another --out, or move the file elsewhere"
                ) from error
        return entries


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
