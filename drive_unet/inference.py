"""From a photograph to the probability of vessel at every pixel, at the photograph's own size.

Every function here takes the whole way: `prepare`, the network, `Prepared.restore`. Tiles are ours rather
than MONAI's sliding windows, against which they are tested: they begin on the grid of the network's pooling,
and MONAI would be a heavy dependency.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drive_unet.data.beside import fov_beside
from drive_unet.data.reading import read_image
from drive_unet.models import evaluating, fused, logits_of, refuse_no_network
from drive_unet.preprocessing.fov import width_of
from drive_unet.preprocessing.prepare import Prepared, prepare
from drive_unet.preprocessing.rim import Rim
from drive_unet.progress import bar

if TYPE_CHECKING:  # they load torchvision, which takes as long as all the rest
    from PIL import Image

    from drive_unet.data.dataset import DRIVEDataset
    from drive_unet.data.reading import Decoded
    from drive_unet.data.sample import Sample

FLIPS = ((), (-1,), (-2,), (-2, -1))  # as it is, left-right, upside down, both
ZOOMS = (1.0, 1.25, 1.25, 1.0)  # the two mirror images are seen a quarter larger
WIDEST = 1200  # pixels across a field of view that is enlarged; networks have seen no wider ones
LARGE = 4_000_000  # pixels at the network's scale; a larger picture is cut into tiles unless told otherwise
ANGLES = (5.0, 200.0)  # degrees; fundus cameras show 20 to 200
OVERLAP = 128  # pixels that neighbouring tiles share; fewer show more of the seams (notebook 06)

AnyPhotograph: TypeAlias = "Sample | Decoded | Tensor | np.ndarray | Image.Image | str | Path"


class Segmentation(NamedTuple):
    """What `segment` gives: probability (H, W) float32 0..1, vessels (H, W) bool, fov (H, W) bool."""

    probability: np.ndarray
    vessels: np.ndarray
    fov: np.ndarray


def predict(
    model: nn.Module,
    photograph: AnyPhotograph,
    *,
    fov: np.ndarray | None = None,
    tta: bool = False,
    tile: int | None = None,
    overlap: int = OVERLAP,
    field_of_view: float | None = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Probability of vessel at every pixel of one photograph, from any camera and of any size.

    Args:
        model: a network of this package, or any that maps (B, 3, H, W) float, standardised, to logits
            (B, 1, H, W); it stays where and as it is.
        photograph: a `Sample`, a (3, H, W) tensor (float 0..1 or uint8), an (H, W, 3) uint8 array, a Pillow
            image, or a path.
        fov: (H, W) bool; by default a sample's own, or of a path the mask in fov/ or mask/ beside images/,
            else found in the photograph.
        tta: average over four flips (test-time augmentation), the two mirror images a quarter larger, unless
            the network would then see the field of view wider than 1,200 pixels; up to five times the work.
        tile: side of overlapping tiles in pixels, at the network's scale; by default the whole picture at
            once up to 4 megapixels, tiles of 1024 beyond.
        overlap: pixels that neighbouring tiles share, at least; blended.
        field_of_view: angle of the camera, 5 to 200 degrees, by which the scale is chosen; None takes it for
            45.
        device: where to compute; by default where the model is.

    Returns:
        (H, W) float32, 0..1; 0 outside the field of view.

    Raises:
        ValueError: for an image of another shape, an overlap that leaves too little of the tile, or another
            angle.
        FloatingPointError: if the network's answer is not a number somewhere.
        DataError: for a path that cannot be read, a photograph that shows no field of view, or a network
            whose answer is anything but logits of its size.
    """
    run = Segmenter(model, tta=tta, tile=tile, overlap=overlap, field_of_view=field_of_view, device=device)
    return run(photograph, fov).probability


def predict_flips(
    model: nn.Module,
    photograph: AnyPhotograph,
    *,
    fov: np.ndarray | None = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """The predictions of four flips, turned and brought back: (4, H, W) float32. Their spread shows doubt."""
    run = Segmenter(model, tta=True, device=device)
    prepared = run.prepare(photograph, fov)
    return prepared.restore(believed(run.flips([prepared])[:, 0], prepared, run.threshold))


def predict_all(
    model: nn.Module,
    dataset: DRIVEDataset,
    *,
    tta: bool = False,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> list[np.ndarray]:
    """Probability maps, (H, W) float32 each, of every photograph of a dataset, in its order.

    The dataset's transform is left out: a score belongs to the photograph as it was taken. For more
    photographs than memory holds maps of, see `predict_each`.
    """
    return list(predict_each(model, dataset, tta=tta, device=device, progress=progress))


def predict_each(
    model: nn.Module,
    dataset: DRIVEDataset,
    *,
    tta: bool = False,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Iterator[np.ndarray]:
    """The maps of `predict_all` one after the other, so that only one is in memory."""
    run = Segmenter(model, tta=tta, device=device)
    for index in bar(range(len(dataset)), desc="predicting", unit="image", shown=progress):
        try:
            result = run(dataset.stored(index))
        except FloatingPointError as error:
            raise FloatingPointError(f"{dataset.names[index]}: {error}") from error
        yield result.probability


def segment(
    model: nn.Module,
    photograph: AnyPhotograph,
    *,
    fov: np.ndarray | None = None,
    tta: bool = False,
    threshold: float | None = None,
    field_of_view: float | None = None,
    device: str | torch.device | None = None,
) -> Segmentation:
    """Vessels of one photograph, from any camera and of any size.

    Args:
        model, photograph, fov, tta, field_of_view, device: as for `predict`.
        threshold: probability at and above which a pixel is vessel; by default the network's own, for one
            pass or for flips, and 0.5 for a network that has none.

    Returns:
        Maps of the photograph's own size; no vessel outside the FOV.
    """
    run = Segmenter(model, tta=tta, threshold=threshold, field_of_view=field_of_view, device=device)
    return run(photograph, fov)


def believed(maps: Tensor, prepared: Prepared, threshold: float) -> Tensor:
    """Maps (n, h, w) of a photograph without the vessels that networks see in its rim; see `Rim`.

    The threshold is that of their mean.

    Raises:
        FloatingPointError: if a map is not a number somewhere.
    """
    if torch.isnan(maps).any():
        raise FloatingPointError(
            "the network's answer is not a number (NaN) in places: its weights are damaged, or came of a "
            "training that failed, so take others"
        )
    rim = Rim(prepared.fov[0].numpy() > 0)
    maps = torch.stack([each * torch.from_numpy(rim.belief(each.numpy())) for each in maps])
    return maps * torch.from_numpy(rim.limit(maps.mean(dim=0).numpy(), threshold))


class Segmenter:
    """A network made ready once, for any number of photographs; the caller's own is left alone.

    Called with a photograph and perhaps its field of view it is `segment`. Its steps, `prepare`, `maps` and
    `finish`, can be called one by one, so that reading, the network and writing overlap; `prepare` and
    `finish` may run in threads.

    Args:
        model, tta, threshold, device: as for `segment`.
        tile, overlap, field_of_view: as for `predict`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        tta: bool = False,
        threshold: float | None = None,
        tile: int | None = None,
        overlap: int = OVERLAP,
        field_of_view: float | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if field_of_view is not None and not ANGLES[0] <= field_of_view <= ANGLES[1]:
            raise ValueError(
                f"field_of_view {field_of_view:g} is no angle of a fundus camera, {ANGLES[0]:g} to "
                f"{ANGLES[1]:g} degrees: give the one in its manual, or none"
            )
        refuse_no_network(model)
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold:g} is no probability: choose one of 0 to 1")
        self.preprocessing = getattr(model, "preprocessing", None)
        self.multiple = getattr(model, "multiple", 1)
        self.steps = 1 if hasattr(model, "multiple") else 32  # of enlarged sides: other networks may not pad
        if threshold is None:
            own = getattr(model, "threshold_for", None)
            threshold = 0.5 if own is None else own(tta)
        self.threshold = threshold
        self.views = list(zip(FLIPS, ZOOMS, strict=True))[: None if tta else 1]
        self.tile, self.overlap, self.field_of_view = tile, overlap, field_of_view
        parameter = next(model.parameters(), torch.empty(0))
        self.device = torch.device(device) if device is not None else parameter.device
        self.model = fused(model).to(self.device)

    def __call__(self, photograph: AnyPhotograph, fov: np.ndarray | None = None) -> Segmentation:
        prepared = self.prepare(photograph, fov)
        return self.finish(prepared, *self.maps([prepared]))

    def prepare(self, photograph: AnyPhotograph, fov: np.ndarray | None = None) -> Prepared:
        """What the network is given of a photograph."""
        if isinstance(photograph, str | Path):
            path = Path(photograph).expanduser()
            photograph = read_image(path)
            fov = fov_beside(path, photograph) if fov is None else fov
        return prepare(photograph, fov, self.preprocessing, self.field_of_view)

    def maps(self, photographs: Sequence[Prepared]) -> list[Tensor]:
        """Probability (h, w) float32 at the network's scale for each; those of one kind in one batch."""
        alike: dict[tuple[torch.Size, bool], list[int]] = {}
        for index, prepared in enumerate(photographs):
            alike.setdefault((prepared.image.shape, _enlarged(prepared)), []).append(index)
        maps: list[Tensor] = [torch.empty(0)] * len(photographs)
        for indices in alike.values():
            flips = self.flips([photographs[index] for index in indices])
            for position, index in enumerate(indices):
                maps[index] = believed(flips[:, position], photographs[index], self.threshold).mean(dim=0)
        return maps

    def finish(self, prepared: Prepared, probability: Tensor) -> Segmentation:
        """The segmentation of a photograph in its own pixels, from its map."""
        native = prepared.restore(probability)
        return Segmentation(native, (native >= self.threshold) & prepared.native_fov, prepared.native_fov)

    def flips(self, photographs: Sequence[Prepared]) -> Tensor:
        """One map a flip of photographs of one size, (flips, B, h, w) float32 on the CPU, rims and all.

        All are seen as the first one is: `maps` gives it photographs that are alike.
        """
        batch = torch.stack([prepared.image for prepared in photographs])
        views = [(axes, zoom if _enlarged(photographs[0]) else 1.0) for axes, zoom in self.views]
        with torch.inference_mode(), evaluating(self.model):
            return torch.stack([self._view(batch, axes, zoom)[:, 0] for axes, zoom in views])

    def _view(self, batch: Tensor, axes: tuple[int, ...], zoom: float) -> Tensor:
        """Probabilities (B, 1, h, w) of images that the network sees flipped and enlarged."""
        size = batch.shape[-2:]
        seen = batch.flip(axes)
        if zoom == 1:
            return self._whole_or_tiled(seen).flip(axes)
        larger = [round(side * zoom / self.steps) * self.steps or self.steps for side in size]
        seen = F.interpolate(seen, size=larger, mode="bicubic")
        answer = self._whole_or_tiled(seen)
        return F.interpolate(answer, size=size, mode="bilinear", antialias=True).flip(axes)

    def _whole_or_tiled(self, batch: Tensor) -> Tensor:
        """Probabilities (B, 1, h, w), on the CPU, of images (B, C, h, w) that are there."""
        batch = batch.to(self.device)
        height, width = batch.shape[-2:]
        tile = 1024 if self.tile is None and height * width > LARGE else self.tile
        if tile is not None and not 0 <= self.overlap < tile:
            raise ValueError(f"overlap {self.overlap} must be 0 or more and smaller than the tile, {tile}")
        if tile is None or (height <= tile and width <= tile):
            return self._answer(batch).cpu()
        if tile - self.overlap < self.multiple:
            raise ValueError(
                f"tile {tile} less overlap {self.overlap} must be {self.multiple} or more, "
                "the step of the network's grid"
            )
        return self._tiled(batch, tile).cpu()

    def _answer(self, batch: Tensor) -> Tensor:
        """The network's probabilities, (B, 1, h, w), for images (B, C, h, w)."""
        return torch.sigmoid(logits_of(self.model, batch).float())

    def _tiled(self, batch: Tensor, tile: int) -> Tensor:
        """Blend overlapping tiles with weights that fall off over the overlap; (B, 1, h, w)."""
        height, width = batch.shape[-2:]
        total = batch.new_zeros((len(batch), 1, height, width))
        weight = batch.new_zeros((1, 1, height, width))
        for top in _starts(height, tile, self.overlap, self.multiple):
            for left in _starts(width, tile, self.overlap, self.multiple):
                part = batch[..., top : top + tile, left : left + tile]
                rows, columns = (_ramp(side, self.overlap, part.device) for side in part.shape[-2:])
                blend = rows[:, None] * columns
                window = (..., slice(top, top + tile), slice(left, left + tile))
                total[window] += self._answer(part) * blend
                weight[window] += blend
        return total / weight


def _enlarged(prepared: Prepared) -> bool:
    """Whether its mirror images are seen larger than the photograph itself."""
    scale = prepared.image.shape[-1] / prepared.native_fov.shape[-1]
    return max(ZOOMS) * scale * width_of(prepared.native_fov) <= WIDEST


def _starts(length: int, tile: int, overlap: int, multiple: int) -> list[int]:
    """Where tiles begin: on the grid of the network's pooling, so that they pool as the whole does."""
    step = max((tile - overlap) // multiple, 1) * multiple
    return list(range(0, max(length - tile, 0) + step, step))


def _ramp(length: int, overlap: int, device: torch.device) -> Tensor:
    position = torch.arange(length, device=device) + 1.0  # squared: a tile knows least at its rim
    return torch.minimum(position, position.flip(0)).clamp(max=overlap + 1) ** 2
