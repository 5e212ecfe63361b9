"""Photographs in DICOM files, as hospitals keep them; pydicom reads them, which comes as an extra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from drive_unet.errors import DataError


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM, whatever its name; False for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (OSError, ValueError):
        return False


def read_dicom(path: Path, check_size: Callable[[int, int], None]) -> tuple[np.ndarray, float, int]:
    """The pixels of the first frame of a DICOM file.

    Args:
        path: of the file.
        check_size: called with width and height before anything is decoded; raises DataError for too many.

    Returns:
        (H, W) or (H, W, 3) uint8 or uint16, grey from black to white or RGB; the value that stands for white;
        and how many frames the file says it holds.

    Raises:
        DataError: if pydicom is not installed, or the file holds no picture that it can read, or one that is
            too large.
    """
    try:
        import pydicom
    except ImportError as error:
        raise DataError(
            f"{path} is a DICOM file, which needs pydicom: pip install 'drive-unet[dicom]'"
        ) from error
    from pydicom.pixels import apply_color_lut, pixel_array

    try:
        header = pydicom.dcmread(path)
        check_size(int(header.Columns), int(header.Rows))  # of one frame, and no other is decoded
        kind, frames = header.PhotometricInterpretation, int(header.get("NumberOfFrames") or 1)
        levels = pixel_array(header, index=0)  # of YBR it makes RGB
        if kind == "PALETTE COLOR":
            levels = apply_color_lut(levels, header)
            return levels, float(np.iinfo(levels.dtype).max), frames
        full = float(2**header.BitsStored - 1)
        if header.get("PixelRepresentation", 0):  # signed
            levels = levels.astype(np.int64) + 2 ** (header.BitsStored - 1)
        levels = levels.astype(np.uint8 if full <= 255 else np.uint16)
        levels = np.asarray(full - levels, levels.dtype) if kind == "MONOCHROME1" else levels
        return levels, full, frames
    except (DataError, MemoryError):  # the caller tells of it
        raise
    except Exception as error:  # pydicom raises what its decoders raise
        raise DataError(
            f"{path} is a DICOM file without a picture that can be read ({_short(error)})"
        ) from error


def _short(error: Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
