"""Vessels as smooth curves with a width at every point, from which lengths, calibres and curvatures are read.

Thinning gives the order of the vessels' pixels and little more: its staircases are up to 8 % too long and
its ends half a width too short. So a line across each vessel finds the middle between the walls, a smoothing
spline through those middles is the centreline, and its free ends go on to where the vessel ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import interpolate, ndimage

from drive_unet.measurement.skeleton import Chain, skeleton_graph

STRAIGHT, BENT = 0.3, 0.2  # pixels; square pixels alone move the middle between the walls by so much or more
PINHOLE = 4  # pixels; a hole of no more is noise and would be a loop
STEP = 0.25  # pixels between samples across a vessel
BEYOND = 3  # samples beyond a wall in which its blur fades
PIXEL = 0.5  # pixels by which a vessel's end is off on each line
BLOCK = 2_000_000  # samples at a time


class Segment(NamedTuple):
    """A piece of vessel between branch points or ends.

    Attributes:
        points: (N, 2) float, (row, column) in pixels along the centreline, about one pixel apart.
        position: (N,) float, length of the centreline up to each point in pixels.
        width: (N,) float in pixels, nan where it cannot be told, as within a branch point or at an end.
        curvature: (N,) float in 1/pixel, 0 or more; nan within branch points.
        nodes: the numbers of the branch points at both ends, -1 for a free end.
        closed: a loop without a branch point.
    """

    points: np.ndarray
    position: np.ndarray
    width: np.ndarray
    curvature: np.ndarray
    nodes: tuple[int, int]
    closed: bool

    @property
    def length(self) -> float:
        """Of the whole centreline, in pixels."""
        return float(self.position[-1])


class Trace(NamedTuple):
    """All segments of a photograph, and where they meet.

    Attributes:
        segments: in no particular order.
        branch_points: (B, 2) float, (row, column) where three segments or more meet; a crossing is one.
        end_points: (E, 2) float, (row, column).
    """

    segments: list[Segment]
    branch_points: np.ndarray
    end_points: np.ndarray


@dataclass
class _Draft:
    """A segment before its curve is fitted."""

    points: np.ndarray  # (N, 2)
    nodes: tuple[int, int]
    closed: bool
    reach: float  # how far beyond a free end the vessel may go on
    island: bool  # too short to have a direction of its own


def trace(vessels: np.ndarray, coverage: np.ndarray | None = None) -> Trace:
    """Follow every vessel of a mask along its middle.

    Args:
        vessels: (H, W) bool.
        coverage: (H, W) float, 0..1, how much of each pixel is vessel; None takes the mask itself.

    Returns:
        The trace; empty for an empty mask.

    Example:
        >>> vessels = np.zeros((60, 60), bool)
        >>> vessels[28:33, 5:55] = True
        >>> [segment] = trace(vessels).segments
        >>> segment.points.shape[1], bool(abs(np.nanmedian(segment.width) - 5) < 0.5)
        (2, True)
    """
    mask = np.pad(np.asarray(vessels, bool), 1)
    if not mask.any():
        return Trace([], np.empty((0, 2)), np.empty((0, 2)))
    filled = _without_pinholes(mask)
    cover = np.pad(np.asarray(vessels if coverage is None else coverage, np.float32), 1)
    cover[filled & ~mask] = 1
    distance = ndimage.distance_transform_edt(filled)
    graph = skeleton_graph(filled, distance)
    walls = _Walls(cover, distance)
    drafts = [_draft(chain, graph.nodes, filled, distance) for chain in graph.chains]
    _move_between_walls(drafts, walls, graph.nodes, graph.radius)
    segments = [_fitted(draft, walls) for draft in drafts]
    segments = [segment for segment in segments if segment.length > 0]
    segments = _with_widths(segments, walls, graph.nodes, graph.radius)
    degree = np.bincount([n for s in segments for n in s.nodes if n >= 0], minlength=len(graph.nodes))
    ends = [
        point
        for segment in segments
        if not segment.closed
        for node, point in zip(segment.nodes, segment.points[[0, -1]], strict=True)
        if node < 0
    ]
    segments = [segment._replace(points=segment.points - 1) for segment in segments]  # less the padding
    return Trace(segments, graph.nodes[degree > 2] - 1, np.array(ends).reshape(-1, 2) - 1)


def widths_along(traced: Trace, vessels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widths of the same vessels in two masks: in the one that was traced, and in another across its lines.

    Unlike two mean calibres these do not differ because one mask has fine vessels that the other lacks.

    Args:
        traced: of the first mask.
        vessels: (H, W) bool, the second.

    Returns:
        two arrays (N,) float in pixels, at every point of the centrelines where the first width is known;
        the second is nan where its mask has no vessel, or one that is not limited by walls nearby.
    """
    mask = np.pad(np.asarray(vessels, bool), 1)
    segments = [segment for segment in traced.segments if np.isfinite(segment.width).any()]
    if not segments:
        return np.empty(0), np.empty(0)
    tangents = np.vstack([_tangents(segment.points, False) for segment in segments])
    points = np.vstack([segment.points for segment in segments]) + 1
    width = np.concatenate([segment.width for segment in segments])
    known = np.isfinite(width)
    points, tangents, width = points[known], tangents[known], width[known]
    walls = _Walls(mask.astype(np.float32), mask)
    normals = np.stack([-tangents[:, 1], tangents[:, 0]], 1)
    second, _ = walls.across(points, normals, reach=1.5 * width + 4)
    return width, np.where(walls.at(points) >= 0.5, second, np.nan)


def _without_pinholes(mask: np.ndarray) -> np.ndarray:
    holes, count = ndimage.label(~mask)
    size = np.bincount(holes.ravel(), minlength=count + 1)
    size[0] = PINHOLE + 1  # the vessels themselves
    return mask | (size <= PINHOLE)[holes]


class _Walls:
    """Where the walls are on both sides of any point of a vessel."""

    def __init__(self, cover: np.ndarray, distance: np.ndarray) -> None:
        self.cover, self.distance = cover, distance

    def at(self, points: np.ndarray) -> np.ndarray:
        """How much of the pixel at each point (..., 2) is vessel, interpolated."""
        return ndimage.map_coordinates(self.cover, np.moveaxis(points, -1, 0), order=1)

    def near(self, points: np.ndarray) -> np.ndarray:
        """The distance (N,) from each point's pixel to the background."""
        rows, columns = np.rint(points).astype(int).T
        height, width = self.distance.shape
        return self.distance[rows.clip(0, height - 1), columns.clip(0, width - 1)]

    def across(
        self, points: np.ndarray, normals: np.ndarray, reach: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Width (N,) of the vessel along each normal, and offset (N,) of its middle from the point.

        The width is what the pixels cover of the line across, so that on average it is area by length,
        without the half pixel by which a distance to the background is off. Both are nan where a wall is
        farther away than `reach` (N,), by default than in a vessel: the line runs into another one.
        """
        reach = 1.5 * self.near(points) + 2 if reach is None else reach
        width, offset = np.full(len(points), np.nan), np.full(len(points), np.nan)
        for scale in np.unique(np.ceil(np.log2(reach))):
            group = np.flatnonzero(np.ceil(np.log2(reach)) == scale)
            count = int(np.ceil(2.0**scale / STEP)) + BEYOND + 1
            for part in np.array_split(group, max(1, len(group) * count * 2 // BLOCK)):
                halves = [
                    self._half(points[part], side * normals[part], reach[part], count) for side in (-1, 1)
                ]
                (left, left_moment), (right, right_moment) = halves
                width[part] = left + right
                offset[part] = (right_moment - left_moment) / np.maximum(left + right, 1e-6)
        return width, offset

    def _half(self, points, normals, reach, count) -> tuple[np.ndarray, np.ndarray]:
        """What is covered (N,) from each point outwards up to the wall, and its first moment (N,)."""
        far = STEP * np.arange(count)
        cover = self.at(points[:, None] + far[:, None] * normals[:, None])  # (N, count)
        outside = cover < 0.5
        wall = outside.argmax(1)
        cover = np.where(np.arange(count) <= wall[:, None] + BEYOND, cover, 0)
        cover[:, 0] /= 2
        total = STEP * cover.sum(1)
        total[~outside.any(1) | (STEP * wall > reach)] = np.nan
        return total, STEP * (cover * far).sum(1)


def _draft(chain: Chain, nodes: np.ndarray, mask: np.ndarray, distance: np.ndarray) -> _Draft:
    """A chain of pixels, joined to its nodes, smooth, and without the ends that thinning bends."""
    pixels = chain.pixels
    near = distance[tuple(pixels.astype(int).T)]
    first, last = 0, len(pixels)
    if not chain.closed:
        steps = np.hypot(*np.diff(pixels, axis=0).T)
        along = np.r_[0, np.cumsum(steps)]
        if chain.nodes[0] < 0:
            first = int(np.argmax(along >= 1.5 * near)) if (along >= 1.5 * near).any() else last
        if chain.nodes[1] < 0:
            back = along[-1] - along[::-1]
            last -= int(np.argmax(back >= 1.5 * near[::-1])) if (back >= 1.5 * near[::-1]).any() else last
        if max(chain.nodes) < 0 and last - first < 3:
            return _island(pixels, mask, distance)
        if last - first < 2:
            first, last = 0, len(pixels)
    reach = 3 * float(near.max()) + 2
    points = pixels[first:last]
    if chain.nodes[0] >= 0:
        points = np.vstack([_line(nodes[chain.nodes[0]], points[0]), points])
    if chain.nodes[1] >= 0:
        points = np.vstack([points, _line(nodes[chain.nodes[1]], points[-1])[::-1]])
    return _Draft(_smooth(points, chain.closed), chain.nodes, chain.closed, reach, False)


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Points a pixel apart from `start` on towards `end`, which is left out."""
    count = max(1, round(float(np.hypot(*(end - start)))))
    return start + np.arange(count)[:, None] / count * (end - start)


def _smooth(points: np.ndarray, closed: bool, sigma: float = 2.0) -> np.ndarray:
    if closed:
        return ndimage.gaussian_filter1d(points, sigma, axis=0, mode="wrap")
    more = min(len(points) - 1, int(4 * sigma))
    before = 2 * points[0] - points[more:0:-1]
    after = 2 * points[-1] - points[-2 : -more - 2 : -1]
    smooth = ndimage.gaussian_filter1d(np.vstack([before, points, after]), sigma, axis=0)
    return smooth[more : more + len(points)]


def _island(pixels: np.ndarray, mask: np.ndarray, distance: np.ndarray) -> _Draft:
    """A shape hardly longer than it is wide: a start in its middle, in the direction of its long axis."""
    radius = float(distance[tuple(pixels.astype(int).T)].max())
    top, left = (pixels.min(0) - 2 * radius - 2).astype(int).clip(0)
    bottom, right = (pixels.max(0) + 2 * radius + 3).astype(int)
    parts, _ = ndimage.label(mask[top:bottom, left:right], structure=np.ones((3, 3)))
    row, column = pixels[0].astype(int)
    own = np.argwhere(parts == parts[row - top, column - left])
    middle = own.mean(0)
    axis = np.linalg.eigh(np.cov((own - middle).T, ddof=0))[1][:, 1]
    start = middle + (top, left)
    return _Draft(start + np.outer([-0.25, 0, 0.25], axis), (-1, -1), False, 2 * radius + 2, True)


def _move_between_walls(drafts: list[_Draft], walls: _Walls, nodes: np.ndarray, radius: np.ndarray) -> None:
    """Move the drafts' points to the middle between the walls, except within branch points."""
    long = [draft for draft in drafts if len(draft.points) > 2 and not draft.island]
    if not long:
        return
    points = np.vstack([draft.points for draft in long])
    tangents = np.vstack([_tangents(draft.points, draft.closed) for draft in long])
    normals = np.stack([-tangents[:, 1], tangents[:, 0]], 1)
    width, offset = walls.across(points, normals)
    sound = np.abs(offset) < 0.5 * width  # false for nan
    start = 0
    for draft in long:
        part = slice(start, start + len(draft.points))
        start = part.stop
        move = sound[part] & ~_within(draft.points, draft.nodes, nodes, radius)
        draft.points = draft.points + np.where(move, offset[part], 0)[:, None] * normals[part]


def _tangents(points: np.ndarray, closed: bool) -> np.ndarray:
    step = (np.roll(points, -1, 0) - np.roll(points, 1, 0)) if closed else np.gradient(points, axis=0)
    return step / np.maximum(np.hypot(*step.T)[:, None], 1e-9)


def _within(points: np.ndarray, ends: tuple[int, int], nodes: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Which points (N,) lie within one of the branch points that their segment ends in."""
    inside = np.zeros(len(points), bool)
    for node in ends:
        if node >= 0:
            inside |= np.hypot(*(points - nodes[node]).T) <= radius[node] + 1
    return inside


def _fitted(draft: _Draft, walls: _Walls) -> Segment:
    """The smoothest curve that the points of a draft allow, and its ends up to where the vessel ends."""
    points = draft.points
    if draft.closed:
        points = np.vstack([points, points[:1]])
    elif not draft.island:
        if draft.nodes[0] < 0:
            points = _onward(points[::-1], draft.reach, walls)[::-1]
        if draft.nodes[1] < 0:
            points = _onward(points, draft.reach, walls)
    steps = np.hypot(*np.diff(points, axis=0).T)
    points = points[np.r_[True, steps > 1e-3]]
    if len(points) < 2:
        width, curvature = np.full((2, len(points)), np.nan)
        return Segment(points, np.zeros(len(points)), width, curvature, draft.nodes, False)
    along = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
    curve = _spline(points, along, draft.closed)
    at = np.linspace(0, along[-1], max(2, int(np.ceil(along[-1])) + 1))
    (y, x), (dy, dx), (ddy, ddx) = (curve(at, order) for order in range(3))
    speed = np.maximum(np.hypot(dy, dx), 1e-9)
    curvature = (dx * ddy - dy * ddx) / speed**3
    middle = np.hypot(*curve((at[1:] + at[:-1]) / 2, 1))
    position = np.r_[0, np.cumsum((speed[1:] + 4 * middle + speed[:-1]) / 6 * np.diff(at))]  # Simpson's rule
    fitted = np.stack([y, x], 1)
    tangent = np.stack([dy, dx], 1) / speed[:, None]

    ends = [(np.empty((0, 2)), 0.0)] * 2
    if not draft.closed and draft.nodes[0] < 0:
        ends[0] = _end(fitted[::-1], -tangent[::-1], -curvature[::-1], draft.reach, walls)
    if not draft.closed and draft.nodes[1] < 0:
        ends[1] = _end(fitted, tangent, curvature, draft.reach, walls)
    (before, first_bend), (after, last_bend) = ends
    before = before[::-1]
    ahead = np.hypot(*np.diff(np.vstack([before, fitted[:1]]), axis=0).T)
    behind = np.hypot(*np.diff(np.vstack([fitted[-1:], after]), axis=0).T)
    start = np.r_[0, np.cumsum(ahead)]
    position = np.r_[start[:-1], start[-1] + position, start[-1] + position[-1] + np.cumsum(behind)]
    bent = np.abs(np.r_[np.full(len(before), first_bend), curvature, np.full(len(after), last_bend)])
    width = np.pad(np.zeros(len(fitted)), (len(before), len(after)), constant_values=np.nan)
    if draft.island:
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
        if position[-1] < max(2.0, np.nanmax(np.r_[0, walls.across(fitted, normal)[0]]) / 2):
            position = np.zeros_like(position)  # a dot has no length
        bent[:] = np.nan
    return Segment(np.vstack([before, fitted, after]), position, width, bent, draft.nodes, draft.closed)


def _spline(points: np.ndarray, along: np.ndarray, closed: bool) -> Callable[[np.ndarray, int], np.ndarray]:
    """A straight line, a parabola or a cubic spline of few knots: the first within what pixels account for.

    Returns:
        gives at positions (M,), for order 0, 1 or 2, the curve's points or derivatives (2, M).
    """
    count = len(points)
    if not closed:
        for degree in range(1, min(2, count - 1) + 1):
            line = np.polynomial.polynomial.polyfit(along / along[-1], points, degree)
            derivatives = [line, *(np.polynomial.polynomial.polyder(line, order) for order in (1, 2))]
            fitted = np.polynomial.polynomial.polyval(along / along[-1], line)
            allowed = STRAIGHT if degree == 1 else BENT
            if np.square(points.T - fitted).sum() <= count * allowed**2 or count <= degree + 2:
                return lambda at, order: (
                    np.polynomial.polynomial.polyval(at / along[-1], derivatives[order]) / along[-1] ** order
                )
    spline, _ = interpolate.splprep(points.T, u=along, k=3, s=count * BENT**2, per=closed, quiet=2)
    return lambda at, order: np.array(interpolate.splev(at, spline, der=order))


def _end(
    points: np.ndarray, tangents: np.ndarray, curvature: np.ndarray, reach: float, walls: _Walls
) -> tuple[np.ndarray, float]:
    """How a centreline goes on to where its vessel ends: points (N, 2) beyond the last one, their curvature.

    Lines beside the centreline, bent as it is, are followed to the vessel's end. Where all are equally long
    the vessel is cut off there; where they draw half a circle, that is its rounded tip, and the centreline
    ends in the circle's middle.
    """
    some = slice(-5, None)
    normals = np.stack([-tangents[some, 1], tangents[some, 0]], 1)
    across = walls.across(points[some], normals)[0]
    known = np.isfinite(across).any()
    width = float(np.nanmedian(across)) if known else 2 * float(walls.near(points[-1:])[0]) - 1
    width = max(width, 1.0)
    recent = max(3, min(len(curvature), int(3 * width)))
    bend = float(np.clip(curvature[-recent:].mean(), -1 / (2 * width), 1 / (2 * width)))
    bend = bend if abs(bend) > 1e-6 else 1e-6  # so that it can be divided by
    last, tangent = points[-1], tangents[-1]
    normal = np.array([-tangent[1], tangent[0]])
    beside = 0.38 * width * np.linspace(-1, 1, max(3, int(np.ceil(2 * width)) | 1))
    ahead = STEP * np.arange(int(np.ceil(reach / STEP)) + BEYOND + 1)

    def place(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        # (-dx, dy) is the normal of (dy, dx); a positive bend turns away from it
        turn = bend * u
        forward = np.sin(turn) / bend + v * np.sin(turn)
        sideways = -(1 - np.cos(turn)) / bend + v * np.cos(turn)
        return last + forward[..., None] * tangent + sideways[..., None] * normal

    # beside the wall a line is only partly within the vessel, up to its end as well as at it
    usual = walls.at(place(-np.linspace(0, width / 2, 5)[None, :], beside[:, None])).mean(1)
    cover = walls.at(place(ahead[None, :], beside[:, None])) / np.maximum(usual, 0.25)[:, None]
    until = np.where((cover >= 0.5).all(1), len(ahead) - 1, (cover < 0.5).argmax(1))
    cover = np.where(np.arange(len(ahead)) <= until[:, None] + BEYOND, cover, 0)
    cover[:, 0] /= 2
    far = STEP * cover.sum(1)
    arch = np.sqrt(np.maximum((width / 2) ** 2 - beside**2, 0))
    # least squares with a prior: half round, give or take a half, against pixels half a pixel off
    system = np.stack([np.ones_like(beside), beside, arch], 1) / PIXEL
    prior = np.array([0.0, 0, 2])
    *_, roundness = np.linalg.lstsq(np.vstack([system, prior]), np.r_[far / PIXEL, 1], rcond=None)[0]
    roundness = float(np.clip(roundness, 0, 1))
    end = float(np.clip((far - roundness * arch).mean(), 0, ahead[-1]))
    count = int(np.ceil(end))
    steps = np.linspace(0, end, count + 1)[1:] if count else np.empty(0)
    return place(steps, np.zeros_like(steps)), bend


def _onward(points: np.ndarray, reach: float, walls: _Walls) -> np.ndarray:
    """Points (N, 2), and more behind the last one, a pixel apart, while the walls keep their distance.

    The last half width of these is given back: there a rounded tip may have begun.
    """
    if len(points) < 4:
        return points
    tangents = _tangents(points, False)[-5:]
    widths = walls.across(points[-5:], np.stack([-tangents[:, 1], tangents[:, 0]], 1))[0]
    if not np.isfinite(widths).any():
        return points
    width = float(np.nanmedian(widths))
    apart = max(1, min(int(1.5 * width), (len(points) - 1) // 2))
    first, second = points[-1 - apart] - points[-1 - 2 * apart], points[-1] - points[-1 - apart]
    turn = np.arctan2(first[1] * second[0] - first[0] * second[1], first @ second)
    bend = float(np.clip(turn / apart, -1 / (2 * width), 1 / (2 * width))) if apart >= 5 else 0.0
    behind = max(3, min(int(width), len(points) - 1))
    trail = list(points)
    for _ in range(int(reach)):
        way = trail[-1] - trail[-1 - behind]
        tangent = _turned(way / max(float(np.hypot(*way)), 1e-9), bend * behind / 2)
        step, normal = trail[-1] + tangent, np.array([-tangent[1], tangent[0]])
        across, offset = (float(value[0]) for value in walls.across(step[None], normal[None]))
        if not (abs(across - width) <= max(0.15 * width, 0.6) and abs(offset) <= 0.3 * width):
            break
        trail.append(step + offset * normal)
    return np.array(trail[: max(len(points), len(trail) - int(np.ceil(0.55 * width)))])


def _turned(tangent: np.ndarray, angle: float) -> np.ndarray:
    """A tangent turned as a centreline's is that has bent by so much, in radians."""
    return np.cos(angle) * tangent - np.sin(angle) * np.array([-tangent[1], tangent[0]])


def _with_widths(
    segments: list[Segment], walls: _Walls, nodes: np.ndarray, radius: np.ndarray
) -> list[Segment]:
    """The segments with their widths, which like curvature are unknown within branch points."""
    if not segments:
        return []
    points = np.vstack([segment.points for segment in segments])
    tangents = np.vstack([_tangents(segment.points, False) for segment in segments])
    width, _ = walls.across(points, np.stack([-tangents[:, 1], tangents[:, 0]], 1))
    finished, start = [], 0
    for segment in segments:
        part = slice(start, start + len(segment.points))
        start = part.stop
        unknown = _within(segment.points, segment.nodes, nodes, radius)
        bent = np.where(unknown, np.nan, segment.curvature)
        own = np.where(unknown | np.isnan(segment.width), np.nan, width[part])
        finished.append(segment._replace(width=own, curvature=bent))
    return finished
