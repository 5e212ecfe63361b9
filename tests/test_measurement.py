"""Measurements of drawn shapes against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from shapes import line

from drive_unet import DataError, measure


@pytest.mark.parametrize("flat", [False, True], ids=["round ends", "cut off"])
@pytest.mark.parametrize("width", [2.5, 5, 9, 20])
def test_straight_lines_at_any_angle(width, flat):
    for angle in (0.1, 0.4, 0.8, 1.2, 2.0, 3.0):
        mask = line(240, width, angle, flat=flat)
        table = measure(mask)
        assert table["length_density"] * mask.size == pytest.approx(240, rel=0.02)
        assert table["calibre_mean"] == pytest.approx(width, rel=0.02)
        assert table["tortuosity"] == pytest.approx(1, abs=1e-3)
        assert table["curvature"] < 1e-3
        assert (table["branch_points"], table["end_points"]) == (0, 2)


def test_what_cannot_be_measured_is_refused():
    mask = np.ones((20, 30), bool)
    for arguments, message in (
        ({"fov": mask[:10]}, "differ in size"),
        ({"fov": ~mask}, "empty"),
        ({"scale": 0}, "scale=0"),
        ({"disc": (3, 3, 0)}, "diameter"),
        ({"probability": np.ones((3, 3))}, "differ in size"),
    ):
        with pytest.raises(DataError, match=message):
            measure(mask, **arguments)
    with pytest.raises(DataError, match="divide a 0/255 mask"):
        measure(mask * np.uint8(255))
