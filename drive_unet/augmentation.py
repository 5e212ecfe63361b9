"""Random changes of a sample that a photographer could have made; image, vessels and FOV move together.

Written as ``torchvision.transforms.v2`` transforms: they take a `Sample` (or any structure of tv_tensors),
draw their numbers once from PyTorch's global generator, and apply them to every part. What v2 has is
taken from it; ours are those that must know the field of view or the scale that networks are taught at.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from drive_unet.preprocessing.levels import Levels


class RandomPatch(v2.Transform):
    """Cut a square patch from anywhere inside the FOV, turned, scaled and flipped at random.

    One resampling does everything, so that nothing is interpolated twice: bilinear for the image, nearest
    neighbour for the masks. What lies beyond the photograph becomes 0: black, no vessel, outside the FOV.
    Only the pixels that the patch needs are read and converted, so that a large photograph costs no more.

    Resampling blurs a little, and a network that sees nothing but blurred photographs is at a loss before a
    sharp one. So a share of the patches keeps the photograph's own pixels: those are turned by right angles
    and mirrored only.

    Args:
        size: side of the patch, in pixels. It is float32, in 0..1 also where the photograph is uint8.
        exact: share of the patches, 0..1, that are not resampled.
        rotate: largest turn either way, in degrees.
        scale: range of the magnification; 1 keeps the photograph's own pixels.
        widths: in place of `scale`, the range of the field of view's width in pixels that a photograph is
            brought to, whatever its own is: cameras of every resolution then look alike.
        flip: mirror every second patch.
    """

    def __init__(
        self,
        size: int = 256,
        exact: float = 0.5,
        rotate: float = 180.0,
        scale: tuple[float, float] = (0.8, 1.25),
        flip: bool = True,
        widths: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.size, self.exact, self.rotate, self.scale, self.flip = size, exact, rotate, scale, flip
        self.widths = widths

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw centre, angle, magnification and mirror.

        Returns:
            "window", the slices of rows and columns that the patch needs of the photograph, and "grid",
            (1, size, size, 2) float32, where in this window each pixel of the patch is sampled.
        """
        fov = [part for part in flat_inputs if isinstance(part, tv_tensors.Mask)][-1:]
        like = next(part for part in flat_inputs if isinstance(part, tv_tensors.Image | tv_tensors.Mask))
        height, width = like.shape[-2:]
        row, column = map(float, _random_pixel(fov[0] if fov else None, height, width))
        if torch.rand(()) < self.exact:
            angle, step = math.pi / 2 * int(torch.randint(4, ())), 1.0
        else:
            angle = math.radians(_uniform(-self.rotate, self.rotate))
            scale = self.scale
            if self.widths and fov:
                own = max(1, int(fov[0].reshape(-1, width).amax(dim=0).sum()))
                scale = self.widths[0] / own, self.widths[1] / own
            step = math.exp(-_uniform(*map(math.log, scale)))  # source pixels per pixel
        mirror = -1.0 if self.flip and torch.rand(()) < 0.5 else 1.0
        # The centre is that of a pixel where the size is odd, between four where it is even.
        row, column = row + (self.size % 2 - 1) / 2, column + (self.size % 2 - 1) / 2
        cosine, sine = step * math.cos(angle), step * math.sin(angle)
        reach = (abs(cosine) + abs(sine)) * (self.size - 1) / 2  # from the centre, along rows and columns
        window = _window(row, reach, height), _window(column, reach, width)
        # In grids the window's first edge is at -1, its last at 1; `theta` maps the patch's to those.
        high, wide = (part.stop - part.start for part in window)
        theta = torch.tensor(
            [
                [
                    mirror * cosine * self.size / wide,
                    -sine * self.size / wide,
                    (2 * (column - window[1].start) + 1) / wide - 1,
                ],
                [
                    mirror * sine * self.size / high,
                    cosine * self.size / high,
                    (2 * (row - window[0].start) + 1) / high - 1,
                ],
            ],
            device=like.device,
        )
        grid = F.affine_grid(theta[None], [1, 1, self.size, self.size], align_corners=False)
        return {"window": window, "grid": grid}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resample one part of the sample at the drawn grid."""
        if not isinstance(inpt, tv_tensors.Image | tv_tensors.Mask):
            return inpt
        needed = inpt.as_subclass(Tensor)[(..., *params["window"])][None]  # (1, C, h, w)
        if isinstance(inpt, tv_tensors.Mask):
            patch = F.grid_sample(needed.float(), params["grid"], mode="nearest", align_corners=False)
            return tv_tensors.wrap(patch[0].to(inpt.dtype), like=inpt)
        patch = F.grid_sample(_as_float(needed), params["grid"], mode="bilinear", align_corners=False)
        return tv_tensors.wrap(patch[0], like=inpt)


class RandomColour(v2.Transform):
    """Another flash, another eye, another sensor: gain and gamma of each channel, contrast, noise.

    Black stays black, so that the dark surround of the FOV is kept. The photograph's `levels` are changed as
    its patch is, so that the patch can be standardised by the whole of the changed photograph; noise is left
    out there, which adds less than 1 % to the standard deviation.

    Args:
        gain: largest relative change of a channel's brightness.
        gamma: largest factor (up or down) of a channel's exponent, less one.
        noise: largest standard deviation of added noise, in units of 0..1.
    """

    def __init__(self, gain: float = 0.15, gamma: float = 0.25, noise: float = 0.02) -> None:
        super().__init__()
        self.gain, self.gamma, self.noise = gain, gamma, noise

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw "exponent" and "gain", (..., C, 1, 1), and "noise", a standard deviation, for the image."""
        image = next((part for part in flat_inputs if isinstance(part, tv_tensors.Image)), None)
        if image is None:
            return {}
        channels = (*image.shape[:-2], 1, 1)
        spread = torch.empty(channels, device=image.device).uniform_(-1, 1)
        shared = _uniform(-1, 1)  # half of the change is common to all channels
        exponent = torch.exp((spread + shared) / 2 * math.log1p(self.gamma))
        gain = 1 + self.gain * torch.empty(channels, device=image.device).uniform_(-1, 1)
        return {"exponent": exponent, "gain": gain, "noise": _uniform(0, self.noise)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change an image (…, C, H, W), uint8 or float 0..1, and its levels; masks and all else pass."""
        if not params or not isinstance(inpt, tv_tensors.Image | Levels):
            return inpt
        exponent, gain = params["exponent"], params["gain"]
        if isinstance(inpt, Levels):  # (..., C, 256, 2)
            share, value = inpt.as_subclass(Tensor).unbind(dim=-1)
            changed = gain[..., 0] * value.clamp(min=1e-4) ** exponent[..., 0]
            return tv_tensors.wrap(torch.stack([share, changed.clamp(0, 1)], dim=-1), like=inpt)
        image = _as_float(inpt.as_subclass(Tensor))
        changed = gain * image.clamp(min=1e-4) ** exponent
        changed = changed + params["noise"] * torch.randn_like(image) * (image > 0.1)
        return tv_tensors.wrap(changed.clamp(0, 1), like=inpt)


class RandomFocus(v2.Transform):
    """Another lens: the image blurred or sharpened, as optics and cameras' own processing do.

    Args:
        sigma: largest standard deviation of the Gaussian blur, in pixels.
        sharpen: largest share of the difference to a blurred image that is added.
        share: of the images that are changed at all, 0..1.
    """

    def __init__(self, sigma: float = 1.2, sharpen: float = 1.0, share: float = 0.5) -> None:
        super().__init__()
        self.sigma, self.sharpen, self.share = sigma, sharpen, share

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw "sigma", the blur's standard deviation, and "amount", from -1 (the blur itself) upwards."""
        if not torch.rand(()) < self.share:
            return {}
        blur = bool(torch.rand(()) < 0.5)
        sigma = _uniform(0.3, self.sigma) if blur else _uniform(0.7, 1.5)
        return {"sigma": sigma, "amount": -1.0 if blur else _uniform(0.2, self.sharpen)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change an image (…, C, H, W), uint8 or float 0..1; masks and all else pass."""
        if not params or not isinstance(inpt, tv_tensors.Image):
            return inpt
        image = _as_float(inpt.as_subclass(Tensor))
        blurred = v2.functional.gaussian_blur(image, [9, 9], [params["sigma"]])
        changed = image + params["amount"] * (image - blurred)
        return tv_tensors.wrap(changed.clamp(0, 1), like=inpt)


class RandomLight(v2.Transform):
    """Another flash angle: the image multiplied by a smooth field, bright here and dark there.

    Args:
        contrast: largest factor (up or down) of the brightness anywhere, less one.
        knots: of the random field along each side, between which it is interpolated.
    """

    def __init__(self, contrast: float = 0.3, knots: int = 3) -> None:
        super().__init__()
        self.contrast, self.knots = contrast, knots

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw "field", (1, 1, knots, knots), the logarithm of the factor."""
        strength = math.log1p(self.contrast) * torch.rand(())
        return {"field": strength * torch.empty(1, 1, self.knots, self.knots).uniform_(-1, 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change an image (…, C, H, W), uint8 or float 0..1; masks and all else pass."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        image = _as_float(inpt.as_subclass(Tensor))
        field = F.interpolate(params["field"], image.shape[-2:], mode="bilinear", align_corners=True)
        return tv_tensors.wrap((image * field[0].exp().to(image)).clamp(0, 1), like=inpt)


def training_transform(size: int = 256) -> v2.Compose:
    """The augmentation that `fit` uses unless told otherwise: `RandomPatch`, then `RandomColour`.

    Example:
        >>> from torchvision import tv_tensors
        >>> image = tv_tensors.Image(torch.zeros(3, 300, 300, dtype=torch.uint8))
        >>> training_transform(64)(image).shape
        torch.Size([3, 64, 64])
    """
    return v2.Compose([RandomPatch(size), RandomColour()])


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _as_float(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _window(centre: float, reach: float, length: int) -> slice:
    """The pixels up to `reach` from `centre`, with those that interpolation needs, that there are."""
    first = min(max(math.floor(centre - reach) - 1, 0), length - 1)
    return slice(first, max(min(math.ceil(centre + reach) + 2, length), first + 1))


def _random_pixel(fov: Tensor | None, height: int, width: int) -> tuple[int, int]:
    """A pixel inside the FOV; after 100 misses (an almost empty FOV) any pixel."""
    for _ in range(100):
        row, column = int(torch.randint(height, ())), int(torch.randint(width, ()))
        if fov is None or fov[..., row, column].any():
            break
    return row, column
