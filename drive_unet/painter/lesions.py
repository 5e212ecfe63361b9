"""What fools networks: spots, bleedings, deposits and dust, painted into an eye and labelled background."""

from __future__ import annotations

import numpy as np

from drive_unet.painter.eye import AS_USUAL, Eye, Ingredients, step


def add_lesions(
    rng: np.random.Generator, eye: Eye, scene: np.ndarray, x, y, mix: Ingredients = AS_USUAL
) -> None:
    """Paint things into `scene` (H, W, 3) that are no vessels; x (1, W), y (H, 1) are the pixels' centres.

    Microaneurysms, pigment and the foveal reflex in many eyes; haemorrhages, exudates and drusen in a few, as
    among the people who are screened for diabetes; dust on the lens.
    """
    s = eye.scale

    def blot(at, radius, colour, softness, ragged=1.0):
        r = int(np.ceil(radius * 2.2)) + 2
        left, top = int(at[0]) - r, int(at[1]) - r
        if left < 0 or top < 0 or left + 2 * r > scene.shape[1] or top + 2 * r > scene.shape[0]:
            return
        window = slice(top, top + 2 * r), slice(left, left + 2 * r)
        dx, dy = x[:, window[1]] - at[0], (y[window[0]] - at[1]) * rng.uniform(0.7, 1.3)
        angle, lobes = np.arctan2(dy, dx), rng.uniform(0, 6.3, 2)
        outline = 0.2 * np.sin(2 * angle + lobes[0]) + 0.12 * np.sin(5 * angle + lobes[1])
        cover = step((1 - np.hypot(dx, dy) / radius * (1 + ragged * outline)) / softness)
        scene[window] *= 1 + cover[..., None] * (np.asarray(colour, np.float32) - 1)

    def somewhere():
        angle, distance = rng.uniform(0, 2 * np.pi), eye.radius * np.sqrt(rng.uniform(0, 0.9))
        return eye.centre + distance * np.array([np.cos(angle), np.sin(angle)])

    def several(mean):
        return range(rng.poisson(mean * mix.lesions))

    def happens(probability):
        return rng.random() < probability * mix.lesions

    for _ in several(1.5):  # microaneurysms, pigment
        blot(somewhere(), s * rng.uniform(1.2, 2.4), (0.92, 0.80, 0.85), 0.35)
    if happens(0.15):  # haemorrhages: blots, and flames along the nerve fibres
        for _ in range(rng.integers(1, 8)):
            blot(somewhere(), s * rng.uniform(2, 8), (0.85, 0.66, 0.75), 0.18)
    if happens(0.12):  # exudates, in clusters
        middle = eye.fovea + s * rng.normal(0, 60, 2)
        for _ in range(rng.integers(5, 26)):
            blot(middle + s * rng.normal(0, 22, 2), s * rng.uniform(0.8, 3.0), (1.06, 1.26, 1.15), 0.22)
    if happens(0.15):  # drusen, pale and soft, over the whole back of the eye
        for _ in range(rng.integers(10, 60)):
            middle = eye.fovea + s * rng.normal(0, 90, 2)
            blot(middle, s * rng.uniform(0.9, 2.2), (1.03, 1.08, 1.06), 0.5)
    if happens(0.4):  # the fovea's reflex
        blot(eye.fovea + s * rng.normal(0, 2, 2), s * rng.uniform(1.2, 2.5), (1.10, 1.25, 1.25), 0.5)
    for _ in several(1.0):  # reflections of a young retina's surface
        blot(somewhere(), s * rng.uniform(3, 9), (1.03, 1.08, 1.08), 0.6)
    for _ in several(0.5):  # dust, far out of focus
        blot(somewhere(), s * rng.uniform(6, 16), np.full(3, rng.uniform(0.93, 1.04)), 0.12, ragged=0.2)
    if happens(0.06):  # an old scar or naevus: a large dark patch
        blot(somewhere(), s * rng.uniform(12, 30), (0.75, 0.78, 0.85), 0.25)
