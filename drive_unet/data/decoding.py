"""From image files to pictures that are upright, whatever their mode and depth."""

from __future__ import annotations

import logging
import os
import stat
import struct
import warnings
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from PIL import Image

from drive_unet.data.dicom import is_dicom, read_dicom
from drive_unet.errors import DataError

MAX_PIXELS = 80_000_000  # of a file that is decoded; Pillow warns of 89 million and refuses twice as many
SPECIAL = "is no file but a pipe or a device, which may never end: name a file, or move it elsewhere"
_ORIENTATION, _BITS, _MAXIMUM = 0x0112, 258, 281  # tags of EXIF and TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _Silence:
    """Silences warnings and what is logged of TIFFs, mostly of odd metadata; what matters is raised.

    Both belong to the whole process, and two threads that each put back what they found may leave it
    silent. So the first one in silences, and the last one out puts back.
    """

    def __init__(self) -> None:
        self.lock, self.inside = Lock(), 0
        self.logs = [logging.getLogger(name) for name in ("tifffile", "PIL.TiffImagePlugin")]
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._alone)

    def _alone(self) -> None:
        """A forked process has none of the threads that were inside, so nobody else would put back."""
        self.lock = Lock()
        if self.inside:
            self.inside = 1
            self.__exit__()

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.caught = warnings.catch_warnings()
                self.caught.__enter__()
                warnings.simplefilter("ignore")
                self.disabled = [log.disabled for log in self.logs]
                for log in self.logs:
                    log.disabled = True
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                for log, disabled in zip(self.logs, self.disabled, strict=True):
                    log.disabled = disabled
                self.caught.__exit__(None, None, None)


_SILENCE = _Silence()


class Picture(NamedTuple):
    """A decoded image file, upright."""

    image: Image.Image
    deep: np.ndarray | None  # (H, W, 2..4) uint16 of 16-bit colour, of which Pillow keeps the upper bytes
    full: float | None  # the largest value that the file's format can hold, where the file tells it
    pages: int = 1  # pictures in the file, pages or frames, of which this is the first


def decode(path: str | Path) -> Picture:
    """The first frame of an image file, decoded and turned as its EXIF orientation says."""
    path = Path(path)
    if is_special(path):
        raise DataError(f"{path} {SPECIAL}")
    try:
        if is_dicom(path):
            with _SILENCE:
                levels, full, frames = read_dicom(
                    path, lambda width, height: _check_size(path, width, height)
                )
            colour = levels.ndim == 3
            deep = levels if colour and levels.dtype == np.uint16 else None
            grey = levels if not colour else (levels / (full / 255)).round().astype(np.uint8)
            return Picture(Image.fromarray(grey), deep, full, frames)
        with _SILENCE, Image.open(path) as picture:
            _check_size(path, picture.width, picture.height)
            if picture.format == "EPS":  # which is a program: another one would run it, were it for ever
                raise DataError(f"{path} holds PostScript, not pixels: save it as PNG or TIFF")
            deep, full = _deep(path, picture), _stated(path, picture)
            turn = _turn(picture)  # only now: it loads a PNG, which then no longer knows its depth
            picture.load()
            if turn is None or picture.format == "TIFF":  # which Pillow turns itself while it loads
                upright = picture.copy()
            else:
                upright = picture.transpose(turn)
            with_alpha(upright)  # which a palette with too many transparencies does not survive: said here
            pages = _pages(picture)  # last: looking for more, it leaves a damaged file at any page
        if deep is not None and turn is not None:
            channels = [Image.fromarray(deep[..., i]).transpose(turn) for i in range(deep.shape[-1])]
            deep = np.dstack([np.asarray(channel) for channel in channels])
        return Picture(upright, deep, full, pages)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{path} needs more memory than there is: close other programs, or save it smaller"
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: correct the path, or copy the file there") from error
    except PermissionError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}): give yourself permission to read it"
        ) from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, not an image: name the file") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except Image.UnidentifiedImageError as error:
        if held := _held_by_tiff(path):
            raise DataError(
                f"{path} is a TIFF of {held}, which cannot be read here: export it in whole numbers of 8 or "
                "16 bits"
            ) from error
        raise DataError(
            f"{path} is no image that can be read, or is cut off: copy or download the file again"
        ) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        raise DataError(f"{path} is cut off or damaged ({error}): copy or download the file again") from error


def _pages(picture: Image.Image) -> int:
    """How many pictures a file holds; 1 where what comes after the first is damaged."""
    try:
        return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)  # a JPEG and its preview
    except Exception:  # of damaged files, anything
        return 1


def is_special(path: Path) -> bool:
    """Whether there is something that is neither file nor folder, such as a pipe, which may never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # who reads it says it better
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(path)


def _too_large(path: Path) -> DataError:
    most = MAX_PIXELS // 10**6
    return DataError(f"{path} has more than {most} megapixels, as no fundus camera makes: save it smaller")


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What makes a picture upright; None for nothing."""
    try:
        return _TURNS.get(picture.getexif().get(_ORIENTATION, 0))
    except Exception:  # damaged metadata, beside which the picture itself may be whole
        return None


def _stated(path: Path, picture: Image.Image) -> float | None:
    """The largest value that a file says it holds, if it says more than that a sample fills 1 to 4 bytes."""
    if picture.format == "PNG":
        bits_used = _significant_bits(path)
        return 2.0**bits_used - 1 if bits_used > 8 else None
    tags = getattr(picture, "tag_v2", {})
    bits, maximum = tags.get(_BITS, ()), tags.get(_MAXIMUM, ())
    if isinstance(maximum, tuple):
        maximum = max(maximum, default=0)
    if bits and bits[0] % 8:
        return 2.0 ** bits[0] - 1
    return float(maximum) if maximum > 255 else None


def _significant_bits(path: Path) -> int:
    """How many bits a PNG's samples have by its chunk sBIT, which Pillow passes over; 0 if it has none."""
    with path.open("rb") as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind in (b"sBIT", b"IDAT"):
                return max(file.read(min(length, 4)), default=0) if kind == b"sBIT" else 0
            file.seek(length + 4, 1)  # 4 of a checksum
    return 0


def _deep(path: Path, picture: Image.Image) -> np.ndarray | None:
    """The (H, W, channels) uint16 of a 16-bit colour file, which Pillow cannot hold; None for all others."""
    layout = [
        tile[3] if isinstance(tile[3], str) else str(tile[3][0])
        for tile in getattr(picture, "tile", ())
        if tile[3]
    ]
    bits = getattr(picture, "tag_v2", {}).get(_BITS, ())  # as Pillow itself forgets of a plane for a colour
    if picture.mode.startswith("I") or not (any(";16" in each for each in layout) or 16 in bits):
        return None
    if picture.format == "PNG":
        return _deep_png(path, layout[0])
    if picture.format != "TIFF":
        return None
    import tifffile  # scikit-image needs it too

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            samples = picture.width * picture.height * page.samplesperpixel
            pieces = int(np.prod(page.chunked))  # strips or tiles
            if page.size != samples or len(page.dataoffsets) != pieces:  # or it may take hours
                raise DataError(f"{path} is damaged, its sizes differ: copy or download the file again")
            levels = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise DataError(
            f"{path} has 16 bits a colour and is compressed in a way that cannot be read here: save it as "
            "PNG, or as TIFF without compression"
        ) from error
    planar = levels.ndim == 3 and levels.shape[0] <= 4 < levels.shape[-1]
    return np.moveaxis(levels, 0, -1) if planar else levels


def _deep_png(path: Path, layout: str) -> np.ndarray:
    """The (H, W, channels) uint16 of a PNG of 16-bit colour, whose bytes Pillow takes one at a time.

    Ours rather than torchvision's `decode_png`, in which a damaged file ends the whole process.
    """

    def taken(layout: str) -> np.ndarray:
        with Image.open(path) as picture:
            picture.tile = [(*picture.tile[0][:3], layout)]  # type: ignore[list-item]
            return np.asarray(picture)

    if layout == "LA;16B":  # whose four bytes are as those of RGBA
        both = taken("RGBA").astype(np.uint16)
        return both[..., ::2] << 8 | both[..., 1::2]
    return taken(layout).astype(np.uint16) << 8 | taken(layout.replace("16B", "16L"))


def _held_by_tiff(path: Path) -> str:
    """What a TIFF that Pillow does not know holds, in words; empty for any other file, or a torn one."""
    import tifffile  # here: few files need it

    try:
        with _SILENCE, tifffile.TiffFile(path) as file:  # it prints what it finds of a torn file
            page = file.pages.first
            end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)))
            if page.dtype is None or end > path.stat().st_size:
                return ""
            return f"{page.dtype}, {page.samplesperpixel} a pixel"
    except Exception:  # of damaged files, anything
        return ""


def white(path: str | Path, levels: np.ndarray, stated: float | None) -> float:
    """The value that stands for white, see `drive_unet.data.reading.read_image`."""
    if levels.dtype == bool:
        return 1.0
    top, bottom = float(levels.max(initial=0)), float(levels.min(initial=0))
    if not np.isfinite(top - bottom):
        raise DataError(f"{path} holds values that are not numbers: export it with 8 or 16 bits a colour")
    if bottom < 0:
        raise DataError(
            f"{path} holds {bottom:g}, but brightness begins at 0: export it with 8 or 16 bits a colour"
        )
    if stated is not None and top <= stated:
        return stated
    depths = (1, 8, 16, 32, 64) if levels.dtype.kind == "f" else (1, 8, 10, 12, 14, 16)
    return next((2.0**depth - 1 for depth in depths if top <= 2.0**depth - 1), top)


def with_alpha(picture: Image.Image) -> Image.Image:
    """A picture of any mode with its transparency as a channel, which Pillow then drops without a word."""
    if picture.mode in ("La", "RGBa", "LA", "PA") or "transparency" in picture.info:
        return picture.convert("LA" if picture.mode == "La" else "RGBA").convert("RGBA")
    return picture


def grey_levels(picture: Picture) -> np.ndarray:
    """A picture's grey levels (H, W), in its own range; of a picture of one colour, its transparency."""
    image, deep = picture.image, picture.deep
    if image.mode in ("1", "L") or image.mode.startswith(("I", "F")):
        return np.asarray(image)
    if deep is not None:
        weights = (0.299, 0.587, 0.114) if deep.shape[-1] > 2 else (1.0,)
        grey = np.round(deep[..., : len(weights)] @ weights).astype(np.uint16)
        alpha = deep[..., -1] if deep.shape[-1] % 2 == 0 else grey
    else:
        image = with_alpha(image)
        grey = np.asarray(image.convert("RGB").convert("L"))
        alpha = np.asarray(image.getchannel("A")) if image.mode == "RGBA" else grey
    return grey if grey.min() < grey.max() or alpha.min() == alpha.max() else alpha
