"""The one way from a photograph to the input of a network, and back to the photograph's own pixels.

`prepare` alone decides the field of view, the scale and the standardisation. Training, validation,
evaluation, prediction and the command line go through it, or through the steps that it is made of: training
cuts its patches out of photographs that `rescale` brought to scale, and standardises each patch by its whole
photograph (`drive_unet.preprocessing.levels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.special import expit, logit
from torch import Tensor

from drive_unet.errors import DataError
from drive_unet.preprocessing.fov import detect_fov, refuse_other_size, width_of

_SURE = np.float32(1e-4)  # nearer to 0 and 1 a probability says no more
DEGREES = 45.0  # that the camera of DRIVE sees, across the field of view


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input: one record, which travels with the weights.

    Attributes:
        fov_width: pixels across the field of view of the photographs that the network learned from; 540 in
            DRIVE.
        finest: the same at the finest scale that it learned from; None is `fov_width` itself. A photograph
            between the two keeps its own pixels, a larger one is reduced to the finest.
        tolerance: relative difference from those widths within which nothing is resampled either.
        surround: None standardises over the field of view. A number, the brightness 0..1 of the brightest
            channel up to which a pixel is dark surround, standardises over all that is brighter, as the
            weights were taught that carry one.
    """

    fov_width: int = 540
    finest: int | None = None
    tolerance: float = 0.1
    surround: float | None = None

    def scale(self, fov: np.ndarray, degrees: float | None = None) -> float:
        """The magnification that a photograph needs; 1.0 for none.

        Args:
            fov: (H, W) bool, its field of view.
            degrees: angle of the camera; None takes it for 45, DRIVE's, so that a vessel is as wide as there.
        """
        width = width_of(fov)
        if not width:
            return 1.0
        angle = (degrees or DEGREES) / DEGREES
        scale = min(max(width, self.fov_width * angle), (self.finest or self.fov_width) * angle) / width
        return 1.0 if abs(scale - 1) <= self.tolerance else scale


class Prepared(NamedTuple):
    """A photograph as a network gets it, and the way back.

    Attributes:
        image: (3, h, w) float32, every channel of mean 0 and standard deviation 1 over the field of view, 0
            outside.
        fov: (1, h, w) uint8 in {0, 1}, the field of view at the network's scale.
        native_fov: (H, W) bool, the field of view in the photograph's own pixels.
    """

    image: Tensor
    fov: Tensor
    native_fov: np.ndarray

    def restore(self, probability: Tensor | np.ndarray) -> np.ndarray:
        """Maps (..., h, w) float in the photograph's own pixels, (..., H, W) float32; 0 outside the FOV.

        Between the pixels of a smaller map it is the log odds that change evenly, as what a network says
        does across the wall of a vessel. Between probabilities, which are cut off at 0 and 1, vessels would
        come out wider.
        """
        maps = np.asarray(probability, dtype=np.float32)
        height, width = self.native_fov.shape
        if maps.shape[-2:] != (height, width):
            planes = maps.reshape(-1, *maps.shape[-2:])
            enlarged = height * width > planes.shape[-2] * planes.shape[-1]
            planes = logit(planes.clip(_SURE, 1 - _SURE)) if enlarged else planes
            resized = np.stack(
                [
                    np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
                    for plane in planes
                ]
            )
            resized = expit(resized) if enlarged else resized.clip(0, 1)
            maps = resized.reshape(*maps.shape[:-2], height, width)
        return np.where(self.native_fov, maps, np.float32(0))


def prepare(
    photograph: Any,
    fov: np.ndarray | Tensor | None = None,
    preprocessing: Preprocessing | None = None,
    degrees: float | None = None,
) -> Prepared:
    """Bring a photograph of any size to what a network expects.

    Args:
        photograph: (H, W, 3) uint8, a Pillow image, a (3, H, W) tensor, uint8 or float in 0..1 (which is
            rounded to 8 bits), or a sample with such an `image` and perhaps a `fov`.
        fov: (H, W) or (1, H, W), bool or {0, 1}; None takes the sample's, else finds it in the photograph.
        preprocessing: the network's record, ``model.preprocessing``; None for the defaults.
        degrees: angle of the camera, where it is known to be another than 45 degrees.

    Returns:
        The prepared photograph.

    Raises:
        ValueError: for another kind of photograph, a field of view of another size, or an angle of 0 or less.
        DataError: if the photograph shows no field of view.

    Example:
        >>> y, x = np.mgrid[:600, :600]
        >>> disc = np.hypot(y - 300, x - 300) < 270
        >>> photograph = (disc[..., None] * np.array([180, 90, 40])).astype(np.uint8)
        >>> prepared = prepare(photograph, disc)
        >>> prepared.restore(torch.ones(600, 600)).shape == disc.shape
        True
    """
    image = as_photograph(photograph)
    fov = getattr(photograph, "fov", None) if fov is None else fov
    if fov is None:
        fov = detect_fov(image)
    else:
        fov = np.asarray(fov)
        fov = (fov[0] if fov.ndim == 3 else fov).astype(bool)
        refuse_other_size(fov, image)
    if degrees is not None and not 0 < degrees < float("inf"):
        raise ValueError(f"degrees={degrees}: a camera's angle is more than 0")
    preprocessing = preprocessing or Preprocessing()
    scale = preprocessing.scale(fov, degrees)
    small_fov = torch.from_numpy(rescale_mask(fov, scale).astype(np.uint8))[None]
    pixels = torch.from_numpy(np.ascontiguousarray(rescale(image, scale).transpose(2, 0, 1))).float() / 255
    lit = small_fov if preprocessing.surround is None else pixels.amax(dim=0) > preprocessing.surround
    return Prepared(standardise(pixels, lit), small_fov, fov)


def as_photograph(photograph: Any) -> np.ndarray:
    """A photograph of any kind that `prepare` takes, as (H, W, 3) uint8, RGB.

    Example:
        >>> as_photograph(torch.ones(3, 4, 5)).shape
        (4, 5, 3)
    """
    image = getattr(photograph, "image", photograph)
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"expected one photograph, (3, H, W), not {tuple(image.shape)}")
        image = image.detach().cpu().as_subclass(Tensor)
        if image.is_floating_point():
            # Compared so that nan is refused too. A hair's breadth outside 0..1 is interpolation.
            if not (image.min() >= -0.01 and image.max() <= 1.01):
                raise ValueError("a photograph of floats lies in 0..1: divide 0..255 by 255")
            image = (image.float() * 255).round().clamp(0, 255).to(torch.uint8)
        image = image.permute(1, 2, 0).numpy()
    if not isinstance(image, np.ndarray):
        raise ValueError(f"expected one photograph, (H, W, 3) uint8, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an array must be (H, W, 3) uint8, this one is {image.shape} {image.dtype}")
    if 0 in image.shape:
        raise DataError(f"the photograph has no pixels, its shape is {image.shape}: check the file")
    return image


def rescale(image: np.ndarray, scale: float) -> np.ndarray:
    """A photograph (H, W, 3) uint8 magnified by `scale`, antialiased; itself where that is 1.

    Example:
        >>> rescale(np.zeros((100, 80, 3), np.uint8), 0.5).shape
        (50, 40, 3)
    """
    if scale == 1:
        return image
    return np.asarray(Image.fromarray(image).resize(_size(image, scale), Image.Resampling.BILINEAR))


def rescale_mask(mask: np.ndarray, scale: float) -> np.ndarray:
    """A mask (H, W) bool magnified by `scale`: true where at least half of a new pixel was.

    Example:
        >>> rescale_mask(np.ones((100, 80), bool), 0.5).shape
        (50, 40)
    """
    if scale == 1:
        return mask
    grey = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(grey.resize(_size(mask, scale), Image.Resampling.BILINEAR)) > 127


def standardise(image: Tensor, fov: Tensor | None = None, levels: Tensor | None = None) -> Tensor:
    """Shift and scale every channel to mean 0 and standard deviation 1 over the field of view.

    The mean and the deviation are those of the image given; or, for a patch, those of the whole photograph
    that `levels` describe. It is differentiable and has no branch that depends on the data. Where the field
    of view is empty, or a channel constant in it, the result is 0.

    Args:
        image: (..., C, H, W) float, 0..1.
        fov: (H, W), (..., 1, H, W) or another shape that broadcasts to the image, true or above 0.5 inside;
            None takes every pixel.
        levels: (..., C, 256, 2), see `Levels`; None measures the image itself.

    Returns:
        The shape and dtype of `image`, 0 outside the field of view.

    Raises:
        DataError: if the image is not of floats.

    Example:
        >>> image = standardise(torch.rand(3, 16, 16))
        >>> bool(image.mean((1, 2)).abs().max() < 1e-5)
        True
        >>> bool((image.std((1, 2), correction=0) - 1).abs().max() < 1e-3)
        True
    """
    if not torch.is_floating_point(image):
        raise DataError(
            f"standardise needs a float image in 0..1, got {image.dtype}; divide uint8 by 255 first."
        )
    # float32 at least: sums over a photograph overflow float16. Two passes: E[x^2] - E[x]^2 cancels.
    values = image.to(torch.promote_types(image.dtype, torch.float32))
    if fov is None:
        inside = torch.ones((), dtype=torch.bool, device=image.device)
    else:
        inside = fov.to(image.device)
        inside = inside if inside.dtype == torch.bool else inside > 0.5
    zero = values.new_zeros(())
    if levels is None:
        weight = inside.expand(*values.shape[:-3], 1, *values.shape[-2:])
        count = weight.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
        mean = torch.where(inside, values, zero).sum(dim=(-2, -1), keepdim=True) / count
        centred = torch.where(inside, values - mean, zero)
        variance = centred.square().sum(dim=(-2, -1), keepdim=True) / count
    else:
        share, value = levels.cpu().double().unbind(dim=-1)  # (..., C, 256) each; MPS has no float64
        mean = (share * value).sum(dim=-1)[..., None]
        variance = (share * (value - mean).square()).sum(dim=-1)[..., None, None].to(values)
        centred = torch.where(inside, values - mean[..., None].to(values), zero)
    known = variance > 1e-8  # of a constant channel, or of no pixel at all, there is nothing to scale
    return torch.where(known, centred / variance.clamp(min=1e-8).sqrt(), zero).to(image.dtype)


def _size(image: np.ndarray, scale: float) -> tuple[int, int]:
    """The (width, height) in pixels of an image magnified by `scale`, 1x1 at least."""
    return max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
