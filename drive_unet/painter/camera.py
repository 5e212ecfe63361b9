"""The camera that photographs a painted eye: its field of view, its light, its lens, its sensor."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from drive_unet.painter.eye import AS_USUAL, Eye, Ingredients, noise, step

# Extra blur (px), level outside the field of view and standard deviation of the noise, for each of R, G, B.
GAP = (-0.5, 0.0, 0.2)  # how much farther in, in pixels, the light of R, G, B ends than the field of view
SENSOR = ((0.15, 7.6, 2.9), (0.0, 6.8, 2.9), (0.25, 7.2, 3.3))
HAZE = (0.62, 0.86, 0.98)  # the colour of scattered light, to the mean of the retina, in R, G, B


def aperture(rng: np.random.Generator, eye: Eye, x, y) -> np.ndarray:
    """Return how deep (H, W), in pixels, a pixel lies in the field of view: a disc, mostly with a notch."""
    depth = eye.radius - np.hypot(x - eye.centre[0], y - eye.centre[1])
    if rng.random() < 0.7:
        angle = -0.75 + rng.normal(0, 0.02)
        at = eye.centre + (eye.radius - eye.scale) * np.array([np.cos(angle), np.sin(angle)])
        depth = np.maximum(depth, 13.5 * eye.scale - np.hypot(x - at[0], y - at[1]))
    return depth.astype(np.float32)


def photograph(
    rng: np.random.Generator, eye: Eye, scene: np.ndarray, x, y, depth, mix: Ingredients = AS_USUAL
) -> np.ndarray:
    """Photograph the scene: uneven light, haze, blur, sharpening, saturation, noise, JPEG.

    Args:
        rng: source of chance.
        eye: where the field of view lies.
        scene: (H, W, 3) float32, 0..255 and above.
        x, y: the pixels' centres, (1, W) and (H, 1).
        depth: distance into the field of view (H, W) from `aperture`.
        mix: strengths of light, blur and noise.

    Returns:
        (H, W, 3) uint8.
    """
    s = eye.scale
    scene = _light(rng, eye, scene, x, y, depth, mix.light)
    gap, softness = rng.uniform(0.0, 2.2), rng.uniform(0.5, 1.0)
    grain = 0.9 * noise(rng, scene.shape[:2], 1.6)
    sharp, crisp = s * mix.blur * rng.uniform(0.55, 1.0), rng.uniform(0.2, 0.9)
    astray = 0.35 * s * mix.blur * rng.normal(0, 1, (3, 2))  # each colour's image is a little out of register
    astray[1] = 0
    soft = None
    if rng.random() < 0.25 * mix.blur:  # the retina is curved, and one part of it out of focus
        a, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.7)
        towards = ((x - eye.centre[0]) * np.cos(a) + (y - eye.centre[1]) * np.sin(a)) / eye.radius
        soft = step((towards - far) / 0.15).astype(np.float32)
    image = np.empty(scene.shape, np.uint8)
    for c, (blur, dark, sigma) in enumerate(SENSOR):
        layer = ndimage.gaussian_filter(scene[..., c], sharp + mix.blur * blur * s, truncate=3)
        if soft is not None:
            layer += soft * (ndimage.gaussian_filter(layer, 1.5 * s, truncate=3) - layer)
        if astray[c].any():
            layer = ndimage.shift(layer, astray[c], order=1, mode="nearest")
        layer += crisp * (layer - ndimage.gaussian_filter(layer, 2.2 * s, truncate=2.5))
        layer = np.where(layer < 235, layer, 255 - 20 * np.exp((235 - layer) / 20))  # saturates softly
        edge = step((depth / s - gap - GAP[c]) / softness)
        layer = layer * edge + dark * (1 - edge)
        hiss = sigma * rng.standard_normal(layer.shape, np.float32) + grain
        layer += mix.noise * hiss * (0.35 + 0.65 * edge)
        image[..., c] = np.clip(layer + 0.5, 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(90, 97)), subsampling=0)
    return np.array(Image.open(buffer))


def _light(rng, eye: Eye, scene: np.ndarray, x, y, depth, strength: float) -> np.ndarray:
    """The scene (H, W, 3) in the camera's light: a slope, a vignette, haze from one side, a bright rim."""
    dx, dy = (x - eye.centre[0]) / eye.radius, (y - eye.centre[1]) / eye.radius
    from_centre = dx**2 + dy**2
    slope, across, towards_haze, towards_glow = (
        dx * np.cos(a) + dy * np.sin(a) for a in rng.uniform(0, 2 * np.pi, 4)
    )
    vignette = rng.uniform(-0.02, 0.20) * from_centre
    even = 1 + strength * (rng.uniform(0.02, 0.2) * slope - vignette)
    # the deeper the light goes the redder it is, and the less of it comes back from the rim
    red = 1 + strength * (rng.uniform(0.0, 0.12) * across - rng.uniform(0.0, 0.18) * from_centre)
    # where the beam misses part of the pupil, red is lost and vessels pale
    reach, width = rng.uniform(0.25, 0.95), rng.uniform(0.08, 0.28)
    haze = step((towards_haze + 0.15 * from_centre - reach) / width)
    haze = strength * (rng.uniform(0.10, 0.60) * haze + rng.uniform(0.0, 0.12))
    glow = rng.choice([0.0, 0.2, 0.8]) * np.clip(towards_glow, 0, 1) ** 1.5
    glow = strength * glow * np.exp(-np.abs(depth) / (rng.uniform(2, 11) * eye.scale))
    mean = scene[::16, ::16][depth[::16, ::16] > 0].mean(0)
    lit = np.empty_like(scene)
    for c in range(3):
        layer = scene[..., c] * (even * red if c == 0 else even)
        layer += haze * (mean[c] * HAZE[c] - layer) + glow * mean[c] * (0.6, 1.0, 0.7)[c]
        lit[..., c] = layer
    return lit
