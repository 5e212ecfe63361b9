"""Channels and contrast: what notebook 02 tries on a photograph. The networks are given neither."""

from __future__ import annotations

import numpy as np
from skimage.exposure import equalize_adapthist

from drive_unet.preprocessing.fov import as_uint8_image


def green_channel(image: np.ndarray) -> np.ndarray:
    """The green channel, in which vessels stand out most.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        (H, W) uint8, a copy.

    Example:
        >>> green_channel(np.full((2, 2, 3), [10, 20, 30], np.uint8)).tolist()
        [[20, 20], [20, 20]]
    """
    return as_uint8_image(image, "green_channel", channels=3)[..., 1].copy()


def clahe(channel: np.ndarray, clip_limit: float = 0.01, tiles: int = 8) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994) of one channel.

    Args:
        channel: (H, W) uint8.
        clip_limit: 0..1, how much a tile's contrast may grow: near 0 hardly, 1 without limit.
        tiles: tiles along each side of the image.

    Returns:
        (H, W) uint8, stretched to the full range; a constant channel is returned as it is.

    Example:
        >>> ramp = np.tile(np.arange(100, 140, dtype=np.uint8), (40, 1))
        >>> stretched = clahe(ramp)
        >>> int(stretched.min()), int(stretched.max())
        (0, 255)
    """
    channel = as_uint8_image(channel, "clahe", channels=1)
    if tiles < 1 or not 0 <= clip_limit <= 1:
        raise ValueError(
            f"clahe needs tiles >= 1 and a clip_limit in 0..1, got tiles={tiles}, clip_limit={clip_limit}."
        )
    if channel.min() == channel.max():
        return channel.copy()
    kernel = [max(1, -(-side // tiles)) for side in channel.shape]
    return np.rint(equalize_adapthist(channel, kernel_size=kernel, clip_limit=clip_limit) * 255).astype(
        np.uint8
    )
