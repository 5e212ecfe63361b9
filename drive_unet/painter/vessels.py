"""The arteries and veins of one eye: two trees that grow from the optic disc.

Lengths are in pixels of a field of view 540 px across, as everywhere in the painter; see `eye`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from drive_unet.painter.eye import AS_USUAL, Eye, Ingredients, waves

STEP = 4.0  # length of a growth step
REACH = 1.25  # vessels grow to this multiple of the field of view's radius, which cuts them off
STAGES = (86.0, 48.0, 25.0)  # spacing of the points to be supplied, from the first branches to the last
SIGHT = (np.inf, 3.0, 2.2)  # farther from any vessel than this many spacings, a point goes without, by stage
ARRIVED = 0.45  # nearer than this many spacings, a point is supplied
INERTIA = 1.1  # how strongly a growing tip keeps its direction
CURRENT = 0.30  # how strongly it follows the eye's own lines: to the fovea, and away from the disc
UNREST = 0.24  # random change of direction at each step
BACKWARDS = 1.2  # extra cost of leaving a vessel against its flow
SHORTEST = 8  # twigs of fewer steps are taken away again
FOVEAL_ZONE = 34.0  # radius around the fovea without vessels
MACULA = 105.0  # radius around the fovea in which vessels run towards it
VEIN_RADIUS, ARTERY_TO_VEIN = 4.7, 2 / 3  # of the thickest trunk; arteries are two thirds as wide
MURRAY = 3.0  # r_parent ** 3 == sum(r_child ** 3)
LEAK = 0.02  # blood lost per pixel to branches below the camera's resolution, in units of one tip's


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


def grow(rng: np.random.Generator, eye: Eye, mix: Ingredients = AS_USUAL) -> Trees:
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
        if stage == len(STAGES) - 1:
            points = points[rng.random(len(points)) < mix.twigs]
        wants = rng.integers(0, 2, len(points))
        best = np.full(len(points), np.inf)  # cost and index of the node that would supply each point
        nearest = np.zeros(len(points), int)
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
            best[better], nearest[better] = value[better], winner[better] + fresh

            open_ = (near > ARRIVED * spacing) & (near < SIGHT[stage] * spacing)
            open_ &= np.isfinite(best) & (children[nearest] < 3)
            points, wants, best, nearest, near = (a[open_] for a in (points, wants, best, nearest, near))
            if len(points) == 0:
                break
            sources, group = np.unique(nearest, return_inverse=True)
            pull = np.zeros((len(sources), 2))
            np.add.at(pull, group.ravel(), _unit(points - xy[nearest]))
            pull = _unit(pull) + INERTIA * heading[sources] + CURRENT * _current(eye, xy[sources])
            pull = _unit(pull + rng.normal(0, UNREST, pull.shape))
            # rounded, so that the last bits, in which platforms differ, do not decide where a vessel goes
            new = np.round((xy[sources] + STEP * eye.scale * pull) * 1024) / 1024
            free = np.hypot(*(new - eye.fovea).T) > 0.7 * FOVEAL_ZONE * eye.scale
            children[sources[~free]] = 3
            new, pull, sources = new[free], pull[free], sources[free]
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
    windings = 2.6 * waves(rng, xy, 75 * s) + waves(rng, xy, 28 * s) + 0.45 * waves(rng, xy, 15 * s)
    xy = xy + eye.tortuosity * s * windings
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


def _current(eye: Eye, xy: np.ndarray) -> np.ndarray:
    """The direction (N, 2) that vessels tend to at xy (N, 2): to the fovea around it, else from the disc."""
    to_fovea = eye.fovea - xy
    near = np.exp(-((np.hypot(*to_fovea.T) / (MACULA * eye.scale)) ** 4))[:, None]
    return near * _unit(to_fovea) + (1 - near) * _unit(xy - eye.disc)


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
    inside &= np.hypot(*(path - eye.fovea).T) > FOVEAL_ZONE * eye.scale
    return path if inside.all() else path[: int(np.argmin(inside))]


def _trunks(rng, eye: Eye) -> list[tuple[int, np.ndarray, int, int]]:
    """The first vessels as (kind, path, index of the parent trunk or -1, step on the parent).

    An artery and a vein for the upper and the lower arcade, and their branches: to either nasal quadrant, to
    the macula, and from the arcades towards the periphery.
    """
    trunks: list[tuple[int, np.ndarray, int, int]] = []
    # where arteries and veins come through the disc, nasal of its middle
    hila = rng.uniform(-13, 1) + rng.uniform(-7, 7, 2)
    for up in (-1.0, 1.0):
        first, last = up * rng.uniform(1.15, 1.55), up * rng.uniform(-0.3, 0.25)
        nasal, turn = up * rng.uniform(1.7, 2.3), rng.uniform(105, 170)
        wider = rng.integers(0, 2)  # which of the pair runs outside the other
        for kind in (0, 1):
            outside = kind == wider
            start = eye.disc + eye.scale * np.array([eye.side * hila[kind], up * rng.uniform(-5, 1)])
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
                    finish = leave + up * rng.uniform(-0.5, 0.3)
                    long, winding = rng.uniform([70, 0.05], [200, 0.25])
                    trunks.append(
                        (kind, _trunk(rng, eye, arcade[at], leave, finish, 60, long, winding), stem, at)
                    )
            begin, finish = nasal + rng.normal(0, 0.18), nasal + up * rng.uniform(-0.3, 0.7)
            long, winding = rng.uniform([120, 0.05], [320, 0.25])
            at = int(rng.integers(0, 6))  # the nasal branch leaves the arcade on the disc
            trunks.append((kind, _trunk(rng, eye, arcade[at], begin, finish, 80, long, winding), stem, at))
            if rng.random() < 0.6:  # a small vessel straight to the macula
                at, begin = int(rng.integers(1, 10)), up * rng.uniform(0.3, 0.9)
                long, winding = rng.uniform([60, 0.05], [130, 0.3])
                macular = _trunk(rng, eye, arcade[at], begin, up * rng.uniform(-0.1, 0.3), 50, long, winding)
                trunks.append((kind, macular, stem, at))
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
    keep = np.hypot(*(points - eye.centre).T) < (REACH - 0.03) * eye.radius
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
    thickest = VEIN_RADIUS * np.where(kind == 0, ARTERY_TO_VEIN, 1) * eye.density**0.45
    greatest = np.array([flow[kind == k].max() for k in (0, 1)])[kind]
    return eye.scale * thickest * (flow / greatest) ** (1 / MURRAY)
