"""What lies around the vessels of a painted eye, and the camera that looks at it."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from drive_unet.vasculature import Eye

# By what multiples pigment, hue, choroid and macula change the logarithm of each of R, G, B.
TINTS = ((0.55, 0.3, 0.6, 0.7), (1.0, -1.0, 1.0, 1.0), (0.95, -0.8, 0.5, 0.75))
# Extra blur (px), level outside the field of view and standard deviation of the noise, for each of R, G, B.
SENSOR = ((0.15, 7.6, 2.9), (0.0, 6.8, 2.75), (0.25, 7.2, 3.1))


def background(rng: np.random.Generator, eye: Eye, size: tuple[int, int], x, y) -> np.ndarray:
    """Paint the retina without vessels; x (1, W) and y (H, 1) are the pixels' centres.

    Returns:
        (H, W, 3) float32, 0..255 and above where the sensor will saturate.
    """
    s = eye.scale
    red = rng.uniform(140, 255)
    green = min(red * np.clip(rng.normal(0.545, 0.065), 0.43, 0.70), rng.uniform(112, 132))
    blue = green * np.clip(rng.normal(0.60, 0.05), 0.48, 0.70)

    grains = _noise(rng, size, 4.5 * s) + 1.3 * _noise(rng, size, 8 * s) + 1.5 * _noise(rng, size, 17 * s)
    pigment = rng.uniform(0.007, 0.018) * grains + 0.04 * _noise(rng, size, 95 * s)
    hue = rng.uniform(0.004, 0.016) * (_noise(rng, size, 10 * s) + _noise(rng, size, 27 * s))
    choroid = _choroid(rng, eye, size, x, y)
    to_fovea = np.hypot(x - eye.fovea[0], (y - eye.fovea[1]) * rng.uniform(0.95, 1.1)) / s
    macula = rng.uniform(0.16, 0.32) * np.exp(-((to_fovea / rng.uniform(32, 50)) ** 2))
    macula += rng.uniform(0.04, 0.14) * np.exp(-((to_fovea / 13) ** 2))

    scene = np.empty((*size, 3), np.float32)
    for c, (level, (p, h, k, m)) in enumerate(zip((red, green, blue), TINTS, strict=True)):
        scene[..., c] = level * np.exp(p * pigment + h * hue + k * choroid - m * macula)
    _add_disc(rng, eye, scene, x, y)
    return scene


def _choroid(rng, eye: Eye, size, x, y) -> np.ndarray:
    """Vessels of the choroid (H, W), as a change of the colour's logarithm; they are not retinal vessels.

    Dark winding ones, seen dimly in places; in some eyes also broad bright bands, spread out like a fan.
    """
    s = eye.scale
    winding = np.exp(-((_noise(rng, size, rng.uniform(17, 30) * s) / 0.24) ** 2))
    choroid = -0.075 * rng.random() ** 2 * winding * _step(2 * _noise(rng, size, 80 * s))
    if rng.random() < 0.35:
        about = eye.disc + s * np.array([eye.side * rng.uniform(0, 60), rng.uniform(-60, 60)])
        fan = np.abs(_streaks(rng, about, x, y, rng.uniform(40, 70), rng.uniform(0.10, 0.2)))
        bands = np.exp(-((ndimage.gaussian_filter(fan, 2.2 * s) / 0.5) ** 2)) - 0.4
        choroid += rng.uniform(0.05, 0.16) * bands * _step(1.5 * _noise(rng, size, 130 * s) + 0.3)
    return choroid


def _add_disc(rng, eye: Eye, scene: np.ndarray, x, y) -> None:
    """Paint the optic disc into `scene`: rim, cup, halo, at times a crescent, and the nerve fibres' sheen."""
    size = scene.shape[:2]
    dx, dy = (
        (x - eye.disc[0]) * eye.side,
        (y - eye.disc[1]) * rng.uniform(0.86, 0.98),
    )  # dx points to the fovea
    distance, angle = np.hypot(dx, dy) / eye.disc_radius, np.arctan2(dy, dx)
    distance = distance / (1 + 0.04 * np.sin(2 * angle + rng.uniform(0, 6.3)) + 0.02 * np.sin(5 * angle))
    inside = _step((1 - distance) / rng.uniform(0.035, 0.09))
    halo = rng.uniform(0.04, 0.16) * np.exp(-np.maximum(distance - 1, 0) / 0.6)
    to_cup = np.hypot(dx - eye.disc_radius * rng.uniform(0.08, 0.25), dy) / eye.disc_radius
    cup = _step((rng.uniform(0.35, 0.62) - to_cup) / rng.uniform(0.05, 0.12))
    crescent = np.zeros(size, np.float32)
    if rng.random() < 0.3:  # where the pigment begins only at some distance from the disc
        ring = np.hypot(dx - 0.22 * eye.disc_radius, dy) / eye.disc_radius
        crescent = rng.uniform(0.1, 0.4) * _step((1.08 - ring) / 0.05) * (1 - inside)
    unevenness = 1 + rng.uniform(0.02, 0.14) * np.clip(dx / eye.disc_radius, -1, 1)
    unevenness = unevenness * (1 + 0.035 * _noise(rng, size, 5 * eye.scale))
    rim = rng.uniform([1.05, 1.35, 1.25], [1.12, 1.65, 1.60])
    pale = rng.uniform([1.04, 1.12, 1.15], [1.07, 1.30, 1.55])
    dark = max(0.0, 255 / scene[int(eye.disc[1]), int(eye.disc[0]), 0] - 1)
    rim *= 1 + dark * rng.uniform(0.8, 1.1) * np.array(
        [0.55, 0.45, 0.30]
    )  # the disc is yellow even in a dark eye
    for c in range(3):
        disc = rim[c] * (1 + cup * (pale[c] - 1)) * (unevenness if c else 1)
        scene[..., c] *= 1 + halo + (0.4, 1, 0.7)[c] * crescent + inside * (disc - 1)

    fibres = 1 + 0.5 * _streaks(rng, eye.disc, x, y, 170, 0.6) + 0.5 * _streaks(rng, eye.disc, x, y, 330, 0.4)
    sheen = rng.uniform(0, 6) * np.exp(-(((distance - 2.2) / 1.5) ** 2)) * np.abs(np.sin(angle)) ** 0.7
    sheen = sheen * np.clip(fibres, 0, 3)
    for c, share in enumerate((0.5, 1.0, 0.9)):
        scene[..., c] += share * sheen


def add_distractors(rng: np.random.Generator, eye: Eye, scene: np.ndarray, x, y) -> None:
    """Paint things into `scene` (H, W, 3) that are no vessels: spots, haemorrhages, exudates, reflections."""

    def blot(at, radius, colour, softness):
        r = int(np.ceil(radius * 2.2)) + 2
        left, top = int(at[0]) - r, int(at[1]) - r
        if left < 0 or top < 0 or left + 2 * r > scene.shape[1] or top + 2 * r > scene.shape[0]:
            return
        window = slice(top, top + 2 * r), slice(left, left + 2 * r)
        dx, dy = x[:, window[1]] - at[0], (y[window[0]] - at[1]) * rng.uniform(0.7, 1.3)
        angle, lobes = np.arctan2(dy, dx), rng.uniform(0, 6.3, 2)
        ragged = 1 + 0.2 * np.sin(2 * angle + lobes[0]) + 0.12 * np.sin(5 * angle + lobes[1])
        cover = _step((1 - np.hypot(dx, dy) / radius * ragged) / softness)
        scene[window] *= 1 + cover[..., None] * (np.asarray(colour, np.float32) - 1)

    def somewhere():
        angle, distance = rng.uniform(0, 2 * np.pi), eye.radius * np.sqrt(rng.uniform(0, 0.9))
        return eye.centre + distance * np.array([np.cos(angle), np.sin(angle)])

    s = eye.scale
    for _ in range(rng.poisson(1.2)):  # microaneurysms, pigment
        blot(somewhere(), s * rng.uniform(1.2, 2.4), (0.92, 0.80, 0.85), 0.35)
    if rng.random() < 0.15:  # haemorrhages
        for _ in range(rng.integers(1, 6)):
            blot(somewhere(), s * rng.uniform(3, 8), (0.85, 0.66, 0.75), 0.18)
    if rng.random() < 0.15:  # exudates
        middle = eye.fovea + s * rng.normal(0, 45, 2)
        for _ in range(rng.integers(5, 22)):
            blot(middle + s * rng.normal(0, 26, 2), s * rng.uniform(1.0, 3.2), (1.10, 1.28, 1.20), 0.2)
    if rng.random() < 0.4:  # the fovea's reflex
        blot(eye.fovea + s * rng.normal(0, 2, 2), s * rng.uniform(1.2, 2.5), (1.10, 1.25, 1.25), 0.5)
    for _ in range(rng.poisson(1.0)):  # reflections of a young retina's surface
        blot(somewhere(), s * rng.uniform(3, 9), (1.03, 1.08, 1.08), 0.6)


def aperture(rng: np.random.Generator, eye: Eye, x, y) -> np.ndarray:
    """Return how deep (H, W), in pixels, a pixel lies in the field of view: a disc, mostly with a notch."""
    depth = eye.radius - np.hypot(x - eye.centre[0], y - eye.centre[1])
    if rng.random() < 0.7:
        angle = -0.75 + rng.normal(0, 0.02)
        at = eye.centre + (eye.radius - eye.scale) * np.array([np.cos(angle), np.sin(angle)])
        depth = np.maximum(depth, 13.5 * eye.scale - np.hypot(x - at[0], y - at[1]))
    return depth.astype(np.float32)


def photograph(rng: np.random.Generator, eye: Eye, scene: np.ndarray, x, y, depth) -> np.ndarray:
    """Photograph the scene: uneven light, a veil from one side, blur, sharpening, saturation, noise, JPEG.

    Args:
        rng: source of chance.
        eye: where the field of view lies.
        scene: (H, W, 3) float32, 0..255 and above.
        x, y: the pixels' centres, (1, W) and (H, 1).
        depth: distance into the field of view (H, W) from `aperture`.

    Returns:
        (H, W, 3) uint8.
    """
    s = eye.scale
    dx, dy = (x - eye.centre[0]) / eye.radius, (y - eye.centre[1]) / eye.radius
    from_centre = dx**2 + dy**2
    slope, towards_veil, towards_glow = (
        dx * np.cos(a) + dy * np.sin(a) for a in rng.uniform(0, 2 * np.pi, 3)
    )
    light = 1 + rng.uniform(0.02, 0.12) * slope - rng.uniform(0.02, 0.2) * from_centre
    # where the beam misses part of the pupil, red is lost and vessels pale
    veil = _step((towards_veil + 0.15 * from_centre - rng.uniform(0.55, 0.95)) / rng.uniform(0.08, 0.16))
    veil = rng.uniform(0.11, 0.64) * veil
    glow = rng.choice([0.0, 0.12, 0.35]) * np.clip(towards_glow, 0, 1)  # a bright rim on one side
    glow = glow * np.exp(-np.abs(depth) / (rng.uniform(5, 14) * s))
    edge = _step(depth / (0.75 * s))
    mean = scene[::16, ::16][depth[::16, ::16] > 0].mean(0)
    grain = 0.8 * _noise(rng, scene.shape[:2], 1.6)
    sharp, crisp = s * rng.uniform(0.6, 1.0), rng.uniform(0.2, 0.8)
    image = np.empty(scene.shape, np.uint8)
    for c, (blur, dark, noise) in enumerate(SENSOR):
        layer = scene[..., c] * light
        layer += veil * (mean[c] * (0.52, 0.80, 0.95)[c] - layer) + glow * mean[c] * (0.6, 1.0, 0.8)[c]
        layer = ndimage.gaussian_filter(layer, sharp + blur * s, truncate=3)
        layer += crisp * (layer - ndimage.gaussian_filter(layer, 2.2 * s, truncate=2.5))
        layer = np.where(layer < 235, layer, 255 - 20 * np.exp((235 - layer) / 20))  # saturates softly
        layer = layer * edge + dark * (1 - edge)
        layer += (noise * rng.standard_normal(layer.shape, np.float32) + grain) * (0.35 + 0.65 * edge)
        image[..., c] = np.clip(layer + 0.5, 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(90, 97)), subsampling=0)
    return np.array(Image.open(buffer))


def _step(x: np.ndarray) -> np.ndarray:
    """A soft step from 0 to 1 (the logistic function)."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _noise(rng, size: tuple[int, int], grain: float) -> np.ndarray:
    """Smooth noise (H, W) float32, zero mean, unit spread, with blobs of about `grain` pixels."""
    rows, columns = (int(np.ceil(n / grain)) + 4 for n in size)
    small = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
    large = small.resize((int(columns * grain), int(rows * grain)), Image.Resampling.BICUBIC)
    top, left = (int(2 * grain * rng.random()) for _ in range(2))
    field = np.asarray(large)[top : top + size[0], left : left + size[1]]
    return (field - field.mean()) / field.std()


def _streaks(rng, about: np.ndarray, x, y, blades: float, rings: float) -> np.ndarray:
    """Noise (H, W) drawn out along rays from a point: `blades` grains around it, `rings` long in ln(px)."""
    across = (np.arctan2(y - about[1], x - about[0]) / (2 * np.pi) + 0.5) * blades
    along = np.log(np.hypot(x - about[0], y - about[1]) + 20) / rings + 0.15 * np.sin(across * 0.7)
    grain = rng.standard_normal((int(blades) + 8, int(7 / rings) + 8)).astype(np.float32)
    return ndimage.map_coordinates(grain, np.broadcast_arrays(across + 2, along), order=1, mode="wrap")
