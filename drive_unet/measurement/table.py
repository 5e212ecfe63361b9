"""The table of measurements of one photograph: whole, and in zones around the optic disc.

What each measure is, its source and what it is blind to: docs/measurements.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import ndimage, spatial

from drive_unet.errors import DataError
from drive_unet.measurement.fractal import box_counting_dimension
from drive_unet.measurement.skeleton import thinned
from drive_unet.measurement.tracing import Segment, Trace, trace
from drive_unet.metrics.pixels import binary
from drive_unet.preprocessing.fov import width_of

SHORTEST = 10.0  # pixels; a shorter piece between branch points has no tortuosity of its own
# Boxes for the fractal dimension: of so many calibres, as thinning loses what is smaller, to so much of all.
BOXES = 2.0, 6.0
QUANTILES = (5, 25, 50, 75, 95)  # per cent of the length that is narrower
WHOLE = "whole"
ZONES = {"B": (1.0, 1.5), "C": (1.0, 2.5)}  # from the disc's centre, in diameters of the disc


class Measure(NamedTuple):
    """What a measure is called and what becomes of it in another unit: value * unit ** power."""

    title: str
    unit: str  # in pixels
    power: int  # of a length, by which it scales
    digits: int


#: Every measure by its key, in the order of the table.
MEASURES: dict[str, Measure] = {
    "area_density": Measure("vessel area density", "", 0, 4),
    "length_density": Measure("vessel length density", "1/px", -1, 5),
    "calibre_mean": Measure("mean calibre", "px", 1, 2),
    "calibre_sd": Measure("spread of calibre", "px", 1, 2),
    **{f"calibre_{q}": Measure(f"calibre, {q} % narrower", "px", 1, 2) for q in QUANTILES},
    "branch_points": Measure("branch points", "", 0, 0),
    "end_points": Measure("end points", "", 0, 0),
    "tortuosity": Measure("tortuosity, arc over chord", "", 0, 4),
    "curvature": Measure("mean curvature", "1/px", -1, 5),
    "fractal_dimension": Measure("fractal dimension", "", 0, 3),
}


class Disc(NamedTuple):
    """The optic disc: where its centre is and how wide it is, in pixels of the photograph."""

    row: float
    column: float
    diameter: float


@dataclass(frozen=True)
class Measurements:
    """What `measure` gives. It prints itself as a table.

    Attributes:
        values: by region ("whole", and "B" and "C" where there is a disc), then by the key of the measure
            (`MEASURES`), in pixels; nan where there was nothing to measure.
        intervals: the same keys, (low, high) in pixels; empty unless they were asked for.
        calibres: (N,) float, pixels: the width at each pixel's length of centreline in the field of view.
        fov_width: pixels across the field of view.
        scale: micrometres to a pixel, or None.
        disc: the optic disc that the zones are laid around, or None.
    """

    values: Mapping[str, Mapping[str, float]]
    calibres: np.ndarray = field(repr=False)
    fov_width: float
    scale: float | None = None
    disc: Disc | None = None
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)

    def __getitem__(self, key: str) -> float:
        """A measure of the whole field of view, in pixels: ``measurements["calibre_mean"]``."""
        return self.values[WHOLE][key]

    def as_dict(self) -> dict[str, float]:
        """All numbers flat, for a row of a CSV: "calibre_mean", "B_calibre_mean", "calibre_mean_low", ...

        In pixels, and in widths of the field of view as "calibre_mean_fov", ...; "micrometres_per_pixel"
        tells how to convert to those, where it is known.
        """
        row: dict[str, float] = {}
        for region, values in self.values.items():
            prefix = "" if region == WHOLE else f"{region}_"
            for key, value in values.items():
                row[prefix + key] = value
                if power := MEASURES[key].power:
                    row[f"{prefix}{key}_fov"] = value / self.fov_width**power
                if key in self.intervals.get(region, {}):
                    row[f"{prefix}{key}_low"], row[f"{prefix}{key}_high"] = self.intervals[region][key]
        row["fov_width"] = self.fov_width
        if self.scale is not None:
            row["micrometres_per_pixel"] = self.scale
        return row

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table's cells, its head first: region, measure, pixels, widths of the FOV, micrometres."""
        head = ["zone", "measure", "in pixels", "in widths of the FOV"]
        ranged = bool(self.intervals)
        yield tuple(head + ["in µm"] * (self.scale is not None) + ["90 % interval, in pixels"] * ranged)
        for region, values in self.values.items():
            for key, value in values.items():
                measure = MEASURES[key]
                cells = [region, measure.title, _number(value, measure.digits, measure.unit)]
                other = value / self.fov_width**measure.power if measure.power else np.nan
                cells.append(_number(other, 2 if measure.power < 0 else 5, "") if measure.power else "")
                if self.scale is not None:
                    length = value * self.scale**measure.power
                    unit = measure.unit.replace("px", "µm")
                    cells.append(
                        _number(length, 1 if measure.power > 0 else 6, unit) if measure.power else ""
                    )
                if ranged:
                    low, high = self.intervals.get(region, {}).get(key, (np.nan, np.nan))
                    known = np.isfinite(low) and np.isfinite(high)
                    digits = measure.digits
                    cells.append(f"{low:,.{digits}f} to {high:,.{digits}f}" if known else "")
                yield tuple(cells)

    def __str__(self) -> str:
        table = list(self.rows())
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        lines = []
        for row in table:
            left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
            lines.append("  ".join(left + right).rstrip())
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([*lines, *self._notes()])

    def _repr_html_(self) -> str:
        head, *body = self.rows()
        cells = "".join(f'<th style="text-align:left">{cell}</th>' for cell in head)
        lines = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align:{"left" if column < 2 else "right"}">{cell}</td>'
                for column, cell in enumerate(row)
            )
            + "</tr>"
            for row in body
        )
        notes = "".join(f"<p>{note}</p>" for note in self._notes())
        return f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>{notes}"

    def _notes(self) -> list[str]:
        notes = [f"The field of view is {self.fov_width:g} px across."]
        if self.disc is not None:
            zones = "; ".join(
                f"zone {zone} is {near:g} to {far:g} of its diameters from its centre"
                for zone, (near, far) in ZONES.items()
            )
            notes.append(f"The optic disc is {self.disc.diameter:.0f} px across; {zones}.")
        return notes


def _number(value: float, digits: int, unit: str) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:,.{digits}f}{f' {unit}' if unit else ''}"


def measure(
    vessels: np.ndarray,
    fov: np.ndarray | None = None,
    probability: np.ndarray | None = None,
    *,
    threshold: float | None = None,
    disc: Disc | tuple[float, float, float] | None = None,
    scale: float | None = None,
    fractal: bool = True,
) -> Measurements:
    """Measure the vessels of one photograph.

    Args:
        vessels: (H, W) bool, or 0 and 1.
        fov: (H, W) bool, the field of view; None takes the whole frame. Vessels outside it do not count.
        probability: (H, W) float, 0..1, of which the vessels were made; with it the walls are placed between
            the pixels.
        threshold: of the probability, at and above which a pixel was called vessel; None works it out.
        disc: (row, column, diameter) of the optic disc in pixels, for the zones; None leaves them out.
        scale: micrometres to a pixel, where it is known.
        fractal: whether the fractal dimension is found, too, which takes a third of the time; else it is nan.

    Returns:
        The table.

    Raises:
        DataError: for arrays of other shapes or values, an empty field of view, or a scale or a disc that
            is not positive.

    Example:
        >>> vessels = np.zeros((60, 60), bool)
        >>> vessels[28:33, 5:55] = True  # five pixels wide
        >>> table = measure(vessels)
        >>> round(table["calibre_mean"], 1)
        5.0
    """
    vessels = _mask(vessels, "vessels")
    inside = np.ones(vessels.shape, bool) if fov is None else _mask(fov, "fov")
    if inside.shape != vessels.shape:
        raise DataError(
            f"vessels and fov differ in size: {vessels.shape} and {inside.shape} (height, width)."
        )
    if not inside.any():
        raise DataError("The field of view is empty: there is nothing to measure.")
    if scale is not None and not 0 < scale < np.inf:
        raise DataError(f"scale={scale}: micrometres to a pixel are more than 0.")
    if disc is not None:
        disc = Disc(*map(float, disc))
        if not (np.isfinite(disc).all() and disc.diameter > 0):
            raise DataError(f"{disc}: a disc has a place, and a diameter of more than 0 pixels.")
    vessels = vessels & inside
    traced = trace(vessels, None if probability is None else _coverage(vessels, probability, threshold))
    rim = _rim(inside)
    points = _in_a_row(traced.segments)
    values = {WHOLE: _region(vessels, inside, traced, points, rim)}
    if fractal:
        values[WHOLE]["fractal_dimension"] = _dimension(vessels, traced, values[WHOLE]["calibre_mean"])
    if disc is not None:
        rows, cols = np.ogrid[: vessels.shape[0], : vessels.shape[1]]
        away = np.hypot(rows - disc.row, cols - disc.column) / disc.diameter
        for zone, (near, far) in ZONES.items():
            values[zone] = _region(vessels, inside & (away >= near) & (away < far), traced, points, rim)
            del values[zone]["fractal_dimension"]  # a ring is too narrow for it
    known = np.isfinite(points.width)
    calibres = np.repeat(points.width[known], np.rint(points.length[known]).astype(int))
    return Measurements(values, calibres, float(width_of(inside)), scale, disc)


def _mask(mask: np.ndarray, name: str) -> np.ndarray:
    mask = np.asarray(mask)
    mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
    if mask.ndim != 2 or mask.size == 0:
        raise DataError(f"{name} must be (H, W), got shape {mask.shape}.")
    return binary(mask, name)


def _coverage(vessels: np.ndarray, probability: np.ndarray, threshold: float | None) -> np.ndarray:
    """How much of each pixel (H, W) is vessel, if its walls are where the probability is the threshold."""
    probability = np.squeeze(np.asarray(probability, np.float32))
    if probability.shape != vessels.shape:
        raise DataError(
            f"vessels and probability differ in size: {vessels.shape} and {probability.shape} (height, width)"
        )
    if not (probability.min() >= 0 and probability.max() <= 1):  # nan compares false
        raise DataError("probability lies in 0..1: divide 8 bits by 255, and take the sigmoid of logits")
    if not vessels.any():
        return vessels.astype(np.float32)
    rim = ndimage.binary_dilation(vessels) & ~vessels
    if threshold is None:
        below = probability[rim]
        lowest = float(probability[vessels].min())
        threshold = (lowest + float(below[below < lowest].max(initial=0))) / 2
    slope = np.hypot(*(_steepest(probability, axis) for axis in (0, 1)))
    cover = 0.5 + (probability - threshold) / np.maximum(slope, 1e-3)
    # the mask has the last word: a vessel's pixel is at least half covered, another at most half
    return np.where(vessels, cover.clip(0.5, 1), np.where(rim, cover.clip(0, 0.5), 0)).astype(np.float32)


class _Points(NamedTuple):
    """All centrelines' points in one row (N,), each with the length that belongs to it."""

    places: np.ndarray  # (N, 2)
    position: np.ndarray  # along its segment, in pixels
    length: np.ndarray
    width: np.ndarray
    curvature: np.ndarray
    segment: np.ndarray  # which one it belongs to
    loop: np.ndarray  # whether that comes back to where it starts, by segment


def _in_a_row(segments: list[Segment]) -> _Points:
    if not segments:
        none = np.empty(0)
        return _Points(np.empty((0, 2)), none, none, none, none, np.empty(0, int), np.empty(0, bool))
    halves = [np.diff(segment.position) / 2 for segment in segments]
    return _Points(
        np.vstack([segment.points for segment in segments]),
        np.concatenate([segment.position for segment in segments]),
        np.concatenate([np.append(half, 0) + np.append(0, half) for half in halves]),
        np.concatenate([segment.width for segment in segments]),
        np.concatenate([segment.curvature for segment in segments]),
        np.repeat(np.arange(len(segments)), [len(segment.points) for segment in segments]),
        np.array([segment.closed or segment.nodes[0] == segment.nodes[1] >= 0 for segment in segments]),
    )


def _steepest(values: np.ndarray, axis: int) -> np.ndarray:
    """The greater of the differences to both neighbours along an axis, (H, W)."""
    step = np.abs(np.diff(values, axis=axis))
    none = [(0, 0), (0, 0)]
    before, after = list(none), list(none)
    before[axis], after[axis] = (1, 0), (0, 1)
    return np.maximum(np.pad(step, before), np.pad(step, after))


def _region(
    vessels: np.ndarray, region: np.ndarray, traced: Trace, points: _Points, rim: spatial.KDTree
) -> dict[str, float]:
    """The measures of what lies in a region (H, W) bool of the field of view."""
    values = dict.fromkeys(MEASURES, float("nan"))
    area = int(region.sum())
    if area == 0:
        return values
    inside = _at(points.places, region)
    values["area_density"] = float((vessels & region).sum()) / area
    values["length_density"] = float(points.length[inside].sum()) / area
    known = inside & np.isfinite(points.width)
    values |= _calibre(points.width[known], points.length[known])
    values["branch_points"] = float(_at(traced.branch_points, region).sum())
    # where the field of view cuts a vessel off, the vessel does not end
    ends = traced.end_points[_at(traced.end_points, region)]
    typical = values["calibre_mean"] if np.isfinite(values["calibre_mean"]) else 1.0
    away = rim.query(np.rint(ends).clip(0, np.array(vessels.shape) - 1))[0] if len(ends) else np.empty(0)
    values["end_points"] = float((away > 1.5 + typical / 2).sum())
    arcs, chords, bends = _pieces(points, inside)
    straight = (arcs >= SHORTEST) & (chords > 0)
    if straight.any():
        values["tortuosity"] = float(np.average(arcs[straight] / chords[straight], weights=arcs[straight]))
    long = arcs >= SHORTEST
    if long.any():
        values["curvature"] = float(np.average(bends[long], weights=arcs[long]))
    return values


def _rim(inside: np.ndarray) -> spatial.KDTree:
    """The nearest pixels around a field of view (H, W) bool, some of them outside the frame.

    Few points are looked up in it: a tenth of the time of a distance for every pixel.
    """
    inside = np.pad(inside, 2)
    return spatial.KDTree(np.argwhere(ndimage.binary_dilation(inside) & ~inside) - 2)


def _at(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values (H, W) at points (N, 2); those at the frame's edge have that of the pixel there."""
    rows, columns = np.rint(points).astype(int).reshape(-1, 2).T
    return values[rows.clip(0, values.shape[0] - 1), columns.clip(0, values.shape[1] - 1)]


def _calibre(widths: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """Mean, spread and quantiles of widths (N,), each of which so much length has."""
    if not lengths.sum() > 0:
        return {}
    mean = float(np.average(widths, weights=lengths))
    spread = float(np.sqrt(np.average((widths - mean) ** 2, weights=lengths)))
    order = np.argsort(widths)
    narrower = (np.cumsum(lengths[order]) - lengths[order] / 2) / lengths.sum()
    quantiles = np.interp(np.array(QUANTILES) / 100, narrower, widths[order]).tolist()
    names = [f"calibre_{quantile}" for quantile in QUANTILES]
    return {"calibre_mean": mean, "calibre_sd": spread, **dict(zip(names, quantiles, strict=True))}


def _pieces(points: _Points, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arc, chord and mean curvature (P,) of each stretch of a segment in a region, without branch points.

    A loop's chord is 0, also where it hangs on a branch point: it has no tortuosity of this kind.
    """
    there = inside & np.isfinite(points.curvature)
    belongs = np.where(there, points.segment + 1, 0)
    change = np.flatnonzero(np.diff(belongs, prepend=0, append=0))
    first, last = change[:-1], change[1:] - 1
    kept = (belongs[first] > 0) & (last - first >= 2) if len(first) else np.empty(0, bool)
    first, last = first[kept], last[kept]
    arc = points.position[last] - points.position[first]
    chord = np.hypot(*(points.places[last] - points.places[first]).T)
    outside_branches = np.bincount(points.segment, np.isfinite(points.curvature), len(points.loop))
    whole = outside_branches[points.segment[first]] == last - first + 1
    chord[points.loop[points.segment[first]] & whole] = 0
    step = np.diff(points.position, append=0)
    bent = np.nan_to_num(points.curvature)
    turned = np.append(0, np.cumsum((bent + np.append(bent[1:], 0)) / 2 * step))
    return arc, chord, (turned[last] - turned[first]) / np.maximum(arc, 1e-9)


def _dimension(vessels: np.ndarray, traced: Trace, calibre: float) -> float:
    """The fractal dimension of the skeleton; of a shape that is hardly longer than wide, its own."""
    mask = np.pad(vessels, 1)
    length = sum(segment.length for segment in traced.segments)
    if not length > 3 * calibre:
        return box_counting_dimension(mask)
    skeleton = thinned(mask, ndimage.distance_transform_edt(mask))
    return box_counting_dimension(skeleton, finest=BOXES[0] * calibre, coarsest=BOXES[1])
