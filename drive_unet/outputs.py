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
from threading import Lock
from typing import Any, BinaryIO

from drive_unet.errors import DataError
from drive_unet.files import nearest, refuse_unwritable, write_atomically

RECORD = "drive-unet.jsonl"  # a line a file or a photograph; of two lines for the same one the later holds


class Taken(DataError):
    """A file is there already and must not be replaced.

    Attributes:
        unlike: what it was made of another of, where that is why.
    """

    def __init__(self, words: str, unlike: Iterable[str] = ()) -> None:
        super().__init__(words)
        self.unlike = frozenset(unlike)


class Outputs:
    """What a command may write into a folder, which is made with the first file; threads may share it.

    Args:
        folder: to write to.
        overwrite: replace whatever is there.

    Attributes:
        rows: what was told of each photograph, by its name, by whatever run of the command.

    Raises:
        DataError: if the folder is a file, or has a record that is none.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        refuse_files_for_folders(folder)
        self.folder, self.overwrite, self._lock = folder, overwrite, Lock()
        self.read()

    def wrote(self, path: Path) -> bool:
        """Whether a file is the record, or was written by a command according to it."""
        folder, path = self.folder.resolve(), path.parent.resolve() / path.name
        if not path.is_relative_to(folder):
            return False
        name = path.relative_to(folder).as_posix()
        return name == RECORD or name in self._entries

    def check(self, names: Iterable[str], made_of: dict[str, Any]) -> bool:
        """Refuse to replace files that were not made of the same.

        Args:
            names: of the files to be written, with "/" between folders.
            made_of: input and settings, JSON types.

        Returns:
            Whether all of them are there already, made of the same and as they were written.

        Raises:
            Taken: naming the first that is there and is not so.
        """
        complete = True
        for name in names:
            path, entry, unlike = self.folder / name, self._entries.get(name), []
            if not os.path.lexists(path):
                complete = False
                continue
            if entry is None:
                why = "exists, and nothing says that this command wrote it"
            elif entry["made_of"] != made_of:
                keys = {*entry["made_of"], *made_of}
                unlike = sorted(k for k in keys if entry["made_of"].get(k) != made_of.get(k))
                why = f"exists, from a run that differs in {' and '.join(unlike)}"
            elif entry["sha256"] not in (None, digest(path)):
                why = "exists, and was changed after it had been written"
            else:
                complete = complete and entry["sha256"] is not None
                continue
            if not self.overwrite:
                raise Taken(f"{path} {why}: name another --out, or replace it with --overwrite", unlike)
            complete = False
        return complete

    def save(
        self,
        name: str,
        made_of: dict[str, Any],
        write: Callable[[BinaryIO], Any],
        facts: dict[str, Any] | None = None,
    ) -> Path:
        """Write a file, complete or not at all, and its record.

        Args:
            name: of the file, with "/" between folders.
            made_of: as for `check`, which is called again.
            write: called with a file opened for bytes.
            facts: what else is to be known of the file, see `facts`; JSON types.

        Returns:
            The file's path.

        Raises:
            Taken: as `check`.
            OSError: if it cannot be written.
        """
        path = self.folder / name

        def write_and_note(file: BinaryIO) -> None:
            write(file)
            file.flush()
            self.check([name], made_of)
            self.note(name, made_of, digest(Path(file.name)), facts)

        write_atomically(path, write_and_note)
        return path

    def note(
        self,
        name: str,
        made_of: dict[str, Any],
        sha256: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Record a file that is about to be written; None for one whose content may still change."""
        entry = {"file": name, "sha256": sha256, "made_of": made_of, "facts": facts or {}}
        if self._entries.get(name) != entry:
            self._append(entry)
            self._entries[name] = entry

    def tell(self, photograph: str, row: dict[str, Any]) -> None:
        """Record what came of a photograph."""
        if self.rows.get(photograph) != row:
            self._append({"photograph": photograph, "row": row})
            self.rows[photograph] = row

    def read(self) -> None:
        """Read the record, to which other processes may write as well."""
        self._entries: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        path = self.folder / RECORD
        self._torn = False  # whether the last line has no end
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                self._torn = not line.endswith(b"\n")
                try:
                    entry = json.loads(line)
                    if "photograph" in entry:
                        self.rows[entry["photograph"]] = dict(entry["row"])
                        continue
                    entry["made_of"].keys(), entry.setdefault("facts", {}).keys()
                    keys = ("file", "sha256", "made_of", "facts")
                    self._entries[entry["file"]] = {key: entry[key] for key in keys}
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                    if number > 1:  # torn by a computer that was switched off, or the end
                        continue
                    raise DataError(
                        f"{path} is no record of drive-unet's: name another --out, or move the file elsewhere"
                    ) from error

    def _append(self, entry: dict[str, Any]) -> None:
        with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            line = "\n" * self._torn + json.dumps(entry) + "\n"
            with (self.folder / RECORD).open("ab", buffering=0) as file:  # in one piece: others write too
                file.write(line.encode())
            self._torn = False


def refuse_files_for_folders(folder: Path) -> None:
    """Raise DataError if a folder that a command is to make is a file, or lies below one."""
    there = nearest(folder)
    if os.path.lexists(there) and not there.is_dir():
        raise DataError(f"{there} is a file, and can be no folder for what is written: name another")


def refuse_to_replace(paths: Iterable[Path | None], overwrite: bool) -> None:
    """Raise DataError, before anything is computed, if a file that a command is to write is there already.

    Args:
        paths: to be written; None for those that were not asked for.
        overwrite: replace files; folders and what lies below a file are refused all the same.
    """
    for path in filter(None, paths):
        refuse_unwritable(path)
        if path.is_file() and not overwrite:
            raise DataError(f"{path} exists: name another file, or replace it with --overwrite")


def facts(folder: Path) -> dict[str, dict[str, Any]]:
    """What is on record of the files in a folder, by name; nothing of those that were changed since.

    The record lies in the folder, or above it where a tree was written.
    """
    folder = folder.resolve()
    for root in (folder, *folder.parents):
        if (root / RECORD).is_file():
            break
    else:
        return {}
    try:
        entries = Outputs(root)._entries
    except DataError:  # somebody else's file of that name
        return {}
    return {
        file.name: entry["facts"]
        for name, entry in entries.items()
        if (file := root / name).parent == folder
        and file.is_file()
        and entry["sha256"] in (None, digest(file))
    }


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
