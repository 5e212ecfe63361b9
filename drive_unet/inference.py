"""From a photograph to the probability of vessel at every pixel, at the photograph's own size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from drive_unet.data.dataset import DRIVEDataset, Sample
from drive_unet.data.reading import read_image
from drive_unet.models import SegmentationModel
from drive_unet.preprocessing.photographs import detect_fov, standardise

FLIPS = ((), (-1,), (-2,), (-2, -1))  # as it is, left-right, upside down, both
LARGE = 4_000_000  # pixels; a larger photograph is cut into tiles unless told otherwise
OVERLAP = 128  # pixels that neighbouring tiles share, about as far as a trained network looks

Photograph = Sample | Tensor | np.ndarray | Image.Image | str | Path


class Segmentation(NamedTuple):
    """What `segment` finds: probability (H, W) float32 0..1, vessels (H, W) bool, fov (H, W) bool."""

    probability: np.ndarray
    vessels: np.ndarray
    fov: np.ndarray


def predict(
    model: SegmentationModel,
    image: Photograph,
    *,
    tta: bool = False,
    tile: int | None = None,
    overlap: int = OVERLAP,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Probability of vessel at every pixel of one photograph.

    Args:
        model: a network of this package, or any that maps (B, 3, H, W) in 0..1 to logits (B, 1, H, W).
        image: a `Sample`, a (3, H, W) tensor (float 0..1 or uint8), an (H, W, 3) uint8 array, a Pillow
            image, or a path.
        tta: average over four flips (test-time augmentation); four times the work.
        tile: side of overlapping tiles in pixels; by default the whole image at once up to 4 megapixels,
            tiles of 1024 beyond. Standardisation always sees the whole photograph.
        overlap: pixels that neighbouring tiles share, at least; blended.
        device: where to compute; by default where the model is.

    Returns:
        (H, W) float32, 0..1.

    Raises:
        ValueError: for an image of another shape, or an overlap that leaves too little of the tile.
        DataError: for a path that cannot be read.
    """
    flips = _flip_probabilities(model, as_batch(image), FLIPS if tta else FLIPS[:1], tile, overlap, device)
    return flips.mean(dim=0).numpy()


def predict_flips(
    model: SegmentationModel, image: Photograph, *, device: str | torch.device | None = None
) -> np.ndarray:
    """The four flipped predictions, turned back: (4, H, W) float32. Their spread shows doubt."""
    return _flip_probabilities(model, as_batch(image), FLIPS, None, OVERLAP, device).numpy()


def predict_all(
    model: SegmentationModel,
    dataset: DRIVEDataset,
    *,
    tta: bool = False,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> list[np.ndarray]:
    """Probability maps, (H, W) float32 each, of every photograph of a dataset, in its order.

    The dataset's transform is left out: a score belongs to the photograph as it was taken.
    """
    samples = dataset.subset(dataset.names, transform=None)
    return [
        predict(model, samples[index], tta=tta, device=device)
        for index in tqdm(range(len(samples)), desc="predicting", unit="image", disable=not progress)
    ]


def segment(
    model: SegmentationModel,
    photograph: Photograph,
    *,
    tta: bool = True,
    threshold: float | None = None,
    fov: np.ndarray | None = None,
    device: str | torch.device | None = None,
) -> Segmentation:
    """Vessels of a photograph from any camera, brought to the scale that the network knows and back.

    Args:
        model: a trained network.
        photograph: as for `predict`.
        tta: average over four flips.
        threshold: probability at and above which a pixel is vessel; by default the network's own, for
            one pass or for flips.
        fov: (H, W) bool; found in the photograph by default.
        device: where to compute; by default where the model is.

    Returns:
        Maps of the photograph's own size; no vessel outside the FOV.
    """
    batch = as_batch(photograph).cpu()
    if fov is None:
        fov = detect_fov((batch[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    columns = np.flatnonzero(fov.any(axis=0))
    scale = model.fov_width / (columns[-1] - columns[0] + 1) if len(columns) else 1.0
    height, width = batch.shape[-2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    resized = F.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
    small = torch.from_numpy(predict(model, resized[0], tta=tta, device=device))[None, None]
    probability = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
    probability = np.where(fov, probability, 0).astype(np.float32)
    return Segmentation(
        probability, probability >= (model.threshold_for(tta) if threshold is None else threshold), fov
    )


def as_batch(image: Photograph) -> Tensor:
    """Any kind of photograph as a (1, 3, H, W) float32 tensor in 0..1 on its own device."""
    if isinstance(image, Sample):
        image = image.image
    elif isinstance(image, str | Path):
        image = read_image(image)
    elif isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an array must be (H, W, 3) uint8, this one is {image.shape} {image.dtype}")
        image = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # a copy: Pillow's arrays are read-only
    if not isinstance(image, Tensor) or image.ndim != 3:
        raise ValueError(
            f"expected one photograph, (C, H, W), not {getattr(image, 'shape', type(image).__name__)}"
        )
    image = image.as_subclass(Tensor)
    return (image.float() / 255 if image.dtype == torch.uint8 else image.float())[None]


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside the block; the model's mode is as before afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def _flip_probabilities(
    model: SegmentationModel,
    batch: Tensor,
    flips: tuple[tuple[int, ...], ...],
    tile: int | None,
    overlap: int,
    device: str | torch.device | None,
) -> Tensor:
    """One map a flip, (len(flips), H, W) float32 on the CPU."""
    device = torch.device(device) if device is not None else next(model.parameters()).device
    height, width = batch.shape[-2:]
    if tile is None and height * width > LARGE:
        tile = 1024
    if tile is not None and not 0 <= overlap < tile:
        raise ValueError(f"overlap {overlap} must be 0 or more and smaller than the tile, {tile}")
    model.to(device)
    with evaluating(model):
        batch = batch.to(device)
        if tile is None or (height <= tile and width <= tile):
            maps = [torch.sigmoid(model(batch.flip(axes)).float()).flip(axes)[0, 0] for axes in flips]
        else:
            if tile - overlap < getattr(model, "multiple", 1):
                raise ValueError(
                    f"tile {tile} less overlap {overlap} must be {model.multiple} or more, "
                    "the step of the network's grid"
                )
            standardised = standardise(batch)
            maps = [_tiled(model, standardised.flip(axes), tile, overlap).flip(axes)[0, 0] for axes in flips]
        return torch.stack(maps).cpu()


def _tiled(model: SegmentationModel, standardised: Tensor, tile: int, overlap: int) -> Tensor:
    """Blend overlapping tiles with weights that fall off over the overlap; (1, 1, H, W)."""
    height, width = standardised.shape[-2:]
    multiple = getattr(model, "multiple", 1)
    total = standardised.new_zeros((1, 1, height, width))
    weight = torch.zeros_like(total)
    for top in _starts(height, tile, overlap, multiple):
        for left in _starts(width, tile, overlap, multiple):
            part = standardised[..., top : top + tile, left : left + tile]
            blend = _ramp(part.shape[-2], overlap, part.device)[:, None] * _ramp(
                part.shape[-1], overlap, part.device
            )
            window = (..., slice(top, top + tile), slice(left, left + tile))
            total[window] += torch.sigmoid(model.logits(part).float()) * blend
            weight[window] += blend
    return total / weight


def _starts(length: int, tile: int, overlap: int, multiple: int) -> list[int]:
    """Where tiles begin: on the grid of the network's pooling, so that they pool as the whole does."""
    step = max((tile - overlap) // multiple, 1) * multiple
    return list(range(0, max(length - tile, 0) + step, step))


def _ramp(length: int, overlap: int, device: torch.device) -> Tensor:
    position = torch.arange(length, device=device) + 1.0
    return (
        torch.minimum(position, position.flip(0)).clamp(max=overlap + 1) ** 2
    )  # a tile knows least at its rim
