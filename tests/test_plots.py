"""Figures: the colours at known pixels, the panels, titles and legends; no picture is compared as a whole."""

from __future__ import annotations

import inspect
import io

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

mpl.use("Agg")

import matplotlib.pyplot as plt

from drive_unet import metrics, plots
from drive_unet.plots import overlays
from drive_unet.plots.overlays import COLOURS, FOUND, rgb

H, W = 96, 80


@pytest.fixture(autouse=True)
def _no_open_figures():
    yield
    plt.close("all")


@pytest.fixture
def scene():
    """A disc with two vessels, of which the prediction finds one and invents another."""
    rows, columns = np.mgrid[:H, :W]
    fov = (rows - H / 2) ** 2 + (columns - W / 2) ** 2 < 38**2
    image = np.where(fov[..., None], np.array([180, 90, 50]), 0).astype(np.uint8)
    vessels, prediction = np.zeros((2, H, W), bool)
    vessels[30:35, 10:70] = prediction[30:35, 10:70] = True  # found
    vessels[50, 20:60] = True  # missed
    prediction[70:72, 30:50] = True  # false alarm
    image[vessels & fov] = (120, 40, 30)
    return image, vessels, fov, prediction


def drawn(figure):
    """Return the pictures of the visible axes that hold one."""
    figure.canvas.draw()
    return [ax.images[0].get_array() for ax in figure.axes if ax.get_visible() and ax.images]


def heading(ax):
    return ax.get_title(loc="left") or ax.get_title()


def finding(figure):
    return figure._suptitle.get_text()


def legend_texts(figure):
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


# ---------------------------------------------------------------------- arrays


def test_error_map_colours_each_pixel_by_its_fate(scene):
    _, vessels, fov, prediction = scene
    picture = overlays.error_map(prediction, vessels, fov)
    assert picture.shape == (H, W, 3)
    assert picture.dtype == np.uint8
    for (row, column), colour in {(32, 40): "TP", (71, 40): "FP", (50, 40): "FN"}.items():
        np.testing.assert_array_equal(picture[row, column], rgb(COLOURS[colour]))
    np.testing.assert_array_equal(picture[40, 40], 0)
    np.testing.assert_array_equal(picture[0, 0], 0)
    assert (picture[overlays.fov_outline(fov) & ~vessels & ~prediction] == 90).all()


def test_nothing_outside_the_fov_is_coloured(scene):
    _, vessels, fov, _ = scene
    everything = np.ones((H, W), bool)
    assert not overlays.error_map(everything, vessels, fov)[~fov].any()
    image = np.zeros((H, W, 3), np.uint8)
    assert not overlays.overlay(image, everything, fov=fov)[~fov].any()


def test_overlay_leaves_the_photograph_alone_elsewhere(scene):
    image, vessels, fov, prediction = scene
    before = image.copy()
    picture = overlays.overlay(image, prediction, fov=fov, opacity=1)
    np.testing.assert_array_equal(picture[32, 40], rgb(FOUND))
    np.testing.assert_array_equal(picture[~(prediction & fov)], image[~(prediction & fov)])
    compared = overlays.overlay(image, prediction, vessels, fov, opacity=1)
    np.testing.assert_array_equal(compared[50, 40], rgb(COLOURS["FN"]))
    assert (compared[60, 60] == compared[60, 60, 0]).all(), "the ground is grey"
    np.testing.assert_array_equal(image, before)


def test_an_outline_leaves_the_vessels_themselves_visible(scene):
    image, _, _, prediction = scene
    picture = overlays.overlay(image, prediction, opacity=1, outline=2)
    np.testing.assert_array_equal(picture[prediction], image[prediction])
    drawn = (picture != image).any(axis=-1)
    assert (picture[drawn] == rgb(FOUND)).all()
    near = ndimage.distance_transform_cdt(~prediction, "taxicab")
    np.testing.assert_array_equal(drawn, (near > 0) & (near <= 2))


def test_opacity_blends(scene):
    image, _, _, prediction = scene
    half = overlays.overlay(image, prediction, opacity=0.5)[32, 40].astype(int)
    assert np.abs(half - (image[32, 40].astype(int) + rgb(FOUND)) / 2).max() <= 1
    np.testing.assert_array_equal(overlays.overlay(image, prediction, opacity=0), image)


@pytest.mark.parametrize(
    "matrix",
    [  # Machado, Oliveira and Fernandes (2009): protanopia, deuteranopia, tritanopia, in linear RGB
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    ],
)
def test_error_colours_keep_apart_for_the_colour_blind(matrix):
    from skimage.color import rgb2lab

    shades = np.array([rgb(colour) for colour in COLOURS.values()] + [np.zeros(3), np.full(3, 90)]) / 255
    linear = np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4) @ np.transpose(
        matrix
    )
    linear = linear.clip(0, 1)
    seen = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    lab = rgb2lab(seen[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert apart[np.triu_indices(5, 1)].min() > 35


def test_any_kind_of_picture_becomes_rgb(scene):
    image = scene[0]
    channels_first = np.moveaxis(image, -1, 0)
    for same in (
        image,
        channels_first,
        torch.tensor(channels_first),
        torch.tensor(channels_first, requires_grad=False)[None],
        torch.tensor(channels_first / 255.0, requires_grad=True),
        Image.fromarray(image),
        np.dstack([image, image[..., 0]]),
        image.astype(np.uint16) * 257,
    ):
        np.testing.assert_array_equal(overlays.as_image(same), image)
    standardised = (image / 255.0 - 0.3) / 0.2
    stretched = overlays.as_image(standardised)
    assert stretched.min() == 0
    assert stretched.max() == 255
    with pytest.raises(ValueError, match="cannot be shown"):
        overlays.as_image(np.zeros((5, 6, 7)))


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (3, 253)])
@pytest.mark.parametrize("wrap", [np.asarray, torch.as_tensor, lambda a: a[None], lambda a: a[..., None]])
def test_masks_of_every_encoding(values, wrap):
    mask = np.random.default_rng(0).random((9, 7)) > 0.5
    encoded = np.where(mask, values[1], values[0]).astype(np.uint8)
    np.testing.assert_array_equal(overlays.as_mask(wrap(encoded)), mask)


def test_logits_probabilities_and_masks_are_told_apart():
    logits = np.array([[-3.0, 0.2], [2.0, -0.1]])
    probability = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(overlays.as_probability(logits), probability, atol=1e-6)
    np.testing.assert_allclose(overlays.as_probability(probability), probability, atol=1e-6)
    np.testing.assert_array_equal(overlays.as_mask(logits), logits >= 0)
    np.testing.assert_array_equal(overlays.as_mask(probability), logits >= 0)
    np.testing.assert_array_equal(overlays.as_mask(probability, 0.9), [[False, False], [False, False]])
    assert not overlays.as_mask(np.zeros((3, 3), np.uint8)).any()
    assert np.isfinite(overlays.as_probability(np.array([[-1e4, 1e4]]))).all()


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7])
def test_calibre_of_straight_vessels_is_exact(width):
    vessels = np.zeros((60, 40), bool)
    vessels[:, 15 : 15 + width] = True
    widths, centreline = overlays.calibre(vessels)
    inner = centreline.copy()
    inner[:12] = inner[-12:] = False
    assert inner.any()
    assert set(widths[inner]) == {width}
    assert not widths[~vessels].any()


def test_window_stays_inside_and_busiest_finds_the_crowd():
    assert overlays.window((100, 80), (0, 79), 20) == (slice(0, 20), slice(60, 80))
    assert overlays.window((100, 80, 3), (50, 40), (500, 10)) == (slice(0, 100), slice(35, 45))
    mask = np.zeros((100, 80), bool)
    mask[70:75, 60:65] = True
    rows, columns = overlays.window(mask.shape, overlays.busiest(mask, 20), 20)
    assert mask[rows, columns].sum() == mask.sum()


# ---------------------------------------------------------------------- figures of photographs


def test_show_sample_has_three_panels_and_states_the_share(scene):
    image, vessels, fov, _ = scene
    sample = (
        torch.tensor(np.moveaxis(image, -1, 0) / 255.0),
        torch.tensor(vessels[None].astype(np.uint8)),
        fov,
    )
    figure = plots.show_sample(sample)
    panels = drawn(figure)
    assert len(panels) == 3
    np.testing.assert_array_equal(panels[0], image)
    np.testing.assert_array_equal(panels[1], vessels)
    assert f"{100 * vessels[fov].mean():.1f} %" in finding(figure)
    assert len(drawn(plots.show_sample((image, None, fov)))) == 2, "no labels, no panel for them"


def test_show_images_keeps_values_and_hides_empty_cells(scene):
    image, _, fov, _ = scene
    grey = image[..., 1] / 7.0
    figure = plots.show_images([image, grey, fov], ["a", "b", "c"], columns=2, fov=fov, colourbar=True)
    panels = drawn(figure)
    assert len(panels) == 3
    np.testing.assert_allclose(panels[1], grey)
    assert [heading(ax) for ax in figure.axes[:3]] == ["a", "b", "c"]


def test_errors_and_zoom(scene):
    image, vessels, fov, prediction = scene
    figure = plots.plot_errors(image, prediction, vessels, fov)
    panels = drawn(figure)
    np.testing.assert_array_equal(panels[2], overlays.error_map(prediction, vessels, fov))
    dice = metrics.confusion(prediction, vessels, fov).dice
    assert f"Dice {dice:.3f}" in finding(figure)
    assert legend_texts(figure) == list(overlays.MEANING.values())
    swatches = [mpl.colors.to_hex(patch.get_facecolor()).upper() for patch in figure.legends[0].get_patches()]
    assert swatches == list(COLOURS.values())
    zoomed = plots.plot_errors(
        image, prediction, vessels, fov, zoom=(50, 40), size=20, labels=("x", "y", "z")
    )
    panels = drawn(zoomed)
    assert len(panels) == 6
    assert panels[5].shape[:2] == (24, 20), "the part has the photograph's proportions"
    np.testing.assert_array_equal(panels[5][12, 10], rgb(COLOURS["FN"]))
    assert legend_texts(zoomed) == ["x", "y", "z"]


def test_squash_marks_what_is_lost(scene):
    vessels = scene[1]
    small = np.zeros((H // 2, W // 2), bool)
    small[15:17, 5:35] = True  # the thick one survives in part, the thin one does not
    figure = plots.show_squash(vessels, small, size=30)
    marked = drawn(figure)[0]
    np.testing.assert_array_equal(marked[50, 40], rgb(COLOURS["FN"]))
    np.testing.assert_array_equal(marked[31, 40], rgb("#B0B0B0"))
    back = small.repeat(2, 0).repeat(2, 1)
    assert f"{100 * (vessels & ~back).sum() / vessels.sum():.0f} % of the vessel pixels" in finding(figure)


def test_patches_are_cut_where_the_boxes_are(scene):
    image = scene[0]
    corners = torch.tensor([[10, 20], [-4, 60], [40, 40]])
    panels = drawn(plots.show_patches(image, corners, 24, columns=2))
    assert len(panels) == 4
    np.testing.assert_array_equal(panels[1], image[10:34, 20:44])
    assert not np.asarray(panels[2])[:4].any(), "outside the photograph a patch is black"


def test_scores_of_several_rows_are_held_against_the_first():
    rows = {"first": {"AUC": 0.9, "Dice": 0.7}, "second": {"AUC": 0.95, "Dice": np.nan}}
    figure = plots.plot_scores(rows)
    assert finding(figure) == "AUC from 0.900 to 0.950, Dice from 0.700 to 0.700"
    assert legend_texts(figure) == ["AUC", "Dice"]
    held, auc, _, dice = figure.axes[0].lines
    assert held.get_xdata()[0] == 0.9
    assert list(auc.get_xdata()) == [0.9, 0.95] and np.isnan(dice.get_xdata()[1])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["first", "second"]


def test_intervals_of_too_few_photographs_are_not_shown():
    figure = plots.plot_intervals({"Dice": (0.0123, None, None)}, metric="gained", zero=True)
    assert finding(figure) == "Dice: gained +0.0123"
    assert figure.axes[0].get_xlabel() == "gained, of too few photographs for intervals"
    figure = plots.plot_intervals({"U-Net": (0.8, 0.7, 0.9)})
    assert finding(figure) == "U-Net: Dice 0.800, 95 % interval 0.700 to 0.900"
    assert "95 %" in figure.axes[0].get_xlabel()


def test_a_point_that_is_missing_is_left_out_of_curves():
    curve = (np.array([1, 0.5]), np.array([0, 1.0]))
    for plot in (plots.plot_roc, plots.plot_precision_recall):
        shown = legend_texts(plot({"U-Net": curve}, {"second observer": None, "frozen": (0.1, 0.9)}))
        assert "frozen" in shown and "second observer" not in shown


def test_pairs_cases_maps_fields_and_features(scene):
    image, vessels, fov, prediction = scene
    sample = image, vessels, fov
    assert len(drawn(plots.show_pairs([sample, sample, (image, None, None)], ["a", "b", "c"]))) == 6
    cases = plots.plot_cases(
        [sample] * 4, [prediction] * 4, [0.5, 0.9, np.nan, 0.7], ["p", "q", "r", "s"], count=1
    )
    titles = [heading(ax) for ax in cases.axes[:2]]
    assert titles == ["q: Dice 0.900", "p: Dice 0.500"]
    probability = np.where(prediction, 0.8, 0.1)
    maps = drawn(plots.show_maps(image, probability, probability / 9, fov))
    assert not np.asarray(maps[1])[~fov].any()
    field = plots.plot_receptive_field(image, {"small": 9, "large": 200}, (0, 0))
    assert [panel.shape[:2] for panel in drawn(field)] == [(H, W), (9, 9), (200, 200)]
    assert "large is decided from 200 x 200" in finding(field)
    levels = {"one": torch.rand(1, 3, 20, 16), "two": np.random.default_rng(0).random((9, 10, 8))}
    features = plots.plot_feature_maps(levels, count=4)
    assert len(drawn(features)) == 3 + 4
    assert "9 x 10 x 8" in features.axes[4].get_ylabel()


def test_feature_maps_pass_over_near_copies_and_look_inside_the_fov(scene):
    _, _, fov, _ = scene
    rng = np.random.default_rng(0)
    lively, quiet = rng.normal(size=(2, 48, 40))
    dead = np.zeros((48, 40))
    outside = dead.copy()
    outside[:5, :5] = 99.0  # where the photograph shows nothing
    level = np.stack([3 * lively, 2.9 * lively + 0.01, quiet, outside, dead])
    figure = plots.plot_feature_maps({"level": level}, count=2, fov=fov)
    assert [ax.texts[0].get_text() for ax in figure.axes] == ["0", "2"]
    assert len(drawn(plots.plot_feature_maps({"level": level}, count=5))) == 5, (
        "copies where nothing else is left"
    )


def test_masks_of_zeros_and_ones_are_black_and_white(scene):
    _, vessels, _, _ = scene
    (ax,) = plots.show_images([vessels.astype(np.uint8)]).axes
    assert ax.images[0].get_clim() == (0, 1)


def test_by_calibre_names_the_thinnest_and_the_thickest():
    figure = plots.plot_by_calibre({"up to 2 px": 0.6, "thicker": 0.934}, [0.3, 0.7])
    assert "thinnest vessels: 60 % of the pixels, of the thickest: 93 %" in finding(figure)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()][0] == "up to 2 px\n30 % of all"


@pytest.mark.parametrize("kind", ["logits", "probability", "mask", "tensor"])
def test_article_function_takes_what_its_readers_have(scene, kind):
    image, vessels, _, prediction = scene
    pred = {
        "logits": np.where(prediction, 4.0, -4.0)[None],
        "probability": np.where(prediction, 0.9, 0.1),
        "mask": Image.fromarray(prediction),
        "tensor": torch.tensor(np.where(prediction, 4.0, -4.0), requires_grad=True)[None, None],
    }[kind]
    image_tensor = torch.tensor(np.moveaxis(image, -1, 0) / 255.0)
    figure = plots.visualize_segmentation(image_tensor, Image.fromarray(vessels.astype(np.uint8) * 255), pred)
    panels = drawn(figure)
    assert len(panels) == 3
    np.testing.assert_array_equal(panels[1], vessels)
    np.testing.assert_array_equal(panels[2], prediction)
    assert f"Dice {metrics.confusion(prediction, vessels).dice:.3f}" in finding(figure)
    cut = ", threshold 0.5" if kind != "mask" else ""  # a mask was cut already, nobody knows where
    assert heading(figure.axes[2]) == f"Prediction{cut}"
    assert finding(plots.visualize_segmentation(image, vessels, pred, title="Would you?")) == "Would you?"
    assert len(drawn(plots.visualize_segmentation(image, None, pred))) == 2
    with pytest.raises(ValueError, match="one size"):
        plots.visualize_segmentation(image, vessels[:50], pred)


def test_hero_is_a_strip_of_three(scene):
    image, _, fov, prediction = scene
    figure = plots.hero(image, prediction, fov)
    panels = drawn(figure)
    assert len(panels) == 3
    width, height = figure.get_size_inches()
    assert width / height == pytest.approx(3 * W / H)
    assert not any(ax.get_title() for ax in figure.axes)


# ---------------------------------------------------------------------- charts


def history(rows=60, validate=10):
    made = [{"step": i, "loss": 1 / (i + 1), "lr": 1e-3 * (1 - i / rows)} for i in range(rows)]
    for i in range(validate - 1, rows, validate):
        made[i]["dice"] = 0.5 + i / 200
    return made


def test_history_marks_the_best_step():
    figure = plots.plot_history(history())
    assert "0.795 at step 59" in finding(figure)
    assert len(figure.axes) == 3
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xdata(), [9, 19, 29, 39, 49, 59])
    rows = [{**row, "dice": None} for row in history()]
    rows[3]["loss"] = float("nan")
    assert len(plots.plot_history(rows).axes) == 2, "no validation, no panel for it"
    assert plots.plot_history([{"step": 1, "loss": 0.3, "lr": 1e-3}]).axes


def test_curves_carry_area_dice_and_points():
    rng = np.random.default_rng(1)
    vessels = rng.random((40, 40)) < 0.15
    probability = np.clip(0.3 * rng.random((40, 40)) + 0.4 * vessels, 0, 1)
    found = metrics.confusion(probability >= 0.5, vessels)
    roc = plots.plot_roc({"net": metrics.roc_curve(probability, vessels)}, {"chosen": found, "human": None})
    area = metrics.auc(probability, vessels)
    assert f"{area:.4f}" in finding(roc)
    assert {f"net, AUC {area:.4f}", "guessing", "chosen"} <= set(legend_texts(roc))
    assert "human" not in legend_texts(roc), "there is none"
    precision_recall = metrics.precision_recall_curve(probability, vessels)
    figure = plots.plot_precision_recall({"net": precision_recall}, {"human": found, "other": (0.7, 0.6)})
    points = {line.get_label(): line.get_xydata()[0] for line in figure.axes[0].lines}
    np.testing.assert_allclose(points["human"], [found.sensitivity, found.precision])
    np.testing.assert_allclose(points["other"], [0.6, 0.7], err_msg="sensitivity lies on the horizontal axis")
    best = metrics.choose_threshold(probability, vessels)
    assert f"{metrics.confusion(probability >= best, vessels).dice:.3f}" in finding(figure)


def test_threshold_sweep_in_any_order():
    thresholds = np.array([np.inf, 0.8, 0.4, 0.6])
    figure = plots.plot_threshold(
        thresholds, {"Dice": [0, 0.7, 0.5, 0.8], "Se": [0, 0.1, 0.9, 0.5]}, chosen=0.6
    )
    assert "greatest at 0.60" in finding(figure)
    assert legend_texts(figure) == ["Dice", "Se", "chosen, frozen: 0.60"]


def test_per_image_confusion_calibre_and_histograms(scene):
    image, vessels, fov, prediction = scene
    strip = plots.plot_per_image({"net": [0.7, 0.9, 0.8], "human": [0.75, 0.8, 0.7]}, ["01", "02", "03"])
    assert "from 0.700 to 0.900" in finding(strip)
    assert {text.get_text() for text in strip.axes[0].texts} == {"01", "02"}
    matrix = plots.plot_confusion(metrics.confusion(prediction, vessels, fov))
    assert any(text.get_text() == f"{(prediction & vessels & fov).sum():,}" for text in matrix.axes[0].texts)
    widths = plots.plot_calibre([vessels, vessels], thin=1)
    assert 30 < int(finding(widths).split()[0]) < 50, "40 of about 96 px of centreline are one px wide"
    both = plots.plot_histograms(image, {"inside": fov, "outside": ~fov})
    assert [heading(ax) for ax in both.axes] == ["red", "green", "blue"]
    assert legend_texts(both) == ["inside", "outside"]
    named = plots.plot_histograms(
        {"standardised": np.random.default_rng(0).normal(size=(H, W))}, {"all": fov}
    )
    assert len(named.axes) == 1


# ---------------------------------------------------------------------- style


def test_every_public_figure_is_listed_and_documented():
    for name in plots.__all__:
        function = getattr(plots, name)
        assert inspect.getdoc(function), name
        if name != "use_style":
            assert inspect.signature(function).return_annotation == "Figure", name


def test_agreement_of_measurements_with_their_truth():
    truth = {"calibre": [3.0, 4.0, 5.0, 6.0], "tortuosity": [1.1, 1.2, 1.1, 1.3]}
    fast = {"calibre": [3.5, 4.5, 5.5, 6.5], "tortuosity": [1.3, 1.1, 1.2, np.nan]}
    figure = plots.plot_agreement(truth, {"fast": fast, "synthetic-fast": truth})
    assert "calibre is found best (r = 1.00), tortuosity worst" in figure.get_suptitle()
    calibre, tortuosity = figure.axes
    points = {line.get_label(): line.get_xydata() for line in calibre.lines}
    np.testing.assert_array_equal(points["fast"], np.stack([truth["calibre"], fast["calibre"]], 1))
    assert calibre.get_xlim() == calibre.get_ylim()
    title = tortuosity.get_title() or tortuosity.get_title(loc="left")  # where `use_style` was called before
    assert title.startswith("tortuosity (r = -")
    with pytest.raises(ValueError, match="one value of tortuosity"):
        plots.plot_agreement(truth, {"fast": {**fast, "tortuosity": [1.0]}})
    with pytest.raises(ValueError, match="nothing to show"):
        plots.plot_agreement({}, {})


def test_use_style_is_silent_and_needs_no_notebook(capfd):
    with mpl.rc_context():
        plots.use_style()
        assert mpl.rcParams["figure.dpi"] == 100
        assert mpl.rcParams["axes.titlelocation"] == "left"
        plots.use_style()
    assert capfd.readouterr() == ("", "")


def test_figures_stay_small_as_jpeg(scene):
    image, vessels, fov, prediction = scene
    buffer = io.BytesIO()
    figure = plots.plot_errors(image, prediction, vessels, fov)
    figure.savefig(buffer, format="jpeg", dpi=100, pil_kwargs={"quality": 85})
    assert len(buffer.getvalue()) < 100_000
    assert figure.get_size_inches()[0] == pytest.approx(10)


def test_notebook_shows_each_figure_once_as_jpeg(tmp_path):
    pytest.importorskip("ipykernel")
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    cells = [
        "import numpy as np, matplotlib.pyplot as plt\nfrom drive_unet import plots\nplots.use_style()",
        "plots.show_images([np.zeros((20, 20, 3), np.uint8)], title='A finding')\nplt.show()",
        "_ = plots.show_images([np.zeros((20, 20, 3), np.uint8)])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert notebook.cells[0].outputs == []
    for cell in notebook.cells[1:]:
        (output,) = cell.outputs
        assert output.output_type == "display_data"
        assert set(output.data) == {"image/jpeg", "text/plain"}


def test_reliability_is_told_in_the_title_and_drawn():
    counted = metrics.calibration(np.linspace(0, 1, 301), np.linspace(0, 1, 301) > 0.5)
    figure = plots.plot_reliability({"net": counted.reliability()})
    lines = [line for ax in figure.axes for line in ax.get_lines() if len(line.get_xdata()) > 2]
    assert any(
        np.allclose(line.get_ydata(), [row["vessels"] for row in counted.reliability()]) for line in lines
    )
    assert plots.plot_reliability({"net": counted.reliability()}, title="Mine").get_suptitle() == "Mine"


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [
        (0.1, 0.2, "mostly too high"),
        (0.3, 0.9, "mostly too low"),
        (0.3, 0.72, "some too low, others too high"),
    ],
)
def test_the_title_of_reliability_names_a_side_where_most_of_the_gap_lies_there(low, high, side):
    rows = [{"probability": p, "vessels": v, "share": 0.5} for p, v in ((0.2, low), (0.8, high))]
    assert plots.plot_reliability({"net": rows}).get_suptitle().endswith(f"on average, {side}")
