"""What lies behind the vessels of a painted eye: pigment, choroid, macula, optic disc, nerve fibres."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from drive_unet.painter.eye import AS_USUAL, Eye, Ingredients, noise, step, streaks

USUAL_LEVELS = (190.0, 104.0, 60.0)  # the usual retina in R, G, B
# By what multiples grain, hue, choroid and macula change the logarithm of each of R, G, B.
TINTS = ((0.55, 0.6, 0.6, 0.7), (1.0, -1.0, 1.0, 1.0), (0.95, -0.8, 0.5, 0.75))


def background(
    rng: np.random.Generator, eye: Eye, size: tuple[int, int], x, y, mix: Ingredients = AS_USUAL
) -> np.ndarray:
    """Paint the retina without vessels; x (1, W) and y (H, 1) are the pixels' centres.

    Returns:
        (H, W, 3) float32, 0..255 and above where the sensor will saturate.
    """
    s = eye.scale
    red = rng.uniform(135, 255)
    green = min(red * np.clip(rng.normal(0.535, 0.06), 0.40, 0.64), rng.uniform(98, 136))
    blue = green * np.clip(rng.normal(0.585, 0.065), 0.43, 0.74)
    levels = (
        usual * (own / usual) ** mix.colour
        for usual, own in zip(USUAL_LEVELS, (red, green, blue), strict=True)
    )

    fine = rng.lognormal(-4.65, 0.35) * (noise(rng, size, 2.6 * s) + noise(rng, size, 4.5 * s))
    coarse = rng.lognormal(-4.60, 0.45) * (noise(rng, size, 8 * s) + noise(rng, size, 17 * s))
    grain = mix.texture * (fine + coarse)
    shade = rng.uniform(0.01, 0.04) * noise(rng, size, 45 * s) + rng.uniform(0.01, 0.04) * noise(
        rng, size, 120 * s
    )
    hue = rng.uniform(0.004, 0.014) * (noise(rng, size, 10 * s) + 1.6 * noise(rng, size, 27 * s))
    hue = mix.texture * hue + mix.colour * rng.uniform(0.01, 0.04) * noise(rng, size, 90 * s)
    choroid = mix.choroid * _choroid(rng, eye, size, x, y)
    to_fovea = np.hypot(x - eye.fovea[0], (y - eye.fovea[1]) * rng.uniform(0.95, 1.1)) / s
    macula = rng.uniform(0.16, 0.34) * np.exp(-((to_fovea / rng.uniform(30, 60)) ** 2))
    macula += rng.uniform(0.04, 0.16) * np.exp(-((to_fovea / rng.uniform(9, 15)) ** 2))

    scene = np.empty((*size, 3), np.float32)
    for c, (level, (g, h, k, m)) in enumerate(zip(levels, TINTS, strict=True)):
        scene[..., c] = level * np.exp(g * (grain + shade) + h * hue + k * choroid - m * macula)
    _add_disc(rng, eye, scene, x, y)
    _add_sheen(rng, eye, scene, x, y, mix.sheen)
    return scene


def _choroid(rng, eye: Eye, size, x, y) -> np.ndarray:
    """Vessels of the choroid (H, W), as a change of the colour's logarithm; they are not retinal vessels.

    Dark winding ones, seen dimly in places; in some eyes also broad bright bands, spread out like a fan; in
    thinly pigmented ones tessellation, dark islands between a net of bright choroidal vessels.
    """
    s = eye.scale
    winding = np.exp(-((noise(rng, size, rng.uniform(17, 30) * s) / 0.24) ** 2))
    choroid = -0.075 * rng.random() ** 2 * winding * step(2 * noise(rng, size, 80 * s))
    if rng.random() < 0.35:
        about = eye.disc + s * np.array([eye.side * rng.uniform(0, 60), rng.uniform(-60, 60)])
        fan = np.abs(streaks(rng, x - about[0], y - about[1], rng.uniform(40, 70), rng.uniform(0.10, 0.2)))
        bands = np.exp(-((ndimage.gaussian_filter(fan, 2.2 * s) / 0.5) ** 2)) - 0.4
        choroid += rng.uniform(0.05, 0.16) * bands * step(1.5 * noise(rng, size, 130 * s) + 0.3)
    if rng.random() < 0.2:
        about = eye.fovea + s * rng.normal(0, 40, 2)
        islands = streaks(rng, x - about[0], y - about[1], rng.uniform(60, 110), rng.uniform(0.05, 0.09))
        islands = step(2 * (ndimage.gaussian_filter(islands, 2.0 * s) / 0.5 - 0.2))
        to_fovea = np.hypot(x - eye.fovea[0], y - eye.fovea[1]) / s
        where = step((to_fovea - 110) / 30) * step(1.5 * noise(rng, size, 140 * s))
        choroid -= rng.uniform(0.05, 0.20) * where * (islands - 0.4)
    return choroid


def _add_disc(rng, eye: Eye, scene: np.ndarray, x, y) -> None:
    """Paint the optic disc into `scene`: rim, cup, halo, at times a pale or a dark crescent beside it."""
    size = scene.shape[:2]
    dx = (x - eye.disc[0]) * eye.side  # towards the fovea
    dy = (y - eye.disc[1]) * rng.uniform(0.86, 0.98)
    distance, angle = np.hypot(dx, dy) / eye.disc_radius, np.arctan2(dy, dx)
    distance = distance / (1 + 0.04 * np.sin(2 * angle + rng.uniform(0, 6.3)) + 0.02 * np.sin(5 * angle))
    inside = step((1 - distance) / rng.uniform(0.02, 0.08))
    halo = rng.uniform(0.02, 0.14) * np.exp(-np.maximum(distance - 1, 0) / 0.6)
    to_cup = np.hypot(dx - eye.disc_radius * rng.uniform(0.08, 0.25), dy) / eye.disc_radius
    cup = step((rng.uniform(0.35, 0.62) - to_cup) / rng.uniform(0.05, 0.14))
    crescent = np.zeros(size, np.float32)
    if rng.random() < 0.4:  # where the pigment begins only at some distance from the disc, or piles up
        ring = np.hypot(dx - rng.uniform(0.15, 0.3) * eye.disc_radius, dy) / eye.disc_radius
        crescent = step((1.08 - ring) / 0.05) * (1 - inside)
        crescent *= rng.uniform(0.1, 0.45) if rng.random() < 0.7 else -rng.uniform(0.1, 0.3)
    temporal = np.clip(dx / eye.disc_radius, -1, 1)  # paler than the nasal side, where the fibres crowd
    unevenness = 1 + rng.uniform(0.02, 0.18) * temporal + 0.02 * noise(rng, size, 6 * eye.scale)
    rim = rng.uniform([1.05, 1.22, 1.10], [1.12, 1.65, 1.55])
    pale = rng.uniform([1.04, 1.15, 1.25], [1.08, 1.45, 1.90])
    dark = max(0.0, 255 / scene[int(eye.disc[1]), int(eye.disc[0]), 0] - 1)
    rim *= 1 + dark * rng.uniform(0.8, 1.1) * np.array([0.55, 0.45, 0.30])  # yellow even in a dark eye
    for c in range(3):
        disc = rim[c] * (1 + cup * (pale[c] - 1)) * (unevenness if c else 1)
        scene[..., c] *= 1 + halo + (0.4, 1, 0.7)[c] * crescent + inside * (disc - 1)
    for c, most in ((1, rng.uniform(0.82, 0.94)), (2, rng.uniform(0.38, 0.72))):  # never green, seldom white
        excess = np.maximum(scene[..., c] - most * np.minimum(scene[..., 0], 262), 0)
        scene[..., c] -= inside * excess


def _add_sheen(rng, eye: Eye, scene: np.ndarray, x, y, strength: float) -> None:
    """Paint a young retina's glimmer into `scene`: nerve fibres along the arcades, a ring at the macula."""
    dx, dy = (x - eye.disc[0]) * eye.side / eye.scale, (y - eye.disc[1]) / eye.scale
    distance = np.hypot(dx, dy) * eye.scale / eye.disc_radius
    bent = dx - dy**2 / rng.uniform(300, 500)  # fibres leave upwards and downwards, then turn to the macula
    fibres = streaks(rng, bent, dy, 190, 0.5) + streaks(rng, bent, dy, 370, 0.4)
    fibres = np.clip(1 + 0.4 * fibres, 0, 3) * step((distance - 1.1) / 0.1)
    amplitude = rng.uniform(0, 6) + (rng.uniform(2, 8) if rng.random() < 0.25 else 0.0)
    along = np.exp(-(((distance - 2.4) / rng.uniform(1.2, 2.2)) ** 2))
    sheen = amplitude * fibres * along * np.abs(np.sin(np.arctan2(dy, bent))) ** 0.7
    if rng.random() < 0.25:
        ring = np.hypot(x - eye.fovea[0], (y - eye.fovea[1]) * 1.15) / eye.scale
        ring = ring + 9 * noise(rng, scene.shape[:2], 30 * eye.scale)
        patches = np.clip(noise(rng, scene.shape[:2], 14 * eye.scale), 0, 2)
        sheen = sheen + rng.uniform(2, 10) * patches * np.exp(-(((ring - rng.uniform(70, 100)) / 9) ** 2))
    for c, share in enumerate((0.5, 1.0, 0.9)):
        scene[..., c] += strength * share * sheen
