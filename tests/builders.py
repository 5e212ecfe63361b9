"""Small fake copies of DRIVE in any layout and encoding, for tests."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (58, 60)  # height, width
TRAINING, TEST = range(21, 41), range(1, 21)


def disc(size: tuple[int, int] = SIZE) -> np.ndarray:
    """A field of view: (H, W) bool, 69 % of the frame as in DRIVE."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    return np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) < 0.46 * width


def tree(number: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Vessels: (H, W) bool, a few thin lines that differ by number, none of them mirrored."""
    height, width = size
    mask = np.zeros(size, dtype=bool)
    row, column = height // 4 + number % 20, width // 4 + number % 13
    mask[row, width // 4 : width // 2] = True
    mask[height // 4 : 3 * height // 4, column] = True
    return mask & disc(size)


def photograph(number: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A fundus photograph: (H, W, 3) uint8, reddish in the field of view, vessels darker, and some noise."""
    rng = np.random.default_rng(number)
    light = np.linspace(1, 0.5, size[1])[:, None]  # uneven illumination, from left to right
    image = light * [190, 110, 60] + rng.integers(-9, 10, (*size, 3)) - 30 * tree(number, size)[..., None]
    return np.where(disc(size)[..., None], image, 2).astype(np.uint8)


def palette(mask: np.ndarray) -> Image.Image:
    """A palette image of {0, 1} whose colours have grey levels {3, 253}, as DRIVE's second observer is."""
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette([3, 3, 3, 253, 253, 253])  # makes it mode P
    return picture


def grey(bright: int, dtype: type = np.uint8) -> Callable[[np.ndarray], Image.Image]:
    """An encoder of masks as grey {0, bright}."""
    return lambda mask: Image.fromarray((mask * bright).astype(dtype))


def colour(bright: tuple[int, ...], dark: tuple[int, ...]) -> Callable[[np.ndarray], Image.Image]:
    """An encoder of masks as RGB or RGBA of two colours."""
    return lambda mask: Image.fromarray(np.where(mask[..., None], bright, dark).astype(np.uint8))


def one_bit(mask: np.ndarray) -> Image.Image:
    """A mask as an image of one bit a pixel."""
    return Image.fromarray(mask)


def write_split(
    folder: Path,
    split: str,
    numbers: Iterable[int],
    *,
    vessels: bool = True,
    fov: bool = True,
    second: bool = False,
    suffix: str = ".gif",
    encode: Callable[[np.ndarray], Image.Image] = grey(255),  # noqa: B008 (a constant)
) -> Path:
    """Write one split (images, 1st_manual, mask, 2nd_manual) into `folder`, named as DRIVE's files are."""
    for number in numbers:
        base = f"{number:02d}"
        files = {f"images/{base}_{split}.tif": Image.fromarray(photograph(number))}
        if vessels:
            files[f"1st_manual/{base}_manual1{suffix}"] = encode(tree(number))
        if fov:
            files[f"mask/{base}_{split}_mask{suffix}"] = encode(disc())
        if second:
            files[f"2nd_manual/{base}_manual2.gif"] = palette(tree(number + 1))
        for name, picture in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, optimize=False) if name.endswith(".gif") else picture.save(path)
    return folder


def write_drive(root: Path, *, test_labels: bool = False, test_name: str = "test", **options) -> Path:
    """Write a whole copy, today's official download by default: 20 and 20 photographs, no test labels."""
    write_split(root / "training", "training", TRAINING, **options)
    labels = {"vessels": test_labels, "second": test_labels}
    write_split(root / test_name, "test", TEST, **{**options, **labels})
    return root


def zipped(folder: Path, archive: Path, *, within: str | None = None) -> Path:
    """Zip a folder, with its own name (or `within`) in front of every path, as the official archives are."""
    prefix = folder.name if within is None else within
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                opened.write(
                    file, "/".join(part for part in (prefix, file.relative_to(folder).as_posix()) if part)
                )
    return archive


def arteries_and_veins(mask: np.ndarray) -> Image.Image:
    """A label as HRF's artery/vein annotation: red, green and blue on black, together all vessels."""
    colours = np.zeros((*mask.shape, 3), dtype=np.uint8)
    for channel in range(3):
        colours[channel::3, :, channel] = mask[channel::3] * np.uint8(255)
    return Image.fromarray(colours)


def write_files(root: Path, files: dict[str, np.ndarray | Image.Image]) -> Path:
    """Write pictures, or arrays as pictures, by their paths below a folder; truth values as {0, 255}."""
    for name, picture in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, np.ndarray):
            picture = Image.fromarray(picture if picture.dtype != bool else (picture * 255).astype(np.uint8))
        picture.save(path)
    return root


def write_dicom(
    path: Path, pixels: np.ndarray, kind: str = "RGB", stored: int = 8, *, deflated: bool = False
) -> Path:
    """Write a DICOM file of one frame, without compression or the whole deflated."""
    import pydicom

    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = getattr(
        pydicom.uid, "DeflatedExplicitVRLittleEndian" if deflated else "ExplicitVRLittleEndian"
    )
    header.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID
    header.Rows, header.Columns = pixels.shape[:2]
    header.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    header.PhotometricInterpretation, header.PixelRepresentation = kind, 0
    header.BitsAllocated, header.BitsStored, header.HighBit = pixels.itemsize * 8, stored, stored - 1
    if pixels.ndim == 3:
        header.PlanarConfiguration = 0
    header.PixelData = pixels.tobytes()
    header.save_as(path, enforce_file_format=True)
    return path


def png_of_16_bits(levels: np.ndarray, significant: int | None = None) -> bytes:
    """A PNG of (H, W, 2..4) uint16, which Pillow cannot write, or of (H, W); how many bits it says it has."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    height, width, channels = (*levels.shape, 1)[:3]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if significant is not None:
        parts.insert(1, (b"sBIT", bytes([significant] * channels)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
