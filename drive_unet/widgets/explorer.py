"""Look into a prediction by hand: choose image, threshold, layer, opacity, zoom, and see the scores.

    explore(dataset, probabilities)        # maps made beforehand, or a model, which is run once per image

`draw` makes the picture, from arrays and without widgets; `Explorer` puts it into an `ipywidgets.Image`.
It works with ipywidgets 7.7 (Colab) and 8.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
from PIL import Image

from drive_unet.metrics.exact import Confusion
from drive_unet.plots.overlays import (
    COLOURS,
    FOUND,
    MEANING,
    as_image,
    as_mask,
    as_probability,
    fov_outline,
    paint,
    paint_errors,
    subdue,
    window,
)

#: The layers by their short name, and what the widget calls them.
LAYERS: dict[str, str] = {
    "photograph": "Photograph",
    "probability": "Probability",
    "vessels": "Vessels found",
    "errors": "Errors",
}
MAX_ZOOM = 12.0
_RIM = "#8C8C8C"
_INFERNO = (mpl.colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255 + 0.5).astype(np.uint8)


def draw(
    image: Any,
    probability: Any,
    vessels: Any = None,
    fov: Any = None,
    *,
    threshold: float = 0.5,
    layer: str = "errors",
    opacity: float = 0.9,
    zoom: float = 1.0,
    center: tuple[float, float] = (0.5, 0.5),
) -> np.ndarray:
    """Draw one layer over a photograph, whole or enlarged.

    Args:
        image: the photograph, anything `overlays.as_image` takes, (H, W) pixels.
        probability: of vessel, (H, W), 0..1 (or anything `overlays.as_probability` takes).
        vessels: the reference, a mask (H, W) or None; the layer "errors" needs it.
        fov: a mask (H, W) or None; no layer is drawn outside it, and its rim is outlined.
        threshold: a pixel counts as vessel from this probability on.
        layer: "photograph", "probability", "vessels" (those found) or "errors" (`overlays.COLOURS`, on grey).
        opacity: of the layer, 0..1.
        zoom: 1 shows the whole photograph, 2 a part half as high and wide at twice the size, and so on.
        center: of that part, (down, right), each from 0 to 1; at the borders the part moves inside.
    Returns:
        uint8 (H, W, 3). Enlarged pixels stay sharp squares.
    Raises:
        ValueError: for an unknown layer, "errors" without reference, or sizes that differ.
    """
    if layer not in LAYERS:
        raise ValueError(f"There is no layer {layer!r}; choose one of {', '.join(LAYERS)}.")
    if layer == "errors" and vessels is None:
        raise ValueError("The layer 'errors' needs the reference vessels; without labels choose 'vessels'.")
    picture, probability = as_image(image), as_probability(probability)
    inside = None if fov is None else as_mask(fov)
    reference = None if vessels is None else as_mask(vessels)
    size = picture.shape[:2]
    for name, plane in (("probability", probability), ("vessels", reference), ("fov", inside)):
        if plane is not None and plane.shape != size:
            raise ValueError(
                f"The {name} is {plane.shape}, the image {size} (height, width): give both one size."
            )
    ground = subdue(picture) if layer == "errors" else picture
    rim = None if inside is None else fov_outline(inside)
    return _compose(
        ground, probability, reference, inside, rim, threshold, layer, opacity, zoom, center, most=max(size)
    )


def _compose(
    ground: np.ndarray,
    probability: np.ndarray,
    vessels: np.ndarray | None,
    fov: np.ndarray | None,
    rim: np.ndarray | None,
    threshold: float,
    layer: str,
    opacity: float,
    zoom: float,
    center: tuple[float, float],
    most: int,
) -> np.ndarray:
    """Do what depends on the controls, for `draw`; masks are bool (H, W), `most` px the longest side."""
    height, width = ground.shape[:2]
    zoom = max(float(zoom), 1.0)
    middle = round(center[0] * height), round(center[1] * width)
    size = max(round(height / zoom), 1), max(round(width / zoom), 1)
    rows, columns = window((height, width), middle, size)
    step = -(
        -max(size) // most
    )  # of a photograph larger than the screen, every second or third pixel will do
    part = slice(rows.start, rows.stop, step), slice(columns.start, columns.stop, step)
    scale = min(1.0, most / max(height, width))
    height, width = round(height * scale), round(width * scale)
    picture = ground[part].copy()
    inside = np.ones(picture.shape[:2], bool) if fov is None else fov[part]
    if layer == "probability":
        colours = _INFERNO[(probability[part] * 255 + 0.5).astype(np.uint8)]
        blended = picture * np.float32(1 - opacity) + colours * np.float32(opacity) + np.float32(0.5)
        picture = np.where(inside[..., None], blended.astype(np.uint8), picture)
    elif layer == "vessels":
        paint(picture, (probability[part] >= threshold) & inside, FOUND, opacity)
    elif layer == "errors":
        assert vessels is not None
        paint_errors(picture, (probability[part] >= threshold) & inside, vessels[part] & inside, opacity)
    if rim is not None and layer != "photograph":
        paint(picture, rim[part], _RIM, 1.0)
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))


def encode(picture: np.ndarray, quality: int = 90) -> bytes:
    """Compress uint8 (H, W, 3) to a JPEG whose colours stay sharp along edges."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


class _View(NamedTuple):
    """What one image needs at every redraw, worked out once."""

    image: np.ndarray
    grey: np.ndarray
    probability: np.ndarray
    vessels: np.ndarray | None
    fov: np.ndarray | None
    rim: np.ndarray | None
    values: np.ndarray  # probabilities inside the FOV
    truth: np.ndarray | None  # the reference there


class Explorer(widgets.VBox):
    """A panel of controls and a line of scores over a picture; see `explore`.

    Its parts can be set from code, as in `explorer.threshold.value = 0.3`: `image`, `layer`, `threshold`,
    `opacity`, `zoom`, `down`, `right`. `picture` is the `ipywidgets.Image` and `line` the text above it.
    """

    def __init__(
        self,
        samples: Sequence[Any],
        predict: Callable[[int], Any],
        names: Sequence[str],
        *,
        threshold: float,
        start: int,
        layer: str,
        continuous: bool,
        width: str,
    ) -> None:
        self._samples, self._predict = samples, predict
        self._views: dict[int, _View] = {}
        self._quiet = False

        def slider(label: str, value: float, low: float, high: float, step: float) -> widgets.FloatSlider:
            return widgets.FloatSlider(
                value=value, min=low, max=high, step=step, description=label, continuous_update=continuous,
                readout_format=".2f" if step < 0.1 else ".1f", layout={"width": "32%", "min_width": "220px"},
            )  # fmt: skip

        options = [(str(name), i) for i, name in enumerate(names)]
        self.image = widgets.Dropdown(
            options=options, value=start, description="Image", layout={"width": "32%"}
        )
        self.layer = widgets.ToggleButtons(
            options=[(label, key) for key, label in LAYERS.items()],
            value=layer,
            style={"button_width": "auto"},
        )
        self.threshold = slider("Threshold", threshold, 0.0, 1.0, 0.01)
        self.opacity = slider("Opacity", 0.9, 0.0, 1.0, 0.05)
        self.zoom = slider("Zoom", 1.0, 1.0, MAX_ZOOM, 0.5)
        self.down = slider("Up, down", 0.5, 0.0, 1.0, 0.02)
        self.right = slider("Left, right", 0.5, 0.0, 1.0, 0.02)
        self.picture = widgets.Image(format="jpeg", layout={"width": width, "max_width": "100%"})
        self.line = widgets.HTML()
        self.legend = widgets.HTML(layout={"height": "30px"})  # kept when empty, so that nothing jumps
        wrap = {"flex_flow": "row wrap", "width": "100%"}
        super().__init__(
            [
                widgets.HBox([self.image, self.layer], layout=wrap),
                widgets.HBox([self.threshold, self.opacity, self.zoom], layout=wrap),
                widgets.HBox([self.down, self.right], layout=wrap),
                self.line,  # above the picture: both are on the screen while a slider moves
                self.legend,
                self.picture,
            ]
        )
        for control in (
            self.image, self.layer, self.threshold, self.opacity, self.zoom, self.down, self.right
        ):  # fmt: skip
            control.observe(self._changed, names="value")
        self._redraw()

    def _changed(self, change: dict[str, Any]) -> None:
        if not self._quiet:
            self._redraw()

    def _view(self) -> _View:
        index = self.image.value
        if index not in self._views:
            image, vessels, fov, *_ = self._samples[index]
            image, probability = as_image(image), as_probability(self._predict(index))
            vessels = None if vessels is None else as_mask(vessels)
            fov = None if fov is None else as_mask(fov)
            inside = np.ones(image.shape[:2], bool) if fov is None else fov
            rim = None if fov is None else fov_outline(fov)
            truth = None if vessels is None else vessels[inside]
            self._views[index] = _View(
                image, subdue(image), probability, vessels, fov, rim, probability[inside], truth
            )
        return self._views[index]

    def _redraw(self) -> None:
        view = self._view()
        if view.vessels is None and self.layer.value == "errors":
            self._quiet = True  # one redraw, not two
            self.layer.value = "vessels"
            self._quiet = False
        self.down.disabled = self.right.disabled = self.zoom.value <= 1
        layer = self.layer.value
        picture = _compose(
            view.grey if layer == "errors" else view.image,
            view.probability,
            view.vessels,
            view.fov,
            view.rim,
            self.threshold.value,
            layer,
            self.opacity.value,
            self.zoom.value,
            (self.down.value, self.right.value),
            most=1500,
        )
        self.picture.value = encode(picture)
        self.line.value = _scores(view, self.threshold.value)
        self.legend.value = _legend(layer)


def _scores(view: _View, threshold: float) -> str:
    """Say what the threshold gives, inside the field of view."""
    found = view.values >= threshold
    where = "in the frame" if view.fov is None else "inside the FOV"
    if view.truth is None:
        return f"{100 * found.mean():.1f} % of the pixels {where} called vessel; no reference to compare with"
    hit, called, true = (int(np.count_nonzero(mask)) for mask in (found & view.truth, found, view.truth))
    counts = Confusion(hit, called - hit, true - hit, found.size - called - true + hit)
    scores = {"Dice": counts.dice, "sensitivity": counts.sensitivity, "precision": counts.precision}
    listed = " · ".join(f"{name} " + (f"<b>{x:.3f}</b>" if x == x else "-") for name, x in scores.items())
    return f"{listed} (this image, {where}, threshold {threshold:.2f})"


def _legend(layer: str) -> str:
    if layer != "errors":
        return ""
    swatch = '<span style="background:{};border:1px solid #555;padding:0 0.7em;margin:0 0.4em 0 0"></span>{}'
    return "&emsp;".join(swatch.format(COLOURS[kind], meaning) for kind, meaning in MEANING.items())


def explore(
    dataset: Sequence[Any],
    predictor: Any,
    *,
    threshold: float | None = None,
    start: int = 0,
    layer: str = "errors",
    names: Sequence[str] | None = None,
    continuous: bool = True,
    width: str = "640px",
) -> Explorer:
    """Open the explorer on a dataset.

    Args:
        dataset: (image, vessels, fov) samples by index, such as a `DRIVEDataset` without transform; vessels
            and fov may be None.
        predictor: a probability map (H, W) per sample, or a model, run on an image when that is first chosen.
        threshold: at the start; None takes the model's own for one pass, else .5.
        start: index of the first image; layer: the first layer, see `draw`.
        names: of the images; None takes `dataset.names`, else numbers.
        continuous: redraw while a slider moves; False waits until it is let go (for a slow connection).
        width: of the picture on the page, in CSS.
    Returns:
        a widget: the last expression of a cell, or an argument of `display`.
    Raises:
        ValueError: if there are no images, another number of maps than of images, or no such layer.
    """
    count = len(dataset)
    if count == 0:
        raise ValueError("There is nothing to explore: the dataset is empty.")
    if layer not in LAYERS:
        raise ValueError(f"There is no layer {layer!r}; choose one of {', '.join(LAYERS)}.")
    if hasattr(predictor, "parameters"):  # a torch module

        def predict(index: int) -> Any:
            from drive_unet.inference import predict as run

            image, _, fov, *_ = dataset[index]
            return run(predictor, image, fov=fov)

        if threshold is None and hasattr(predictor, "threshold_for"):
            threshold = predictor.threshold_for(tta=False)
    else:
        if len(predictor) != count:
            raise ValueError(
                f"There are {count} images but {len(predictor)} predictions: give one per image, in order."
            )
        predict = predictor.__getitem__
    names = names if names is not None else getattr(dataset, "names", None) or [str(i) for i in range(count)]
    return Explorer(
        dataset,
        predict,
        names,
        threshold=0.5 if threshold is None else float(threshold),
        start=start,
        layer=layer,
        continuous=continuous,
        width=width,
    )
