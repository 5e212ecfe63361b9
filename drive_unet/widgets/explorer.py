"""Look into a prediction by hand: choose image, threshold, layer, opacity, zoom; see scores and measurements.

    explore(dataset, probabilities)        # maps made beforehand, or a model, which is run once per image

`draw` makes the picture, from arrays and without widgets; `Explorer` puts it into an `ipywidgets.Image`.
It works with ipywidgets 7.7 (Colab) and 8 and needs nothing else: `explorer.js`, for the mouse and for screen
readers, comes in an HTML widget.
"""

from __future__ import annotations

import asyncio
import base64
import html
import io
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
from PIL import Image

from drive_unet.measurement.table import MEASURES, measure
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
KEPT = 300_000_000  # bytes of images, maps and masks that are kept for a second look; one image in any case
LARGEST = 1500  # pixels of the picture's longest side
HELP = (
    "Picture: wheel zooms, drag moves, double click shows all. Keys on it: + − zoom, arrows move, "
    "0 shows all, n p next and previous, s saves."
)
#: What the table shows of `MEASURES`; the first is counted at every redraw, the others take long.
SHOWN = ("area_density", "length_density", "calibre_mean", "branch_points", "tortuosity")
REST = 0.3  # seconds that the controls must rest before vessels are measured
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
        below = Image.fromarray(picture)  # Pillow blends five times as fast as NumPy
        colours = Image.fromarray((probability[part] * 255 + 0.5).astype(np.uint8))
        colours.putpalette(_INFERNO.tobytes())
        blended = Image.blend(below, colours.convert("RGB"), opacity)
        below.paste(blended, mask=Image.fromarray(inside))
        picture = np.array(below)
    elif layer == "label":
        paint(picture, probability[part] & inside, COLOURS["TP"], opacity)
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


class _Source(NamedTuple):
    """What is measured: what a threshold gives of an image, or its label."""

    image: int
    threshold: float | None


class Explorer(widgets.VBox):
    """A picture with its controls beside it; see `explore`.

    Its parts can be set from code, as in `explorer.threshold.value = 0.3`: `image`, `layer`, `threshold`,
    `opacity`, `zoom`, `down`, `right`, `beside` (the label at the picture's side), `measuring` (whether
    vessels are measured). `picture` is the `ipywidgets.Image`, `line` the scores, `table` the measurements.
    `view()` gives the picture as an array, `save(path)` writes it.
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
        height: str,
    ) -> None:
        self._samples, self._predict = samples, predict
        self._names = [str(name) for name in names]
        self._views: OrderedDict[int, _View] = OrderedDict()
        self._numbers: dict[_Source, Mapping[str, float]] = {}  # what was measured so far
        self._failed: dict[_Source, str] = {}  # why what could not be measured was not
        self._resting: asyncio.TimerHandle | None = None  # until when the next measurement waits
        self._busy = False  # whether a thread is measuring; all else is done in the kernel's own
        self._quiet = False
        full = {"width": "auto"}
        narrow = {"description_width": "72px"}

        def slider(label: str, value: float, low: float, high: float, step: float) -> widgets.FloatSlider:
            return widgets.FloatSlider(
                value=value, min=low, max=high, step=step, description=label, continuous_update=continuous,
                readout_format=".2f" if step < 0.1 else ".1f", layout=full, style=narrow,
            )  # fmt: skip

        def button(label: str, tip: str, action: Callable[[Any], None]) -> widgets.Button:
            made = widgets.Button(
                description=label, tooltip=tip, layout={"width": "auto", "flex": "1 1 auto"}
            )
            made.on_click(action)
            return made

        options = [(name, i) for i, name in enumerate(self._names)]
        self.image = widgets.Dropdown(
            options=options, value=start, description="Image", layout=full, style=narrow
        )
        self.previous = button("‹ Previous", "The image before this one", lambda _: self._step(-1))
        self.next = button("Next ›", "The image after this one", lambda _: self._step(1))
        # radio buttons show which one is chosen in light and dark themes alike
        self.layer = widgets.RadioButtons(
            options=[(label, key) for key, label in LAYERS.items()],
            value=layer, description="Layer", layout={"width": "auto", "height": "auto"}, style=narrow,
        )  # fmt: skip
        self.threshold = slider("Threshold", threshold, 0.0, 1.0, 0.01)
        self.opacity = slider("Opacity", 0.9, 0.0, 1.0, 0.05)
        self.zoom = slider("Zoom", 1.0, 1.0, MAX_ZOOM, 0.1)
        self.down = slider("Up, down", 0.5, 0.0, 1.0, 0.02)
        self.right = slider("Left, right", 0.5, 0.0, 1.0, 0.02)
        self.beside = widgets.Checkbox(value=False, description="Label beside it", indent=False, layout=full)
        self.measuring = widgets.Checkbox(
            value=False, description="Measurements (large pictures take seconds)", indent=False, layout=full
        )
        self.reset = button(
            "Show all", "Zoom out to the whole photograph", lambda _: self._move(1.0, 0.5, 0.5)
        )
        self.keep = button("Save this view", "Download the picture as it is shown, as PNG", self._download)
        self.picture = widgets.Image(
            format="jpeg",
            layout={"max_width": "100%", "max_height": height, "width": "auto", "height": "auto"},
        )
        self.line, self.table, self.legend = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._download_link = widgets.HTML(layout={"display": "none"})
        self._state = widgets.HTML(layout={"display": "none"})
        self._wanted = widgets.Text(layout={"display": "none"})
        bridge = widgets.HTML(value=_bridge(), layout={"display": "none"})
        column = {"flex": "0 0 340px", "width": "340px", "max_width": "100%"}
        controls = widgets.VBox(
            [
                self.image,
                widgets.HBox([self.previous, self.next]),
                self.layer,
                self.threshold,
                self.opacity,
                self.zoom,
                self.down,
                self.right,
                self.beside,
                self.measuring,
                widgets.HBox([self.reset, self.keep]),
                self.line,
                self.table,
                self.legend,
                widgets.HTML(f'<small style="line-height:1.3;display:block">{HELP}</small>'),
            ],
            layout=column,
        )
        shown = widgets.Box(
            [self.picture], layout={"flex": "0 1 auto", "min_width": "0", "overflow": "hidden"}
        )
        hidden = [self._state, self._wanted, self._download_link, bridge]
        super().__init__(
            [widgets.HBox([shown, controls], layout={"width": "100%", "flex_flow": "row wrap"}), *hidden]
        )
        for part, name in (
            (self, "explorer"), (self.picture, "picture"), (self._wanted, "wanted"), (self._state, "state"),
            (self.line, "line"), (self.previous, "previous"), (self.next, "next"), (self.keep, "save"),
        ):  # fmt: skip
            part.add_class(f"drive-unet-{name}")
        followed = (
            self.image, self.layer, self.threshold, self.opacity,
            self.zoom, self.down, self.right, self.beside, self.measuring,
        )  # fmt: skip
        for number, control in enumerate(followed):
            control.add_class(f"drive-unet-named-{number}")
            control.observe(self._changed, names="value")
        self._wanted.observe(self._asked, names="value")
        self._redraw()

    def view(self) -> np.ndarray:
        """What is shown now: uint8 (H, W, 3)."""
        view = self._view()
        layer = self.layer.value
        place = self.zoom.value, (self.down.value, self.right.value), LARGEST
        picture = _compose(
            view.grey if layer == "errors" else view.image,
            view.probability,
            view.vessels,
            view.fov,
            view.rim,
            self.threshold.value,
            layer,
            self.opacity.value,
            *place,
        )
        if not self.beside.value or view.vessels is None:
            return picture
        black = np.broadcast_to(np.uint8(0), view.image.shape)  # no memory, however large
        label = _compose(black, view.vessels, None, view.fov, view.rim, 0.5, "label", 1.0, *place)
        return np.hstack([picture, label])

    def save(self, path: str | Path) -> Path:
        """Write what is shown now, in the format that the file's name says; gives the path."""
        path = Path(path)
        Image.fromarray(self.view()).save(path)
        return path

    def _changed(self, change: dict[str, Any]) -> None:
        if not self._quiet:
            self._redraw()

    def _step(self, by: int) -> None:
        """Go to the image before or after this one, from the last to the first."""
        self.image.value = (self.image.value + by) % len(self._names)

    def _move(self, zoom: float, down: float, right: float) -> None:
        """Set zoom and place together, with one redraw."""
        self._quiet = True
        try:
            self.zoom.value = round(min(max(zoom, 1.0), MAX_ZOOM), 1)  # as the slider does
            self.down.value = min(max(down, 0.0), 1.0)
            self.right.value = min(max(right, 0.0), 1.0)
        finally:
            self._quiet = False
        self._redraw()

    def _asked(self, change: dict[str, Any]) -> None:
        """A view that the mouse or a key on the picture asks for: "zoom down right number"."""
        try:
            zoom, down, right = map(float, change["new"].split()[:3])
        except ValueError:
            return  # nothing that the script wrote
        self._move(zoom, down, right)

    def _download(self, button: Any) -> None:
        buffer = io.BytesIO()
        Image.fromarray(self.view()).save(buffer, "PNG")
        name = re.sub(r"[^\w.-]+", "_", f"{self._names[self.image.value]}_{self.layer.value}.png")
        link = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        self._download_link.value = (
            f'<a download="{name}" href="{link}">{name}</a>'
            f'<img src="{_DOT}" onload="this.previousElementSibling.click()">'
        )

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
            while len(self._views) > 1 and sum(map(_size, self._views.values())) > KEPT:
                self._views.popitem(last=False)
        self._views.move_to_end(index)
        return self._views[index]

    def _redraw(self) -> None:
        view = self._view()
        if view.vessels is None and self.layer.value == "errors":
            self._quiet = True  # one redraw, not two
            self.layer.value = "vessels"
            self._quiet = False
        self.down.disabled = self.right.disabled = self.zoom.value <= 1
        self.beside.disabled = view.vessels is None
        layer = self.layer.value
        name = self._names[self.image.value]
        panes = 2 if self.beside.value and view.vessels is not None else 1
        # the script reads where the view is, before it gets the picture
        self._state.value = (
            f'<span data-zoom="{self.zoom.value:.2f}" data-down="{self.down.value:.4f}" '
            f'data-right="{self.right.value:.4f}" data-panes="{panes}" data-most="{MAX_ZOOM}">'
            f"{html.escape(name)}: {LAYERS[layer].lower()}, zoom {self.zoom.value:.1f}</span>"
        )
        self.picture.value = encode(self.view())
        self.line.value = _scores(view, self.threshold.value)
        self.legend.value = _legend(layer)
        self._measure(view)

    def _measure(self, view: _View) -> None:
        """Show what is known of the vessels, and measure the rest when the controls rest, in a thread.

        So moving on never waits for it. Where no event loop runs, as in a script, it is measured at once.
        """
        self.table.value = self._table(view)
        if self._missing() is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            while (source := self._missing()) is not None:
                self._numbers[source] = _measured(view, source.threshold)
            self.table.value = self._table(view)
            return
        if self._resting is not None:
            self._resting.cancel()
        self._resting = loop.call_later(REST, self._begin, loop)

    def _missing(self) -> _Source | None:
        """What is to be measured for the table shown now: first what the threshold gives, then the label."""
        index = self.image.value
        wanted = [_Source(index, self.threshold.value), _Source(index, None)]
        if not self.measuring.value or self._view().vessels is None:
            wanted = wanted[: int(self.measuring.value)]
        done = self._numbers.keys() | self._failed
        return next((source for source in wanted if source not in done), None)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._resting = None
        source = self._missing()
        if source is None or self._busy:
            return
        self._busy = True
        work = loop.run_in_executor(None, _measured, self._view(), source.threshold)
        work.add_done_callback(lambda done: self._finish(loop, source, done))

    def _finish(self, loop: asyncio.AbstractEventLoop, source: _Source, done: asyncio.Future) -> None:
        self._busy = False
        if done.cancelled():
            return  # the loop is closing
        if (error := done.exception()) is not None:  # told in the table: nobody awaits this
            self._failed[source] = f"{type(error).__name__}: {error}"
        else:
            self._numbers[source] = done.result()
        self.table.value = self._table(self._view())
        if self._resting is None:
            self._begin(loop)

    def _table(self, view: _View) -> str:
        """The table of measurements; of what is not measured yet, the density alone."""
        if not self.measuring.value:
            return ""
        columns = {"found": (view.values >= self.threshold.value, self.threshold.value)}
        if view.truth is not None:
            columns["label"] = (view.truth, None)
        numbers: dict[str, Mapping[str, float]] = {}
        failures = []
        for name, (vessels, threshold) in columns.items():
            source = _Source(self.image.value, threshold)
            counted = {SHOWN[0]: np.count_nonzero(vessels) / max(vessels.size, 1)}
            if source in self._failed:
                counted = dict.fromkeys(SHOWN, np.nan) | counted
                why = html.escape(self._failed[source])
                failures.append(f"<br><b>{name} could not be measured: {why}</b>")
            numbers[name] = self._numbers.get(source, counted)
        return _table(numbers) + "".join(failures)


_DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"  # one clear pixel


@cache
def _bridge() -> str:
    """A hidden picture that runs `explorer.js` when it is shown: scripts in an HTML widget are not run."""
    script = resources.files("drive_unet.widgets").joinpath("explorer.js").read_text(encoding="utf-8")
    return f'<img src="{_DOT}" alt="" onload="{html.escape(script)}">'


def _size(view: _View) -> int:
    return sum(part.nbytes for part in view if part is not None)


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


def _measured(view: _View, threshold: float | None) -> dict[str, float]:
    """What is shown of the measurements of what a threshold gives; without one, of the label."""
    if threshold is None:
        assert view.vessels is not None
        table = measure(view.vessels, view.fov, fractal=False)
    else:
        found = (view.probability >= threshold) & (True if view.fov is None else view.fov)
        table = measure(found, view.fov, view.probability, threshold=threshold, fractal=False)
    return {key: table[key] for key in SHOWN}


def _table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Measurements as a table, a column for each source; … stands for those that are still to come."""
    lines = ["<tr><th></th>" + "".join(f"<th>{name}</th>" for name in columns) + "</tr>"]
    for key in SHOWN:
        each = MEASURES[key]
        title = f"{each.title}, {each.unit}" if each.unit else each.title
        cells = [f"<td>{_cell(values.get(key), each.digits)}</td>" for values in columns.values()]
        lines.append(f'<tr><td style="text-align:left">{title}</td>{"".join(cells)}</tr>')
    table = f'<table style="width:100%;text-align:right;line-height:1.3">{"".join(lines)}</table>'
    if all(key in values for values in columns.values() for key in SHOWN):
        return table
    return f"{table}<small>… is measured once the controls rest; large pictures take seconds</small>"


def _cell(value: float | None, digits: int) -> str:
    if value is None:
        return "…"
    return f"{value:.{digits}f}" if value == value else "-"


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
    height: str = "72vh",
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
        height: of the picture on the page at most, in CSS; 72vh leaves room for JupyterLab's own bars.
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
        height=height,
    )
