"""Zip archives, unpacked into the cache: nothing outside the target, no bomb, complete or not at all.

Ours rather than `zipfile.extractall`, which limits no size and leaves half an archive behind when it fails.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from drive_unet.data.cache import cache_folder
from drive_unet.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".tif", ".tiff", ".gif", ".png", ".bmp", ".jpg", ".jpeg", ".ppm", ".pgm", ".webp", ".jp2", ".j2k"}
)
JUNK_FOLDERS = frozenset({"__macosx", "$recycle.bin", "@eadir"})

MAX_BYTES = 64 * 1024**3  # DRIVE unpacks to 70 MB, HRF to 1 GB, FIVES to 2 GB
_MAX_RATIO = 100  # a photograph hardly shrinks in a zip, and HRF's masks bring it to 16; bombs reach 1000
_RATIO_COUNTS_FROM = 1024**3  # bytes; labels alone may be very compressible, and less than this is no harm
_MAX_MEMBERS = 200_000


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is an operating system's litter: .DS_Store, ._x, __MACOSX."""
    return name.startswith(".") or name.lower() in JUNK_FOLDERS


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image: a known suffix in any case, and no litter."""
    return not is_junk(name) and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def unpack(archive: Path) -> Path:
    """Unpack the images of a zip archive into the cache, once; the same content is never unpacked twice.

    The archive's own folder is only read. A copy in the cache whose contents are not the archive's any more
    is made anew.

    Args:
        archive: the zip file.

    Returns:
        The folder in the cache that holds the archive's tree, reduced to its image files.

    Raises:
        DataError: if the file is no zip archive, is damaged or locked by a password, unpacks to something
            absurdly large or larger than the disk, names a link or a path outside the target, or if the cache
            cannot be written.
    """
    try:
        with archive.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{archive} cannot be read ({error.strerror or error}): check its name and its permissions"
        ) from error
    target = cache_folder() / "archives" / digest[:20]
    try:
        with zipfile.ZipFile(archive) as opened:
            wanted = _vetted(archive, opened)
            if not _intact(target, wanted):
                _extract(archive, opened, wanted, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, struct.error) as error:
        raise DataError(
            f"{archive} is not a complete zip archive (an interrupted download, or a web page saved under "
            "that name): download it again"
        ) from error
    except (NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{archive} uses a compression that cannot be read here: unpack it yourself and name the "
            "folder instead"
        ) from error
    return target


def _vetted(archive: Path, opened: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The archive's images by relative path, after a look at every member, wanted or not."""
    members = opened.infolist()
    size = sum(member.file_size for member in members)
    packed = max(1, archive.stat().st_size)
    if (
        size > MAX_BYTES
        or len(members) > _MAX_MEMBERS
        or (size > _RATIO_COUNTS_FROM and size > _MAX_RATIO * packed)
    ):
        raise DataError(
            f"{archive} would unpack to {len(members):,} files and {size / 1e6:,.0f} MB from "
            f"{packed / 1e6:,.1f} MB, as no dataset does: download the official archive"
        )
    wanted: dict[PurePosixPath, zipfile.ZipInfo] = {}
    seen: dict[str, str] = {}
    for member in members:
        # Windows tools write backslashes; `orig_filename` is the name before zipfile cleaned it.
        name = member.orig_filename.replace("\\", "/")
        parts = name.split("/")
        if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in name:
            raise DataError(
                f"{archive} holds {name!r}, a path outside its own folder, and was not unpacked: download "
                "the official archive"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(
                f"{archive} holds {name!r}, a link instead of a file, and was not unpacked: download the "
                "official archive"
            )
        path = PurePosixPath(name)
        if name.endswith("/") or not is_image(path.name) or any(is_junk(part) for part in path.parts):
            continue
        if member.flag_bits & 0x1:
            raise DataError(
                f"{archive} is locked with a password: unpack it yourself and name the folder instead"
            )
        if seen.setdefault(str(path).lower(), name) != name or path in wanted:
            raise DataError(f"{archive} holds {name!r} twice: download the official archive")
        wanted[path] = member
    for path in wanted:
        if any(parent in wanted for parent in path.parents):
            raise DataError(
                f"{archive} holds {str(path.parent)!r} as a file and as a folder: download the official "
                "archive"
            )
    if not wanted:
        raise DataError(
            f"{archive} holds no images (DRIVE's archives hold training/images and test/images): if there "
            "are zip files inside it, unpack it once and name the folder"
        )
    return wanted


def _intact(target: Path, wanted: dict[PurePosixPath, zipfile.ZipInfo]) -> bool:
    """Whether everything wanted lies in the target, by size and checksum."""
    try:
        return all(
            (target / path).stat().st_size == member.file_size and _checksum(target / path) == member.CRC
            for path, member in wanted.items()
        )
    except OSError:
        return False


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _extract(
    archive: Path, opened: zipfile.ZipFile, wanted: dict[PurePosixPath, zipfile.ZipInfo], target: Path
) -> None:
    """Write the wanted members beside the target, then put the whole in place with one rename."""
    work = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        size, free = sum(m.file_size for m in wanted.values()), shutil.disk_usage(target.parent).free
        if size > free:
            raise DataError(
                f"{archive} would unpack to {size / 1e6:,.0f} MB, but {target.parent} has "
                f"{free / 1e6:,.0f} MB left: make room, or set the environment variable DRIVE_UNET_CACHE to "
                "a folder on another disk"
            )
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        for path, member in wanted.items():
            file = work / "set" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as source, file.open("xb") as sink:
                sink.writelines(_blocks(source))
        if target.exists():  # damaged since, or just made by another process: either way this one is whole
            os.replace(target, work / "damaged")
        try:
            os.replace(work / "set", target)
        except OSError:
            if not _intact(target, wanted):  # else another process was quicker
                raise
    except OSError as error:
        raise DataError(
            f"{archive} cannot be unpacked into the cache folder {target.parent} "
            f"({error.strerror or error}): set the environment variable DRIVE_UNET_CACHE to a folder that "
            "can be written, or unpack it yourself and name the folder"
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _blocks(source: IO[bytes]) -> Iterator[bytes]:
    """What is in a member of an archive; BadZipFile where that is damaged, whatever else is raised."""
    while True:
        try:
            block = source.read(1 << 20)
        except Exception as error:  # zlib.error, OSError of bzip2, LZMAError
            raise zipfile.BadZipFile(str(error)) from error
        if not block:
            return
        yield block


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed while they unpacked left there more than a day ago."""
    for left in folder.glob(".*-*"):
        try:
            if time.time() - left.stat().st_mtime > 24 * 3600:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:  # gone meanwhile
            pass
