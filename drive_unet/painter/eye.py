"""One eye: where things lie in it, how strong each ingredient of its picture is, and how chance looks smooth.

Lengths are in pixels of a field of view 540 px across (that of DRIVE, 45 degrees); `Eye.scale` converts them
to the frame.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage


class Ingredients(NamedTuple):
    """How strong each ingredient of a painted photograph is: 1 as in the embedded set, 0 without it.

    What differs from eye to eye still does: these multiply what chance draws. `twigs` has its full effect at
    1 already; only `density` must not be 0.
    """

    tortuosity: float = 1.0  # windings of the vessels
    density: float = 1.0  # how closely the retina is supplied
    twigs: float = 1.0  # the finest branches; 0 leaves trunks and their branches
    fading: float = 1.0  # thin vessels lie at changing depths and all but vanish in places
    reflex: float = 1.0  # the bright line along thick vessels
    texture: float = 1.0  # grain of pigment and choroid
    choroid: float = 1.0  # vessels of the layer behind the retina, tessellation
    sheen: float = 1.0  # glimmer of nerve fibres and of the retina's surface
    lesions: float = 1.0  # haemorrhages, exudates, drusen, microaneurysms, pigment, dust
    colour: float = 1.0  # eyes and cameras of different colours
    light: float = 1.0  # uneven light, haze, a glowing rim
    blur: float = 1.0  # the lens: point spread, colours out of register, places out of focus
    noise: float = 1.0  # the sensor's

    def check(self) -> None:
        """Raise ValueError if a strength is negative or not a number, or the density 0."""
        if not all(0 <= strength < np.inf for strength in self) or self.density == 0:
            raise ValueError(
                f"strengths of ingredients are 0 or more, and the density is more than 0: {self}"
            )


AS_USUAL = Ingredients()


class Eye(NamedTuple):
    """Where things lie in one eye, as (x, y) in pixels of the frame, and what varies from eye to eye."""

    scale: float  # pixels of this frame to a pixel of a 565 px wide one
    centre: np.ndarray  # of the field of view
    radius: float  # of the field of view
    side: float  # +1: the fovea lies to the right of the disc, -1: to the left
    disc: np.ndarray
    disc_radius: float
    fovea: np.ndarray
    tortuosity: float  # amplitude of the windings, 1 is usual
    density: float  # 1 is usual, more brings more and wider vessels


def draw_eye(rng: np.random.Generator, size: tuple[int, int], mix: Ingredients = AS_USUAL) -> Eye:
    """Draw by lot where the disc and the fovea lie in a frame of (height, width), left or right eye."""
    height, width = size
    scale = min(width / 565.0, height / 584.0)
    centre = np.array([width / 2 + scale * rng.uniform(-5, 1), height / 2 + scale * rng.uniform(5, 8)])
    side = float(rng.choice([-1.0, 1.0]))
    eccentricity = rng.uniform(170, 225) if rng.random() < 0.85 else rng.uniform(90, 150)
    disc = centre + scale * np.array([-side * eccentricity, rng.uniform(-38, 12)])
    return Eye(
        scale=scale,
        centre=centre,
        radius=scale * rng.uniform(268.3, 269.5),
        side=side,
        disc=disc,
        disc_radius=scale * rng.uniform(33, 45),
        fovea=disc + scale * np.array([side * rng.uniform(190, 215), rng.uniform(10, 32)]),
        tortuosity=mix.tortuosity * float(rng.lognormal(-0.1, 0.4)),
        density=mix.density * float(np.clip(rng.normal(1.02, 0.15), 0.75, 1.35)),
    )


def waves(rng: np.random.Generator, xy: np.ndarray, wavelength: float, terms: int = 7) -> np.ndarray:
    """Return a smooth random displacement (N, 2) of unit strength at xy (N, 2): a sum of plane waves."""
    angle, phase = rng.uniform(0, 2 * np.pi, (2, terms, 2))
    number = 2 * np.pi / (wavelength * rng.uniform(0.7, 1.5, (terms, 2)))
    total = np.zeros_like(xy)
    for n, a, p in zip(number, angle, phase, strict=True):
        total += np.sin(xy[:, :1] * (n * np.cos(a)) + xy[:, 1:] * (n * np.sin(a)) + p)
    return total * np.sqrt(2 / terms)


def step(x: np.ndarray) -> np.ndarray:
    """A soft step from 0 to 1 (the logistic function)."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def noise(rng: np.random.Generator, size: tuple[int, int], grain: float) -> np.ndarray:
    """Smooth noise (H, W) float32, zero mean, unit spread, with blobs of about `grain` pixels."""
    rows, columns = (int(np.ceil(n / grain)) + 4 for n in size)
    small = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
    large = small.resize((int(columns * grain), int(rows * grain)), Image.Resampling.BICUBIC)
    top, left = (int(2 * grain * rng.random()) for _ in range(2))
    field = np.asarray(large)[top : top + size[0], left : left + size[1]]
    return (field - field.mean()) / field.std()


def streaks(
    rng: np.random.Generator, dx: np.ndarray, dy: np.ndarray, blades: float, rings: float
) -> np.ndarray:
    """Noise (H, W) along rays from the origin of dx, dy: `blades` grains around, `rings` long in ln(px)."""
    across = (np.arctan2(dy, dx) / (2 * np.pi) + 0.5) * blades
    along = np.log(np.hypot(dx, dy) + 20) / rings + 0.15 * np.sin(across * 0.7)
    grain = rng.standard_normal((int(blades) + 8, int(7 / rings) + 8)).astype(np.float32)
    return ndimage.map_coordinates(grain, np.broadcast_arrays(across + 2, along), order=1, mode="wrap")
