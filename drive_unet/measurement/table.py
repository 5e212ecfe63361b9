"""The table of measurements of one photograph: whole, and in zones around the optic disc.

What each measure is, its source and what it is blind to: docs/measurements.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from drive_unet.errors import DataError
from drive_unet.measurement.fractal import box_counting_dimension
from drive_unet.measurement.skeleton import thinned
from drive_unet.measurement.tracing import Segment, Trace, trace

SHORTEST = 10.0  # pixels; a shorter piece between branch points has no tortuosity of its own
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

        In pixels; "fov_width" tells how to convert, and so does "micrometres_per_pixel" where it is known.
        """
        row: dict[str, float] = {}
        for region, values in self.values.items():
            prefix = "" if region == WHOLE else f"{region}_"
            for key, value in values.items():
                row[prefix + key] = value
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

    Returns:
        The table.

    Raises:
        DataError: for arrays of other shapes or values, an empty field of view, or a scale or a disc that
            is not positive.
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
    columns = np.flatnonzero(inside.any(0))
    rim = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    values = {WHOLE: _region(vessels, inside, traced, rim, inside)}
    values[WHOLE]["fractal_dimension"] = _dimension(vessels, traced, values[WHOLE]["calibre_mean"])
    if disc is not None:
        rows, cols = np.ogrid[: vessels.shape[0], : vessels.shape[1]]
        away = np.hypot(rows - disc.row, cols - disc.column) / disc.diameter
        for zone, (near, far) in ZONES.items():
            values[zone] = _region(vessels, inside & (away >= near) & (away < far), traced, rim, inside)
    widths, weights = _calibres(traced.segments, inside)
    calibres = np.repeat(widths, np.maximum(np.rint(weights).astype(int), 0))
    return Measurements(values, calibres, float(columns[-1] - columns[0] + 1), scale, disc)


def _mask(mask: np.ndarray, name: str) -> np.ndarray:
    mask = np.asarray(mask)
    mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
    if mask.ndim != 2 or mask.size == 0:
        raise DataError(f"{name} must be (H, W), got shape {mask.shape}.")
    if mask.dtype != bool:
        wrong = mask[(mask != 0) & (mask != 1)]
        if wrong.size:
            raise DataError(
                f"{name} must hold 0 and 1 only, found {wrong.flat[0]!s}; divide a 0/255 mask by 255."
            )
    return mask.astype(bool)


def _coverage(vessels: np.ndarray, probability: np.ndarray, threshold: float | None) -> np.ndarray:
    """How much of each pixel (H, W) is vessel, if its walls are where the probability is the threshold."""
    probability = np.squeeze(np.asarray(probability, np.float32))
    if probability.shape != vessels.shape:
        raise DataError(
            f"vessels and probability differ in size: {vessels.shape} and {probability.shape} (height, width)"
        )
    if not vessels.any():
        return vessels.astype(np.float32)
    rim = ndimage.binary_dilation(vessels) & ~vessels
    if threshold is None:
        below = probability[rim]
        lowest = float(probability[vessels].min())
        threshold = (lowest + float(below[below < lowest].max(initial=0))) / 2
    slope = np.hypot(*np.gradient(probability))
    cover = 0.5 + (probability - threshold) / np.maximum(slope, 1e-3)
    # the mask has the last word: a vessel's pixel is at least half covered, another at most half
    return np.where(vessels, cover.clip(0.5, 1), np.where(rim, cover.clip(0, 0.5), 0)).astype(np.float32)


def _region(
    vessels: np.ndarray, region: np.ndarray, traced: Trace, rim: np.ndarray, fov: np.ndarray
) -> dict[str, float]:
    """The measures of what lies in a region (H, W) bool of the field of view."""
    area = int(region.sum())
    values = dict.fromkeys(MEASURES, float("nan"))
    if region is not fov:
        del values["fractal_dimension"]  # a ring is too narrow for it
    if area == 0:
        return values
    values["area_density"] = float((vessels & region).sum()) / area
    lengths = [_weights(segment)[_inside(segment.points, region)].sum() for segment in traced.segments]
    values["length_density"] = float(sum(lengths)) / area
    widths, weights = _calibres(traced.segments, region)
    if len(widths):
        mean = float(np.average(widths, weights=weights))
        values["calibre_mean"] = mean
        values["calibre_sd"] = float(np.sqrt(np.average((widths - mean) ** 2, weights=weights)))
        order = np.argsort(widths)
        share = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
        for quantile in QUANTILES:
            values[f"calibre_{quantile}"] = float(np.interp(quantile / 100, share, widths[order]))
    values["branch_points"] = float(_inside(traced.branch_points, region).sum())
    # where the field of view cuts a vessel off, the vessel does not end
    ends = traced.end_points[_inside(traced.end_points, region)]
    typical = values["calibre_mean"] if np.isfinite(values["calibre_mean"]) else 1.0
    at = np.rint(ends).astype(int).clip(0, np.array(rim.shape) - 1)
    values["end_points"] = float((rim[at[:, 0], at[:, 1]] > 1.5 + typical / 2).sum())
    pieces = [piece for segment in traced.segments for piece in _pieces(segment, region)]
    arcs, chords, bends = np.array(pieces).reshape(-1, 3).T
    long = (arcs >= SHORTEST) & (chords > 0)
    if long.any():
        values["tortuosity"] = float(np.average(arcs[long] / chords[long], weights=arcs[long]))
    bent = arcs >= SHORTEST
    if bent.any():
        values["curvature"] = float(np.average(bends[bent], weights=arcs[bent]))
    return values


def _weights(segment: Segment) -> np.ndarray:
    """How much of the centreline's length (N,) belongs to each of its points."""
    half = np.diff(segment.position) / 2
    return np.r_[half, 0] + np.r_[0, half]


def _inside(points: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Which points (N,) lie in a region; those at the frame's edge count to the pixel there."""
    rows, columns = np.rint(points).astype(int).reshape(-1, 2).T
    return region[rows.clip(0, region.shape[0] - 1), columns.clip(0, region.shape[1] - 1)]


def _calibres(segments: list[Segment], region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widths (N,) that are known in a region, and the length (N,) of centreline that has each."""
    widths, weights = [np.empty(0)], [np.empty(0)]
    for segment in segments:
        known = np.isfinite(segment.width) & _inside(segment.points, region)
        widths.append(segment.width[known])
        weights.append(_weights(segment)[known])
    return np.concatenate(widths), np.concatenate(weights)


def _pieces(segment: Segment, region: np.ndarray) -> Iterator[tuple[float, float, float]]:
    """Arc, chord and mean curvature of each stretch of a segment within a region, branch points left out.

    A loop's chord is 0: it has no tortuosity of this kind.
    """
    there = np.isfinite(segment.curvature) & _inside(segment.points, region)
    edges = np.flatnonzero(np.diff(np.r_[False, there, False].astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        if stop - start < 3:
            continue
        arc = float(segment.position[stop - 1] - segment.position[start])
        whole_loop = segment.closed and stop - start == len(segment.points)
        chord = 0.0 if whole_loop else float(np.hypot(*(segment.points[stop - 1] - segment.points[start])))
        bent = segment.curvature[start:stop]
        bend = ((bent[1:] + bent[:-1]) / 2 * np.diff(segment.position[start:stop])).sum() / max(arc, 1e-9)
        yield arc, chord, float(bend)


def _dimension(vessels: np.ndarray, traced: Trace, calibre: float) -> float:
    """The fractal dimension of the skeleton; of a shape that is hardly longer than wide, its own."""
    length = sum(segment.length for segment in traced.segments)
    slender = np.isfinite(calibre) and length > 3 * calibre
    mask = np.pad(vessels, 1)
    return box_counting_dimension(thinned(mask, ndimage.distance_transform_edt(mask)) if slender else mask)
