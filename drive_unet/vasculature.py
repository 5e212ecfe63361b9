"""The lay of one eye, and its arteries and veins: two trees that grow from the optic disc.

Lengths are in pixels of a field of view 540 px across (that of DRIVE); `Eye.scale` converts to the frame.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STEP = 4.0  # length of a growth step
REACH = 1.04  # vessels grow to this multiple of the field of view's radius, and are cut by it later
STAGES = (86.0, 47.0, 26.0)  # spacing of the points to be supplied, from the first branches to the last
SIGHT = (np.inf, 3.0, 2.2)  # farther from any vessel than this many spacings, a point goes without, by stage
ARRIVED = 0.45  # nearer than this many spacings, a point is supplied
INERTIA = 0.9  # how strongly a growing tip keeps its direction
UNREST = 0.30  # random change of direction at each step
BACKWARDS = 0.9  # extra cost of leaving a vessel against its flow
SHORTEST = 5  # twigs of fewer steps are taken away again
FOVEAL_ZONE = 36.0  # radius around the fovea without vessels
ARTERY_RADIUS, VEIN_RADIUS = 3.3, 4.2  # of the thickest trunk
TIP_RADIUS = 0.50
MURRAY = 3.0  # r_parent ** 3 == sum(r_child ** 3)
LEAK = 0.02  # blood lost per pixel to branches below the camera's resolution, in units of one tip's


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


class Trees(NamedTuple):
    """Arteries and veins as nodes; a node comes after its parent."""

    xy: np.ndarray  # (N, 2) float, pixels
    parent: np.ndarray  # (N,) int, -1 at a root
    kind: np.ndarray  # (N,) int, 0 artery, 1 vein
    radius: np.ndarray  # (N,) float, pixels


class Course(NamedTuple):
    """The vessels' centrelines as points, half a pixel apart."""

    points: np.ndarray  # (M, 2) float, pixels
    radius: np.ndarray  # (M,) float, pixels
    kind: np.ndarray  # (M,) int, 0 artery, 1 vein


def draw_eye(rng: np.random.Generator, size: tuple[int, int]) -> Eye:
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
        disc_radius=scale * rng.uniform(32, 41),
        fovea=disc + scale * np.array([side * rng.uniform(190, 215), rng.uniform(10, 32)]),
        tortuosity=float(rng.lognormal(-0.1, 0.4)),
        density=float(np.clip(rng.normal(1.02, 0.15), 0.75, 1.35)),
    )


def waves(rng: np.random.Generator, xy: np.ndarray, wavelength: float, terms: int = 7) -> np.ndarray:
    """Return a smooth random displacement (N, 2) of unit strength at xy (N, 2): a sum of plane waves."""
    angle, phase = rng.uniform(0, 2 * np.pi, (2, terms, 2))
    number = 2 * np.pi / (wavelength * rng.uniform(0.7, 1.5, (terms, 2)))
    total = np.zeros_like(xy)
    for n, a, p in zip(number, angle, phase, strict=True):
        total += np.sin(xy[:, :1] * (n * np.cos(a)) + xy[:, 1:] * (n * np.sin(a)) + p)
    return total * np.sqrt(2 / terms)


def grow(rng: np.random.Generator, eye: Eye) -> Trees:
    """Grow an artery tree and a vein tree from the disc over the whole field of view, around the fovea.

    Guided trunks come first; then space colonisation (Runions et al., 2007, "Modeling trees with a space
    colonization algorithm") in stages from coarse to fine, so that a few long vessels come before the fine
    ones that fill the gaps.
    """
    xy, heading, parent, kind = _plant(_trunks(rng, eye))
    children = np.bincount(parent[parent >= 0], minlength=len(xy))
    for stage, spacing in enumerate(STAGES):
        spacing *= eye.scale / eye.density ** (0.9 if stage else 0.4)
        points = _supply_points(rng, eye, spacing)
        wants = rng.integers(0, 2, len(points))
        best = np.full(len(points), np.inf)  # cost and index of the node that would supply each point
        which = np.zeros(len(points), int)
        near = np.full(len(points), np.inf)
        fresh = 0
        for _ in range(140):
            gap = points[:, None] - xy[None, fresh:]  # (points, new nodes, 2)
            distance = np.hypot(gap[..., 0], gap[..., 1])
            near = np.minimum(near, distance.min(1))
            cosine = (gap * heading[None, fresh:]).sum(-1) / np.maximum(distance, 1e-6)
            cost = distance * (1 + BACKWARDS * (1 - cosine))
            cost[(wants[:, None] != kind[None, fresh:]) | (children[None, fresh:] > 2)] = np.inf
            winner = cost.argmin(1)
            value = cost[np.arange(len(points)), winner]
            better = value < best
            best[better], which[better] = value[better], winner[better] + fresh

            open_ = (near > ARRIVED * spacing) & (near < SIGHT[stage] * spacing)
            open_ &= np.isfinite(best) & (children[which] < 3)
            points, wants, best, which, near = (a[open_] for a in (points, wants, best, which, near))
            if len(points) == 0:
                break
            sources, group = np.unique(which, return_inverse=True)
            pull = np.zeros((len(sources), 2))
            np.add.at(pull, group.ravel(), _unit(points - xy[which]))
            pull = _unit(pull) + INERTIA * heading[sources] + rng.normal(0, UNREST, pull.shape)
            pull = _unit(pull)
            # rounded, so that the last bits, in which platforms differ, do not decide where a vessel goes
            new = np.round((xy[sources] + STEP * eye.scale * pull) * 1024) / 1024
            fresh = len(xy)
            children[sources] += 1
            xy, heading = np.vstack([xy, new]), np.vstack([heading, pull])
            parent, kind = np.append(parent, sources), np.append(kind, kind[sources])
            children = np.append(children, np.zeros(len(sources), int))
    xy, parent, kind = _without_twigs(xy, parent, kind)
    return Trees(xy, parent, kind, _radii(parent, kind, eye))


def course(rng: np.random.Generator, eye: Eye, trees: Trees) -> Course:
    """Smooth the trees' paths, let them wind, and return them as points half a pixel apart."""
    xy, parent, radius = trees.xy, trees.parent, trees.radius
    child = np.full(len(xy), -1)  # the thickest child continues the vessel
    order = np.argsort(radius, kind="stable")
    order = order[parent[order] >= 0]
    child[parent[order]] = order
    through = (parent >= 0) & (child >= 0)
    through &= child[parent] == np.arange(len(xy))
    for _ in range(3):
        xy = np.where(through[:, None], 0.5 * xy + 0.25 * (xy[parent] + xy[child]), xy)
    s = eye.scale
    xy = xy + eye.tortuosity * s * (2.6 * waves(rng, xy, 75 * s) + 1.0 * waves(rng, xy, 28 * s))
    node = np.flatnonzero(parent >= 0)
    start, end = xy[parent[node]], xy[node]
    pieces = np.maximum(np.ceil(np.hypot(*(end - start).T) / 0.5).astype(int), 1)
    owner = np.repeat(np.arange(len(node)), pieces)
    t = (np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) / pieces[owner]
    points = start[owner] + t[:, None] * (end - start)[owner]
    last = radius[node]
    first = np.minimum(
        radius[parent[node]], 1.2 * last
    )  # a thin branch is thin where it leaves a thick vessel
    return Course(points, first[owner] + t * (last - first)[owner], trees.kind[node][owner])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.hypot(*vectors.T)[:, None], 1e-6)


def _trunk(rng, eye: Eye, start, first, last, turn, length, meander) -> np.ndarray:
    """A path (N, 2) in steps of STEP whose direction goes from `first` to `last` within `turn`, and meanders.

    Directions are in radians in the eye's own frame: 0 towards the fovea, positive downwards.
    """
    s = np.arange(0, length, STEP)
    angle = last + (first - last) * np.exp(-((s / turn) ** 1.4))
    angle += meander * np.sin(2 * np.pi * (s / rng.uniform(70, 150) + rng.random())) * np.minimum(1, s / 60)
    path = start + eye.scale * STEP * np.stack([eye.side * np.cos(angle), np.sin(angle)], 1).cumsum(0)
    inside = np.hypot(*(path - eye.centre).T) < REACH * eye.radius
    return path if inside.all() else path[: int(np.argmin(inside))]


def _trunks(rng, eye: Eye) -> list[tuple[int, np.ndarray, int, int]]:
    """The first vessels as (kind, path, index of the parent trunk or -1, step on the parent).

    An artery and a vein for the upper and the lower arcade and for either nasal quadrant, and branches from
    the arcades towards the periphery.
    """
    trunks = []
    hilum = rng.uniform(-15, -3)  # where the vessels enter, nasal of the disc's middle
    for up in (-1.0, 1.0):
        first, last = up * rng.uniform(1.1, 1.4), up * rng.uniform(-0.22, 0.25)
        nasal, turn = up * rng.uniform(1.7, 2.3), rng.uniform(95, 150)
        wider = rng.integers(0, 2)  # which of the pair runs outside the other
        for kind in (0, 1):
            outside = kind == wider
            start = np.array([eye.side * (hilum + rng.uniform(-4, 4)), up * rng.uniform(-5, 1)])
            start = eye.disc + eye.scale * start
            begin, finish = first + up * (0.13 if outside else -0.13), last + up * rng.normal(0, 0.1)
            bend = turn * (1.0 if outside else rng.uniform(0.72, 0.92))
            long, winding = rng.uniform(300, 520), rng.uniform(0.08, 0.28)
            arcade = _trunk(rng, eye, start, begin, finish, bend, long, winding)
            stem = len(trunks)
            trunks.append((kind, arcade, -1, 0))
            for _ in range(rng.integers(1, 3)):
                at = int(rng.integers(12, 46))
                if at + 2 < len(arcade):
                    along = arcade[at + 1] - arcade[at]
                    leave = np.arctan2(along[1], eye.side * along[0]) + up * rng.uniform(0.35, 0.8)
                    finish, long, winding = (
                        leave + up * rng.uniform(-0.5, 0.3),
                        *rng.uniform([70, 0.05], [200, 0.25]),
                    )
                    trunks.append(
                        (kind, _trunk(rng, eye, arcade[at], leave, finish, 60, long, winding), stem, at)
                    )
            begin, finish = nasal + rng.normal(0, 0.18), nasal + up * rng.uniform(-0.3, 0.7)
            long, winding = rng.uniform([120, 0.05], [320, 0.25])
            trunks.append((kind, _trunk(rng, eye, start, begin, finish, 80, long, winding), -1, 0))
    return trunks


def _plant(trunks) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The trunks as nodes: xy (N, 2), heading (N, 2), parent (N,), kind (N,)."""
    xy, heading, parent, kind, first, count = [], [], [], [], [], 0
    for k, path, stem, at in trunks:
        first.append(count)
        if len(path) < 4:
            continue
        xy.append(path)
        heading.append(_unit(np.gradient(path, axis=0)))
        parent.append(np.arange(count - 1, count + len(path) - 1))
        parent[-1][0] = first[stem] + at if stem >= 0 else -1
        kind.append(np.full(len(path), k))
        count += len(path)
    return np.vstack(xy), np.vstack(heading), np.concatenate(parent), np.concatenate(kind)


def _supply_points(rng, eye: Eye, spacing: float) -> np.ndarray:
    """Jittered hexagonal points (N, 2) in the field of view that want blood, none in fovea or disc."""
    n = int(2.2 * eye.radius / spacing) + 2
    i, j = np.meshgrid(np.arange(-n, n + 1), np.arange(-n, n + 1))
    grid = np.stack([i + 0.5 * (j % 2), j * 0.866], -1).reshape(-1, 2) * spacing
    points = eye.centre + grid + rng.uniform(-0.42, 0.42, grid.shape) * spacing
    keep = np.hypot(*(points - eye.centre).T) < 1.01 * eye.radius
    keep &= np.hypot(*(points - eye.fovea).T) > FOVEAL_ZONE * eye.scale
    keep &= np.hypot(*(points - eye.disc).T) > 1.5 * eye.disc_radius
    return points[keep]


def _without_twigs(xy, parent, kind) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same trees without end branches of fewer than SHORTEST steps."""
    children = np.bincount(parent[parent >= 0], minlength=len(parent))
    keep = np.ones(len(parent), bool)
    for tip in np.flatnonzero(children == 0):
        twig = [tip]
        while parent[twig[-1]] >= 0 and children[parent[twig[-1]]] == 1:
            twig.append(parent[twig[-1]])
        if len(twig) < SHORTEST and parent[twig[-1]] >= 0:
            keep[twig] = False
    number = np.cumsum(keep) - 1
    parent = np.where(parent >= 0, number[parent], -1)
    return xy[keep], parent[keep], kind[keep]


def _radii(parent, kind, eye: Eye) -> np.ndarray:
    """Radius (N,) of every node by Murray's law (Murray, 1926), summed from the tips to the roots."""
    flow = np.full(len(parent), LEAK * STEP)
    leaf = np.ones(len(parent), bool)
    leaf[parent[parent >= 0]] = False
    flow[leaf] = 1.0
    for i in range(len(parent) - 1, -1, -1):
        if parent[i] >= 0:
            flow[parent[i]] += flow[i]
    thickest = np.where(kind == 0, ARTERY_RADIUS, VEIN_RADIUS) * eye.density**0.45
    greatest = np.array([flow[kind == k].max() for k in (0, 1)])[kind]
    gain = (thickest**MURRAY - TIP_RADIUS**MURRAY) / greatest
    return eye.scale * (TIP_RADIUS**MURRAY + gain * flow) ** (1 / MURRAY)
