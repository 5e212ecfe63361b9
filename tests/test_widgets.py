"""The explorers: what they draw, and that their controls change the picture, quickly."""

from __future__ import annotations

import asyncio
import base64
import io
import threading

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from drive_unet import metrics
from drive_unet.measurement import measure
from drive_unet.painter import painting
from drive_unet.painter.eye import AS_USUAL, Ingredients
from drive_unet.painter.painting import paint
from drive_unet.plots.overlays import COLOURS, FOUND, fov_outline, rgb
from drive_unet.widgets import explorer as explorer_module
from drive_unet.widgets import eye_explorer
from drive_unet.widgets.explorer import LAYERS, MAX_ZOOM, draw, encode, explore
from drive_unet.widgets.eye_explorer import ARTERIES, SLIDERS, VEINS, VIEWS, draw_eye_view, explore_eye

H, W = 120, 100
SMALL = 200, 194  # a frame for a painted eye


@pytest.fixture
def scene():
    rows, columns = np.mgrid[:H, :W]
    fov = (rows - H / 2) ** 2 + (columns - W / 2) ** 2 < 47**2
    image = np.where(fov[..., None], np.array([180, 90, 50]), 5).astype(np.uint8)
    vessels = np.zeros((H, W), bool)
    vessels[40:44, 20:80] = vessels[60:62, 20:80] = True
    probability = np.full((H, W), 0.05, np.float32)
    probability[40:44, 20:80] = 0.9  # found
    probability[80:84, 30:70] = 0.6  # invented
    probability[60:62, 20:80] = 0.3  # found at a low threshold only
    return image, probability, vessels, fov


@pytest.fixture
def explorer(scene):
    image, probability, vessels, fov = scene
    samples = [(image, vessels, fov), (image[::-1], vessels[::-1], fov), (image, None, None)]
    return explore(samples, [probability, probability[::-1], probability], names=["21", "22", "retina"])


def pixels(explorer):
    return np.asarray(Image.open(io.BytesIO(explorer.picture.value)))


def test_errors_have_their_colours(scene):
    picture = draw(*scene, opacity=1)
    assert picture.shape == (H, W, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[41, 50], rgb(COLOURS["TP"]))
    np.testing.assert_array_equal(picture[81, 50], rgb(COLOURS["FP"]))
    np.testing.assert_array_equal(picture[60, 50], rgb(COLOURS["FN"]))
    lower = draw(*scene, threshold=0.2, opacity=1)
    np.testing.assert_array_equal(lower[60, 50], rgb(COLOURS["TP"]))
    exact = draw(scene[0], scene[1].astype(np.float64), *scene[2:], threshold=0.6 + 1e-6, opacity=1)
    assert not (exact[81, 50] == rgb(COLOURS["FP"])).all()


def test_layers(scene):
    image, probability, vessels, fov = scene
    np.testing.assert_array_equal(draw(image, probability, layer="photograph"), image)
    np.testing.assert_array_equal(draw(*scene, layer="vessels", opacity=0)[41, 50], image[41, 50])
    np.testing.assert_array_equal(draw(*scene, layer="vessels", opacity=1)[41, 50], rgb(FOUND))
    shown = draw(*scene, layer="probability", opacity=1).astype(int).sum(axis=-1)
    assert shown[41, 50] > shown[81, 50] > shown[60, 50] > shown[100, 50]
    np.testing.assert_array_equal(draw(*scene, layer="probability")[~fov], image[~fov])
    everywhere = draw(image, np.ones((H, W)), vessels, fov, opacity=1)
    assert not (everywhere[~fov] == rgb(COLOURS["FP"])).all(axis=-1).any(), "nothing outside the FOV"


def test_zoom_enlarges_pixels_where_asked(scene):
    picture = draw(*scene, opacity=1, zoom=4, center=(41 / H, 50 / W))
    assert picture.shape == (H, W, 3)
    # the part is 30 x 25 pixels, rows 26..55 and columns 38..62
    np.testing.assert_array_equal(picture[::4, ::4], draw(*scene, opacity=1)[26:56, 38:63])
    corner = draw(*scene, zoom=4, center=(0, 0))
    np.testing.assert_array_equal(corner[::4, ::4], draw(*scene)[:30, :25])
    np.testing.assert_array_equal(
        draw(*scene, zoom=0.3), draw(*scene), err_msg="never smaller than the frame"
    )


def test_draw_takes_tensors_and_leaves_its_input_alone(scene):
    image, probability, vessels, fov = scene
    before = image.copy()
    tensors = (
        torch.tensor(np.moveaxis(image, -1, 0) / 255.0),
        torch.tensor(probability)[None],
        torch.tensor(vessels[None].astype(np.uint8)),
        torch.tensor(fov[None].astype(np.uint8)),
    )
    np.testing.assert_array_equal(draw(*tensors), draw(*scene))
    np.testing.assert_array_equal(image, before)


def test_draw_says_what_is_wrong(scene):
    image, probability, vessels, _ = scene
    with pytest.raises(ValueError, match="no layer 'heat'; choose one of photograph"):
        draw(image, probability, vessels, layer="heat")
    with pytest.raises(ValueError, match="needs the reference"):
        draw(image, probability)
    with pytest.raises(ValueError, match="probability is"):
        draw(image, probability[:50], vessels)


def test_the_widget_is_a_plain_box_with_a_jpeg(explorer):
    assert isinstance(explorer, ipywidgets.VBox)
    assert explorer._model_name == "VBoxModel", "a front end needs no extension"
    assert pixels(explorer).shape == (H, W, 3)
    assert [label for label, _ in explorer.image.options] == ["21", "22", "retina"]
    kinds = {type(child).__name__ for child in explorer.children}
    assert "Output" not in kinds


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("threshold", 0.2), ("opacity", 0.3), ("zoom", 3.0), ("layer", "photograph"),
        ("layer", "probability"), ("layer", "vessels"), ("image", 1), ("image", 2),
    ],
)  # fmt: skip
def test_each_control_changes_the_picture(explorer, control, value):
    before = explorer.picture.value
    getattr(explorer, control).value = value
    assert explorer.picture.value != before


def test_moving_needs_zoom(explorer):
    assert explorer.down.disabled
    explorer.zoom.value = 4
    assert not explorer.down.disabled
    for control in (explorer.down, explorer.right):
        before = explorer.picture.value
        control.value = 0.2
        assert explorer.picture.value != before


def test_the_line_gives_the_scores_inside_the_fov(explorer, scene):
    _, probability, vessels, fov = scene
    for threshold in (0.5, 0.2, 1.0):
        explorer.threshold.value = threshold
        counts = metrics.confusion(probability >= threshold, vessels, fov)
        assert f"Dice <b>{counts.dice:.3f}</b>" in explorer.line.value
        assert f"sensitivity <b>{counts.sensitivity:.3f}</b>" in explorer.line.value
        precision = "-" if threshold == 1.0 else f"<b>{counts.precision:.3f}</b>"
        assert f"precision {precision}" in explorer.line.value


def test_measurements_follow_the_threshold(explorer, scene):
    _, probability, vessels, fov = scene
    assert explorer.table.value == "", "they take time: only where they are asked for"
    explorer.measuring.value = True
    label = measure(vessels, fov)
    for threshold in (0.5, 0.2):
        explorer.threshold.value = threshold
        found = measure((probability >= threshold) & fov, fov, probability, threshold=threshold)
        for key, digits in (("area_density", 4), ("calibre_mean", 2), ("branch_points", 0)):
            cells = "".join(f"<td>{each[key]:.{digits}f}</td>" for each in (found, label))
            assert f"{cells}</tr>" in explorer.table.value
    explorer.image.value = 2
    assert "<th>found</th></tr>" in explorer.table.value, "it has no label"
    explorer.measuring.value = False
    assert explorer.table.value == ""


def test_another_view_measures_nothing_afresh(explorer, monkeypatch):
    explorer.measuring.value = True
    shown = explorer.table.value
    monkeypatch.setattr(explorer_module, "measure", None)  # it would fail
    explorer.zoom.value = 3
    assert explorer.table.value == shown


def test_moving_on_waits_for_no_measurement(explorer, scene, monkeypatch):
    _, probability, vessels, fov = scene
    going, may_go, thresholds = threading.Event(), threading.Event(), []

    def slow(found, fov, probability=None, *, threshold=None, **options):
        thresholds.append(threshold)
        going.set()
        assert may_go.wait(30)
        return measure(found, fov, probability, threshold=threshold, **options)

    async def drag():
        explorer.measuring.value = True
        for threshold in (0.25, 0.35, 0.45):
            explorer.threshold.value = threshold
        density = (((probability >= 0.45) & fov).sum() / fov.sum(), vessels.sum() / fov.sum())
        cells = "".join(f"<td>{each:.4f}</td>" for each in density)
        assert f"{cells}</tr>" in explorer.table.value, "what is counted follows at once"
        assert explorer.table.value.count("<td>…</td><td>…</td>") == 4
        assert "is measured once the controls rest" in explorer.table.value
        await asyncio.to_thread(going.wait, 30)
        picture = explorer.picture.value
        explorer.threshold.value = 0.2  # while a thread measures
        assert explorer.picture.value != picture
        may_go.set()
        while "…" in explorer.table.value:
            await asyncio.sleep(0.01)

    monkeypatch.setattr(explorer_module, "REST", 0.0)
    monkeypatch.setattr(explorer_module, "measure", slow)
    asyncio.run(asyncio.wait_for(drag(), 60))
    assert thresholds == [0.45, 0.2, None], "one at a time, and none that was moved past"
    found = measure((probability >= 0.2) & fov, fov, probability, threshold=0.2)
    for key, digits in (("calibre_mean", 2), ("branch_points", 0)):
        assert f"<td>{found[key]:.{digits}f}</td>" in explorer.table.value


def test_a_measurement_that_fails_is_told_in_the_table(explorer, monkeypatch):
    def failing(found, fov, probability=None, **options):
        if probability is None:  # the label
            return measure(found, fov, **options)
        raise RuntimeError("no <memory>")

    async def look():
        explorer.measuring.value = True
        while "…" in explorer.table.value:
            await asyncio.sleep(0.01)

    monkeypatch.setattr(explorer_module, "REST", 0.0)
    monkeypatch.setattr(explorer_module, "measure", failing)
    asyncio.run(asyncio.wait_for(look(), 60))
    assert "found could not be measured: RuntimeError: no &lt;memory&gt;" in explorer.table.value
    assert explorer.table.value.count("<td>-</td>") == 4, "the label, and what is counted, are there"
    monkeypatch.setattr(explorer_module, "measure", measure)
    explorer.threshold.value = 0.3
    assert "could not" not in explorer.table.value, "another threshold is measured"


def test_measurements_are_kept_for_a_way_back(explorer, monkeypatch):
    explorer.measuring.value = True
    shown = explorer.table.value
    explorer.threshold.value = 0.2
    monkeypatch.setattr(explorer_module, "measure", None)  # it would fail
    explorer.threshold.value = 0.5
    assert explorer.table.value == shown


def test_an_image_without_labels_shows_what_is_found(explorer):
    explorer.image.value = 2
    assert explorer.layer.value == "vessels"
    assert "no reference" in explorer.line.value
    explorer.layer.value = "errors"
    assert explorer.layer.value == "vessels"
    explorer.image.value = 0
    assert "Dice" in explorer.line.value


def test_the_legend_belongs_to_the_errors(explorer):
    assert all(colour in explorer.legend.value for colour in COLOURS.values())
    explorer.layer.value = "probability"
    assert explorer.legend.value == ""


class Constant(torch.nn.Module):
    """A network that calls everything vessel, counts its runs and knows its thresholds."""

    runs: list[int] = []  # of all copies

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor(2.0))
        self.runs.clear()

    def threshold_for(self, tta):
        return 0.9 if tta else 0.37

    def forward(self, image):
        self.runs.append(1)
        return image[:, :1] * 0 + self.bias


def test_a_model_runs_once_per_image(scene):
    image, _, vessels, fov = scene
    model = Constant()
    explorer = explore([(image, vessels, fov), (image, vessels, fov)], model, layer="vessels")
    assert explorer.threshold.value == pytest.approx(0.37)
    assert len(model.runs) == 1
    explorer.threshold.value = 0.6
    assert len(model.runs) == 1
    explorer.image.value = 1
    explorer.image.value = 0
    assert len(model.runs) == 2


def test_what_cannot_be_explored_is_refused(scene):
    image, probability, vessels, fov = scene
    with pytest.raises(ValueError, match="empty"):
        explore([], [])
    with pytest.raises(ValueError, match="1 images but 2 predictions"):
        explore([(image, vessels, fov)], [probability] * 2)
    with pytest.raises(ValueError, match="no layer"):
        explore([(image, vessels, fov)], [probability], layer="heat")


def test_encoding_keeps_the_colours(scene):
    picture = draw(*scene, opacity=1)
    back = np.asarray(Image.open(io.BytesIO(encode(picture)))).astype(int)
    assert np.abs(back[41, 40:60] - rgb(COLOURS["TP"])).max() < 25


@pytest.mark.parametrize("layer", list(LAYERS))
def test_a_redraw_composes_and_encodes_once(layer, monkeypatch):
    rng = np.random.default_rng(0)
    size = (58, 56)
    sample = rng.integers(0, 255, (*size, 3), dtype=np.uint8), rng.random(size) < 0.12, np.ones(size, bool)
    explorer = explore([sample], [rng.random(size).astype(np.float32)], layer=layer)
    drawn = []
    monkeypatch.setattr(explorer_module, "encode", lambda picture: drawn.append(picture) or encode(picture))
    explorer.threshold.value = 0.3
    assert len(drawn) == 1
    explorer._wanted.value = "4.00 0.3 0.7 1"  # three controls at once
    assert len(drawn) == 2


def test_the_mouse_asks_for_a_view(explorer):
    before = explorer.picture.value
    explorer._wanted.value = "4.00 0.3000 0.7000 1"
    assert (explorer.zoom.value, explorer.down.value, explorer.right.value) == (4, 0.3, 0.7)
    assert explorer.picture.value != before
    assert 'data-zoom="4.00" data-down="0.3000"' in explorer._state.value
    explorer._wanted.value = "900 -3 7 2"
    assert (explorer.zoom.value, explorer.down.value, explorer.right.value) == (MAX_ZOOM, 0, 1)
    kept = explorer.picture.value
    explorer._wanted.value = "nonsense"
    assert explorer.picture.value == kept
    explorer.reset.click()
    assert explorer.picture.value == before


def test_buttons_go_to_the_next_and_the_previous_image(explorer):
    explorer.next.click()
    assert explorer.image.value == 1
    explorer.previous.click()
    explorer.previous.click()
    assert explorer.image.value == 2, "from the first to the last"


def test_the_label_lies_beside_the_picture(explorer, scene):
    _, _, vessels, fov = scene
    explorer.beside.value = True
    shown = explorer.view()
    assert shown.shape == (H, 2 * W, 3)
    white = (shown[:, W:] == 255).all(axis=-1)
    np.testing.assert_array_equal(white, vessels & fov & ~fov_outline(fov))
    assert 'data-panes="2"' in explorer._state.value
    explorer.image.value = 2
    assert explorer.beside.disabled and explorer.view().shape == (H, W, 3), "it has no label"


def test_a_view_is_saved(explorer, tmp_path):
    explorer.zoom.value = 3
    path = explorer.save(tmp_path / "view.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), explorer.view())
    explorer.keep.click()
    link = explorer._download_link.value
    assert 'download="21_errors.png"' in link
    png = base64.b64decode(link.split("base64,")[1].split('"')[0])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), explorer.view())


def test_memory_is_bounded(scene, monkeypatch):
    image, probability, vessels, fov = scene
    monkeypatch.setattr(explorer_module, "KEPT", 400_000)
    explorer = explore([(image, vessels, fov)] * 6, [probability] * 6)
    sizes = []
    for index in (1, 2, 3, 4, 5, 0):
        explorer.image.value = index
        sizes.append(sum(map(explorer_module._size, explorer._views.values())))
    assert max(sizes) <= 400_000 and len(explorer._views) > 1


def test_large_photographs_are_thinned_to_the_screen():
    size = (2400, 1600)
    image = np.zeros((*size, 3), np.uint8)
    image[1200:] = 200
    explorer = explore([(image, None, None)], [np.zeros(size, np.float32)], layer="photograph")
    assert pixels(explorer).shape == (1500, 1000, 3)
    explorer.zoom.value = 4
    assert pixels(explorer).shape == (1500, 1000, 3)


# ---------------------------------------------------------------------- painted eyes


@pytest.fixture(scope="module")
def fundus():
    return paint(3, SMALL)


@pytest.fixture
def eye():
    return explore_eye(3, size=SMALL)


def has(picture, colour):
    return (picture == rgb(colour)).all(axis=-1)


def test_the_views_of_an_eye_have_their_colours(fundus):
    np.testing.assert_array_equal(draw_eye_view(3, size=SMALL), fundus.image)
    rim = has(draw_eye_view(3, "vessels", size=SMALL), "#8C8C8C")
    assert rim.any()
    assert not (rim & ~fundus.fov).any()
    picture = draw_eye_view(3, "vessels", size=SMALL)
    np.testing.assert_array_equal(has(picture, ARTERIES), fundus.arteries & ~rim)
    np.testing.assert_array_equal(has(picture, VEINS), fundus.veins & ~fundus.arteries & ~rim)
    picture = draw_eye_view(3, "observers", size=SMALL)
    first, second = fundus.vessels & ~rim, fundus.second_observer & ~rim
    np.testing.assert_array_equal(has(picture, COLOURS["TP"]), first & second)
    np.testing.assert_array_equal(has(picture, COLOURS["FP"]), second & ~first)
    np.testing.assert_array_equal(has(picture, COLOURS["FN"]), first & ~second)


def test_an_eye_is_drawn_from_numbers_alone():
    more = Ingredients(lesions=2)
    picture = draw_eye_view(4, mix=more, size=SMALL)
    assert picture.shape == (*SMALL, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, paint(4, SMALL, more).image)
    picture[:] = 0
    assert draw_eye_view(4, mix=more, size=SMALL).any(), "a picture is the caller's own"


def test_a_view_of_an_eye_that_does_not_exist_is_refused():
    for call in (draw_eye_view, explore_eye):
        with pytest.raises(ValueError, match="no view 'heat'; choose one of photograph"):
            call(view="heat")
    with pytest.raises(ValueError, match="seed=-1"):
        explore_eye(-1)


def test_the_eye_explorer_is_a_plain_box_with_a_jpeg(eye):
    assert isinstance(eye, ipywidgets.VBox)
    assert eye._model_name == "VBoxModel", "a front end needs no extension"
    assert pixels(eye).shape == (*SMALL, 3)
    assert [key for _, key in eye.view.options] == list(VIEWS)
    assert not any(slider.continuous_update for slider in (eye.seed, *eye.strengths.values()))
    assert "Output" not in {type(child).__name__ for child in eye.children}
    assert explore_eye(77, size=SMALL).seed.value == 77, "beyond the slider's usual end"


def test_the_eye_explorer_starts_with_the_usual_ingredients(eye):
    assert set(eye.strengths) == set(SLIDERS) <= set(Ingredients._fields)
    assert all(slider.value == AS_USUAL._asdict()[name] for name, slider in eye.strengths.items())
    assert eye.picture.value == encode(draw_eye_view(3, size=SMALL))


@pytest.mark.parametrize("name", list(SLIDERS))
def test_each_ingredient_changes_the_eye_and_can_be_taken_back(eye, name):
    before = eye.picture.value
    for end in {*SLIDERS[name][:2]} - {1.0}:
        eye.strengths[name].value = end
        assert eye.picture.value != before
        mix = AS_USUAL._replace(**{name: end})
        assert eye.picture.value == encode(draw_eye_view(3, mix=mix, size=SMALL))
    eye.strengths[name].value = 1
    assert eye.picture.value == before


def test_another_seed_is_another_eye(eye):
    before, line = eye.picture.value, eye.line.value
    eye.seed.value = 4
    assert eye.picture.value != before
    assert eye.line.value != line


def test_other_light_or_lesions_grow_no_vessels_afresh(eye):
    grown, behind = painting._vessels.cache_info().misses, painting._ground.cache_info().misses
    for name in ("lesions", "light", "reflex"):
        eye.strengths[name].value = SLIDERS[name][1]
    assert painting._vessels.cache_info().misses == grown
    assert painting._ground.cache_info().misses == behind
    assert eye.picture.value == encode(
        draw_eye_view(3, mix=Ingredients(lesions=6, light=2, reflex=2), size=SMALL)
    )


def test_the_lesions_slider_shows_in_every_eye():
    for seed in range(6):
        without, many = (
            draw_eye_view(seed, mix=Ingredients(lesions=strength), size=SMALL).astype(int)
            for strength in (0, SLIDERS["lesions"][1])
        )
        assert (np.abs(without - many).max(-1) > 12).sum() > 20


def test_another_view_paints_nothing_afresh(eye):
    assert eye.legend.value == ""
    painted, before = eye_explorer._painted.cache_info().misses, eye.picture.value
    legends = set()
    for view in ("vessels", "observers"):
        eye.view.value = view
        assert eye.picture.value != before
        legends.add(eye.legend.value)
    assert eye_explorer._painted.cache_info().misses == painted
    assert any(ARTERIES in legend and VEINS in legend for legend in legends)
    assert any(all(colour in legend for colour in COLOURS.values()) for legend in legends)


def test_the_eyes_line_says_how_much_is_vessel_and_how_far_observers_agree(eye, fundus):
    counts = metrics.confusion(fundus.second_observer, fundus.vessels, fundus.fov)
    share = 100 * fundus.vessels[fundus.fov].mean()
    assert f"<b>{share:.1f} %</b>" in eye.line.value
    assert f"Dice is <b>{counts.dice:.3f}</b>" in eye.line.value


def test_samples_of_a_dataset_are_explored(scene):
    image, probability, vessels, fov = scene
    explorer = explore([(image, vessels, fov, None)], [probability])  # a Sample has a fourth part
    assert explorer.image.value == 0
