"""The grey levels of a whole photograph, by which patches that were cut out of it are standardised.

Only training needs them, and torchvision, which takes as long to import as PyTorch itself.
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision import tv_tensors


class Levels(tv_tensors.TVTensor):
    """The grey levels of a whole photograph inside its field of view, which stay with its patches.

    (3, 256, 2) float32: for each channel and each of the 256 levels the share of the field of view that has
    it, and the value in 0..1 that it stands for. A change of colour maps the values as it maps the image's,
    so that the changed photograph's mean and deviation are known without the photograph. Transforms of
    torchvision.transforms.v2 pass it on as it is.
    """


def levels(image: np.ndarray, fov: np.ndarray) -> Levels:
    """The grey levels of a photograph (H, W, 3) uint8 inside its field of view (H, W) bool, see `Levels`.

    Example:
        >>> flat = levels(np.full((4, 4, 3), 51, np.uint8), np.ones((4, 4), bool))
        >>> tuple(flat.shape), round(float(flat[0, 51, 0]), 6), round(float(flat[0, 51, 1]), 6)
        ((3, 256, 2), 1.0, 0.2)
    """
    inside = image[fov]
    share = np.stack([np.bincount(inside[:, c], minlength=256) for c in range(3)]) / max(1, len(inside))
    value = np.broadcast_to(np.arange(256) / 255, share.shape)
    return Levels(torch.from_numpy(np.stack([share, value], axis=-1).astype(np.float32)))
