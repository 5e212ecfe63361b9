"""Paint an eye by hand: choose a seed, turn a few ingredients up or down, and see photograph and labels.

    explore_eye()

`draw_eye_view` makes the picture, from numbers and without widgets; `EyeExplorer` puts it into an
`ipywidgets.Image`. It works with ipywidgets 7.7 (Colab) and 8.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import ipywidgets as widgets
import numpy as np

from drive_unet.painter.eye import AS_USUAL, Ingredients
from drive_unet.painter.painting import paint
from drive_unet.plots.overlays import COLOURS, fov_outline, paint_errors, subdue
from drive_unet.plots.overlays import paint as colour_in
from drive_unet.widgets.explorer import encode

#: What can be shown, by its short name, and what the widget calls it.
VIEWS: dict[str, str] = {
    "photograph": "Photograph",
    "vessels": "Arteries and veins",
    "observers": "Labels and second observer",
}
#: The ingredients with a slider: least, greatest, step.
SLIDERS: dict[str, tuple[float, float, float]] = {
    "density": (0.75, 1.35, 0.05),
    "tortuosity": (0.0, 2.0, 0.25),
    "twigs": (0.0, 1.0, 0.25),  # as usual means all that there is room for
    **dict.fromkeys(("reflex", "choroid"), (0.0, 2.0, 0.25)),
    "lesions": (0.0, 6.0, 0.5),  # most eyes have few: only so much brings out every kind
    "light": (0.0, 2.0, 0.25),
}
SEEDS = 50
SIZE = (438, 424)  # three quarters of DRIVE's frame
ARTERIES, VEINS = "#FF5A4D", "#4C9BFF"  # the field's red and blue, bright enough for a grey photograph
_LEGENDS = {
    "photograph": {},
    "vessels": {"arteries": ARTERIES, "veins": VEINS},
    "observers": {
        "both": COLOURS["TP"],
        "second observer only": COLOURS["FP"],
        "exact labels only": COLOURS["FN"],
    },
}

_painted = lru_cache(maxsize=4)(paint)  # another view of the same eye need not be painted again


def draw_eye_view(
    seed: int = 0, view: str = "photograph", mix: Ingredients = AS_USUAL, size: tuple[int, int] = SIZE
) -> np.ndarray:
    """Paint an eye and draw one view of it.

    Args:
        seed: of the eye, as for `painter.paint`.
        view: "photograph"; "vessels" (arteries and veins on the greyed photograph, arteries in front); or
            "observers" (the exact labels against the second observer's, in `overlays.COLOURS`).
        mix: strengths of the ingredients, such as ``Ingredients(lesions=2)``.
        size: (height, width) in pixels.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: for an unknown view, or strengths that cannot be painted.
    """
    if view not in VIEWS:
        raise ValueError(f"There is no view {view!r}; choose one of {', '.join(VIEWS)}.")
    fundus = _painted(seed, tuple(size), mix)
    if view == "photograph":
        return fundus.image.copy()
    picture = subdue(fundus.image)
    if view == "vessels":
        colour_in(picture, fundus.veins, VEINS, 1.0)
        colour_in(picture, fundus.arteries, ARTERIES, 1.0)
    else:
        paint_errors(picture, fundus.second_observer, fundus.vessels, 1.0)
    return colour_in(picture, fov_outline(fundus.fov, 1), "#8C8C8C", 1.0)


class EyeExplorer(widgets.VBox):
    """A panel of controls and a line of numbers over a painted eye; see `explore_eye`.

    Its parts can be set from code, as in `explorer.seed.value = 3`: `seed`, `view`, and in `strengths` a
    slider for each ingredient, as in `explorer.strengths["lesions"].value = 2`. `picture` is the
    `ipywidgets.Image` and `line` the text above it.
    """

    def __init__(self, seed: int, view: str, size: tuple[int, int], *, continuous: bool, width: str) -> None:
        self._size = size
        layout = {"width": "32%", "min_width": "220px"}
        self.seed = widgets.IntSlider(
            value=seed, min=0, max=max(SEEDS, seed), description="Eye (seed)", continuous_update=continuous,
            layout=layout,
        )  # fmt: skip
        self.view = widgets.ToggleButtons(
            options=[(label, key) for key, label in VIEWS.items()], value=view, style={"button_width": "auto"}
        )
        self.strengths = {
            name: widgets.FloatSlider(
                value=1.0, min=low, max=high, step=step, description=name.capitalize(),
                continuous_update=continuous, readout_format=".2f", layout=layout,
            )
            for name, (low, high, step) in SLIDERS.items()
        }  # fmt: skip
        self.picture = widgets.Image(format="jpeg", layout={"width": width, "max_width": "100%"})
        self.line = widgets.HTML()
        self.legend = widgets.HTML(layout={"height": "30px"})  # kept when empty, so that nothing jumps
        wrap = {"flex_flow": "row wrap", "width": "100%"}
        super().__init__(
            [
                widgets.HBox([self.seed, self.view], layout=wrap),
                widgets.HBox(list(self.strengths.values()), layout=wrap),
                self.line,
                self.legend,
                self.picture,
            ]
        )
        for control in (self.seed, self.view, *self.strengths.values()):
            control.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, change: dict[str, Any] | None = None) -> None:
        # rounded, because 0.75 and some steps of 0.05 are not quite 1
        mix = Ingredients(**{name: round(slider.value, 2) for name, slider in self.strengths.items()})
        seed, view = self.seed.value, self.view.value
        self.picture.value = encode(draw_eye_view(seed, view, mix, self._size))
        fundus = _painted(seed, self._size, mix)
        vessels, second = fundus.vessels, fundus.second_observer
        share = 100 * vessels.sum() / fundus.fov.sum()
        dice = 2 * (vessels & second).sum() / max(vessels.sum() + second.sum(), 1)
        self.line.value = (
            f"<b>{share:.1f} %</b> of the FOV is vessel; the second observer's Dice is <b>{dice:.3f}</b>"
        )
        chip = '<span style="background:#444;color:{};padding:0.2em 0.6em">{}</span>'
        self.legend.value = " ".join(chip.format(colour, what) for what, colour in _LEGENDS[view].items())


def explore_eye(
    seed: int = 0,
    *,
    view: str = "photograph",
    size: tuple[int, int] = SIZE,
    continuous: bool = False,
    width: str = "480px",
) -> EyeExplorer:
    """Open the explorer of painted eyes.

    Args:
        seed: of the first eye.
        view: the first view, see `draw_eye_view`.
        size: (height, width) in pixels; time goes with the area, and is a third of a second or so as it is.
        continuous: repaint while a slider moves; False waits until it is let go.
        width: of the picture on the page, in CSS.

    Returns:
        a widget: the last expression of a cell, or an argument of `display`.

    Raises:
        ValueError: if there is no such view, or the seed is negative.
    """
    if view not in VIEWS:
        raise ValueError(f"There is no view {view!r}; choose one of {', '.join(VIEWS)}.")
    if seed < 0:
        raise ValueError(f"seed={seed}: an eye's seed is 0 or more")
    return EyeExplorer(seed, view, (size[0], size[1]), continuous=continuous, width=width)
