"""Random changes of a sample that a photographer could have made; image, vessels and FOV move together.

Written as ``torchvision.transforms.v2`` transforms: they take a `Sample` (or any structure of tv_tensors),
draw their numbers once from PyTorch's global generator, and apply them to every part.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2


class RandomPatch(v2.Transform):
    """Cut a square patch from anywhere inside the FOV, turned, scaled and flipped at random.

    One resampling of the patch alone does everything, so that nothing is interpolated twice and the rest
    of the photograph is never touched: bilinear for the image, nearest neighbour for the masks. What lies
    beyond the photograph becomes 0: black, no vessel, outside the FOV.

    Resampling blurs a little, and a network that sees nothing but blurred photographs is at a loss before a
    sharp one. So a share of the patches keeps the photograph's own pixels: those are turned by right angles
    and mirrored only.

    Args:
        size: side of the patch, in pixels.
        exact: share of the patches, 0..1, that are not resampled.
        rotate: largest turn either way, in degrees.
        scale: range of the magnification; 1 keeps the photograph's own pixels.
        flip: mirror every second patch.
    """

    def __init__(
        self,
        size: int = 256,
        exact: float = 0.5,
        rotate: float = 180.0,
        scale: tuple[float, float] = (0.8, 1.25),
        flip: bool = True,
    ) -> None:
        super().__init__()
        self.size, self.exact, self.rotate, self.scale, self.flip = size, exact, rotate, scale, flip

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw centre, angle, magnification and mirror; returns the (1, size, size, 2) sampling grid."""
        fov = [part for part in flat_inputs if isinstance(part, tv_tensors.Mask)][-1:]
        like = next(part for part in flat_inputs if isinstance(part, tv_tensors.Image | tv_tensors.Mask))
        height, width = like.shape[-2:]
        row, column = _random_pixel(fov[0] if fov else None, height, width)
        if torch.rand(()) < self.exact:
            angle, step = math.pi / 2 * int(torch.randint(4, ())), 1.0
        else:
            angle = math.radians(_uniform(-self.rotate, self.rotate))
            step = math.exp(-_uniform(*map(math.log, self.scale)))  # source pixels per pixel
        mirror = -1.0 if self.flip and torch.rand(()) < 0.5 else 1.0
        centre = self.size % 2  # of a pixel where the size is odd, between four where it is even
        reach = step * self.size  # twice the half side, because grid coordinates run from -1 to 1
        cosine, sine = math.cos(angle), math.sin(angle)
        theta = torch.tensor(
            [
                [mirror * reach * cosine / width, -reach * sine / width, (2 * column + centre) / width - 1],
                [mirror * reach * sine / height, reach * cosine / height, (2 * row + centre) / height - 1],
            ],
            device=like.device,
        )
        return {"grid": F.affine_grid(theta[None], [1, 1, self.size, self.size], align_corners=False)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resample one part of the sample at the drawn grid."""
        if not isinstance(inpt, tv_tensors.Image | tv_tensors.Mask):
            return inpt
        mode = "bilinear" if isinstance(inpt, tv_tensors.Image) else "nearest"
        whole = inpt.as_subclass(Tensor)[None]  # (1, C, H, W)
        patch = F.grid_sample(whole.float(), params["grid"], mode=mode, align_corners=False)[0]
        return tv_tensors.wrap(patch.to(inpt.dtype), like=inpt)


class RandomColour(v2.Transform):
    """Another flash, another eye, another sensor: gain and gamma of each channel, contrast, noise.

    Black stays black, so that the dark surround of the FOV is kept.

    Args:
        gain: largest relative change of a channel's brightness.
        gamma: largest factor (up or down) of a channel's exponent, less one.
        noise: largest standard deviation of added noise, in units of 0..1.
    """

    def __init__(self, gain: float = 0.15, gamma: float = 0.25, noise: float = 0.02) -> None:
        super().__init__()
        self.gain, self.gamma, self.noise = gain, gamma, noise

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change an image (…, C, H, W) float 0..1; masks and everything else pass untouched."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        image = inpt.as_subclass(Tensor)
        channels = (*image.shape[:-2], 1, 1)
        spread = torch.empty(channels, device=image.device).uniform_(-1, 1)
        shared = _uniform(-1, 1)  # half of the change is common to all channels
        exponent = torch.exp((spread + shared) / 2 * math.log1p(self.gamma))
        gain = 1 + self.gain * torch.empty(channels, device=image.device).uniform_(-1, 1)
        changed = gain * image.clamp(min=1e-4) ** exponent
        changed = changed + _uniform(0, self.noise) * torch.randn_like(image) * (image > 0.1)
        return tv_tensors.wrap(changed.clamp(0, 1), like=inpt)


def training_transform(size: int = 256) -> v2.Compose:
    """The augmentation that `fit` uses unless told otherwise: `RandomPatch`, then `RandomColour`."""
    return v2.Compose([RandomPatch(size), RandomColour()])


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _random_pixel(fov: Tensor | None, height: int, width: int) -> tuple[int, int]:
    """A pixel inside the FOV; after 100 misses (an almost empty FOV) any pixel."""
    for _ in range(100):
        row, column = int(torch.randint(height, ())), int(torch.randint(width, ()))
        if fov is None or fov[..., row, column].any():
            break
    return row, column
