"""From photographs to probabilities: kinds of input, flips, tiles, other cameras."""

import importlib

import numpy as np
import pytest
import torch
from builders import photograph
from monai.inferers import sliding_window_inference
from PIL import Image
from repository import ROOT, read_notebook
from scipy import ndimage
from skimage.data import retina

from drive_unet.data import DRIVEDataset, load_drive
from drive_unet.errors import DataError
from drive_unet.inference import Segmenter, predict, predict_all, predict_flips, segment
from drive_unet.losses import loss_of
from drive_unet.metrics import confusion
from drive_unet.models import UNet, logits_of
from drive_unet.preprocessing import Preprocessing, Rim, detect_fov, prepare
from drive_unet.preprocessing.fov import width_of


@pytest.fixture(scope="module")
def model():
    return UNet.from_pretrained("synthetic-fast")  # knows photographs like those of these tests


@pytest.fixture(scope="module")
def drive():
    return load_drive("embedded")


def test_every_kind_of_photograph_gives_the_same_map(model, drive, tmp_path):
    sample = drive.test[0]
    array = np.asarray(sample.image.permute(1, 2, 0) * 255).round().astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "photograph.png")
    kinds = [sample, sample.image, torch.from_numpy(array).permute(2, 0, 1), array, Image.fromarray(array)]
    fov = sample.fov[0].numpy() > 0
    maps = [predict(model, kind, fov=fov) for kind in [*kinds, tmp_path / "photograph.png"]]
    assert (maps[0][~fov] == 0).all()
    assert maps[0].shape == (584, 565) and maps[0].dtype == np.float32
    assert 0 <= maps[0].min() and maps[0].max() <= 1
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), torch.zeros(1, 3, 8, 8), None]
)
def test_other_inputs_are_refused(model, wrong):
    with pytest.raises(ValueError, match="must be \\(H, W, 3\\) uint8|expected one photograph"):
        predict(model, wrong)


def test_what_is_no_network_or_no_threshold_is_refused(model):
    image = np.zeros((60, 60, 3), np.uint8)
    with pytest.raises(ValueError, match=r"a network is needed, not 'fast': UNet\.from_pretrained"):
        predict("fast", image)
    for threshold in (2, -0.1, float("nan")):
        with pytest.raises(ValueError, match="is no probability"):
            segment(model, image, threshold=threshold)


def test_a_home_folder_is_found(model, drive, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    Image.fromarray(retina()[::4, ::4].copy()).save(tmp_path / "eye.png")
    assert predict(model, "~/eye.png").max() > 0.5


def test_the_packaged_model_finds_vessels_on_held_out_photographs(model, drive):
    test = drive.test.subset(drive.test.names[:3])
    probabilities = predict_all(model, test)
    vessels, fovs = [sample.vessels for sample in test], [sample.fov for sample in test]
    dice = confusion(
        [probability >= model.threshold_single for probability in probabilities], vessels, fovs
    ).dice
    assert dice > 0.8


def test_the_mean_of_the_flips_is_what_tta_gives(model, drive):
    flips = predict_flips(model, drive.test[1])
    assert flips.shape == (4, 584, 565)
    np.testing.assert_allclose(flips.mean(axis=0), predict(model, drive.test[1], tta=True), atol=1e-6)
    np.testing.assert_allclose(flips[0], predict(model, drive.test[1]), atol=1e-6)
    half_turn = drive.test[1].image.flip(-2, -1), drive.test[1].fov[0].flip(-2, -1)
    turned = predict(model, half_turn[0], fov=half_turn[1])[::-1, ::-1]
    np.testing.assert_allclose(flips[3], turned, atol=1e-5)


def test_the_mirror_images_are_seen_a_quarter_larger_and_come_back_in_place(drive):
    sizes = []

    class FirstChannel(torch.nn.Module):
        def forward(self, images):
            sizes.append(tuple(images.shape[-2:]))
            return images[:, :1]

    flips = predict_flips(FirstChannel(), drive.test[1])
    assert sizes == [(584, 565), (736, 704), (736, 704), (584, 565)], "steps of 32 for others"
    np.testing.assert_allclose(flips[3], flips[0], atol=1e-6)
    np.testing.assert_allclose(flips[2], flips[1], atol=1e-3)
    model = FirstChannel()
    model.preprocessing = Preprocessing(finest=1080)
    sizes.clear()
    predict_flips(model, np.asarray(retina()))
    assert len(set(sizes)) == 1 and min(sizes[0]) > 1080, (
        "1,350 pixels across are more than any network has seen"
    )
    inside = drive.test[1].fov[0].numpy() > 0
    assert np.abs(flips[1] - flips[0])[inside].mean() < 0.01
    assert np.abs(flips[1] - np.roll(flips[0], 1, axis=1))[inside].mean() > 0.02


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("05_evaluation", ("zoom in",)),
        ("06_visualization", ("def trust", "def tiled")),
        ("07_your_own_photographs", ("zoom in", "result = segment(model, photograph, tta=True)")),
    ],
)
def test_what_notebooks_do_by_hand_is_the_package_s_for_finer_networks_and_other_rims(name, parts, capsys):
    finer, photograph = UNet.from_pretrained("open"), np.asarray(retina())  # 1,080 pixels across to it
    known = {"np": np, "torch": torch, "predict": predict, "model": finer, "sample": photograph}
    known |= {"prepared": prepare(photograph, preprocessing=finer.preprocessing), "photograph": photograph}
    known |= {"threshold": finer.threshold_single}
    for cell in read_notebook(ROOT / "notebooks" / f"{name}.ipynb").cells:
        if cell.cell_type == "code" and any(part in cell.source for part in parts):
            exec(cell.source.replace("synthetic-fast", "open"), known)
    said = capsys.readouterr().out
    assert "True" in said and "False" not in said


def test_tiles_agree_with_the_whole_photograph(model, drive):
    whole = predict(model, drive.test[2])
    tiled = predict(model, drive.test[2], tile=448, overlap=256)  # more than the network looks about
    fov = drive.test[2].fov[0].numpy().astype(bool)
    assert np.abs(whole - tiled)[fov].mean() < 0.001
    assert np.mean(((whole >= 0.5) == (tiled >= 0.5))[fov]) > 0.9995
    with pytest.raises(ValueError, match="overlap 320 must be"):
        predict(model, drive.test[2], tile=320, overlap=320)
    with pytest.raises(ValueError, match="tile 320 less overlap 300 must be 32 or more"):
        predict(model, drive.test[2], tile=320, overlap=300)


def test_predicting_changes_neither_mode_nor_transform(model, drive):
    test = drive.test.subset(
        drive.test.names[:1], transform=lambda sample: pytest.fail("the transform was used")
    )
    network = UNet(widths=(8, 8)).train()
    (prediction,) = predict_all(network, test)
    sample = drive.test[0]
    np.testing.assert_array_equal(prediction, predict(network, sample))
    assert torch.equal(test.stored(0).image, (sample.image * 255).round().to(torch.uint8))
    assert network.training


def test_predicting_counts_no_grey_levels(drive, monkeypatch):
    levels = importlib.import_module("drive_unet.preprocessing.levels")  # the module, not the function
    monkeypatch.setattr(levels, "levels", lambda image, fov: pytest.fail("they are of use to patches only"))
    test = DRIVEDataset.from_decoded("a", [drive.test.stored(0)])
    assert predict_all(UNet(widths=(4, 4)), test)[0].shape == (584, 565)


@pytest.mark.parametrize("size", [(1411, 1411), (300, 280)])
def test_another_camera_at_its_own_size(model, size):
    photograph = np.asarray(Image.fromarray(retina()).resize(size[::-1]))
    result = segment(model, photograph)
    assert result.probability.shape == result.vessels.shape == result.fov.shape == size
    assert not result.vessels[~result.fov].any()
    assert 0.04 < result.vessels[result.fov].mean() < 0.2
    assert np.array_equal(result.vessels, result.probability >= model.threshold_single)


def test_a_photograph_without_dark_surround_and_a_tiny_one(model):
    crop = retina()[500:800, 500:800]
    assert segment(model, crop).fov.all()
    assert predict(model, crop[:3, :5]).shape == (3, 5)


def test_a_crescent_along_the_rim_is_no_vessel_and_what_crosses_the_rim_is():
    y, x = np.mgrid[:400, :420]
    away = np.hypot(y - 200, x - 210)
    fov = (away < 190) & (y > 40)  # the frame cuts it off above, as many cameras do
    angle = np.arctan2(y - 200, x - 210)
    vessels = fov & (np.abs((angle * 7 / np.pi + 0.5) % 1 - 0.5) * away < 12)  # spokes
    crescent = fov & (away > 184) & (np.abs(angle) < 1)
    probability = np.where(vessels | crescent, 0.9, 0.02).astype(np.float32)
    belief = Rim(fov).belief(probability)
    believed = probability * belief
    assert (believed[crescent & ~vessels & (np.abs(angle) < 0.8)] < 0.3).mean() > 0.85
    deeper = vessels & (away < 183)
    np.testing.assert_array_equal(believed[deeper & (y > 60)], probability[deeper & (y > 60)])
    outermost = fov & (away > 190 - 0.012 * 380) & (y > 60)
    inside = fov & ~outermost
    assert (believed >= 0.5)[outermost].mean() <= 0.5 * (believed >= 0.5)[inside].mean()
    np.testing.assert_array_equal(Rim(np.ones_like(fov)).belief(probability), 1)
    np.testing.assert_array_equal(Rim(np.zeros_like(fov)).belief(probability), 1)


@pytest.mark.parametrize("shape", [(960, 999), (300, 310)])
def test_the_rim_holds_at_most_half_as_much_vessel_as_the_rest(model, shape):
    image = np.asarray(Image.fromarray(retina()).resize(shape[::-1]))
    away = ndimage.distance_transform_edt(detect_fov(image)) / shape[1]
    dim = (image * (1 - 0.75 * (1 - away / 0.08).clip(0) ** 2)[..., None]).astype(
        np.uint8
    )  # a dark periphery
    result = segment(model, dim)
    rim = result.fov & (ndimage.distance_transform_edt(result.fov) <= 0.012 * shape[1])
    assert result.vessels[rim].mean() <= 0.5 * result.vessels[result.fov & ~rim].mean()


@pytest.mark.parametrize(("weights", "reduced"), [("default", 1), ("open", 2)])
def test_nor_is_more_of_the_rim_called_where_the_mean_probability_is_low(weights, reduced):
    photograph = np.asarray(Image.fromarray(retina()).reduce(reduced))
    result = segment(UNet.from_pretrained(weights), photograph)
    rim = result.fov & (ndimage.distance_transform_edt(result.fov) <= 0.012 * width_of(result.fov))
    assert result.vessels[rim].mean() <= 0.5 * result.vessels[result.fov & ~rim].mean()


def test_the_limit_at_the_rim_leaves_alone_what_is_below_it():
    y, x = np.mgrid[:400, :420]
    away = np.hypot(y - 200, x - 210)
    fov, noise = away < 190, np.random.default_rng(0).random((400, 420))
    rim = Rim(fov)
    dense, sparse = (np.where(noise < share, 0.6, 0.3) for share in (0.1, 0.04))
    np.testing.assert_array_equal(rim.limit(np.where(rim.outermost, sparse, dense), 0.5), 1)
    np.testing.assert_array_equal(rim.limit(dense, 0.7), 1)  # nothing is called vessel
    limit = rim.limit(dense, 0.5)
    assert (limit[~rim.outermost] == 1).all()
    assert (dense * limit >= 0.5)[rim.outermost].mean() <= 0.05
    for empty in (np.ones_like(fov), np.zeros_like(fov)):
        np.testing.assert_array_equal(Rim(empty).limit(dense, 0.5), 1)


class Bare(torch.nn.Module):
    """Somebody's own network: it maps (B, 3, H, W) to logits, and that is all that is known of it."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, image):
        return self.layer(image)


def test_any_network_that_gives_logits_will_do(drive):
    torch.manual_seed(0)
    network, sample = Bare(), drive.test[0]
    whole = predict(network, sample)
    assert np.abs(whole - predict(network, sample, tile=320, overlap=64)).max() < 1e-3
    result = segment(network, sample, tta=True)
    assert np.array_equal(result.vessels, (result.probability >= 0.5) & result.fov)
    assert network.training


class Halving(torch.nn.Module):
    """A network whose answer is half as high and wide as the image."""

    def forward(self, image):
        return image[:, :1, ::2, ::2]


@pytest.mark.parametrize(
    "error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError("CUDA")]
)
def test_memory_that_runs_out_is_not_told_as_a_fault_of_network_or_loss(error):
    def fails(*_):
        raise error

    network = torch.nn.Conv2d(3, 1, 1)
    network.register_forward_hook(fails)
    image = torch.zeros(1, 3, 8, 8)
    with pytest.raises(type(error)) as caught:
        logits_of(network, image)
    assert caught.value is error
    with pytest.raises(type(error)) as caught:
        loss_of(fails, image, image, None)
    assert caught.value is error


class Pair(torch.nn.Module):
    """A network that answers with more than its logits."""

    def forward(self, image):
        return {"out": image[:, :1]}


@pytest.mark.parametrize("tile", [None, 256])
def test_an_answer_that_is_no_tensor_is_refused_in_words(drive, tile):
    with pytest.raises(DataError, match="makes dict of images .*, and returns them alone"):
        predict(Pair(), drive.test[0], tile=tile)


@pytest.mark.parametrize("network", [Halving(), UNet(num_classes=2, widths=(4, 6))], ids=["size", "classes"])
@pytest.mark.parametrize("tile", [None, 256])
def test_an_answer_of_another_shape_is_refused_in_words(drive, network, tile):
    with pytest.raises(ValueError, match=r"makes \(1, .* one logit a pixel is wanted, \(1, 1, \d+, \d+\)"):
        predict(network, drive.test[0], tile=tile)


def test_an_answer_that_is_no_number_is_refused_by_the_photograph_s_name(drive):
    network = Bare()
    torch.nn.init.constant_(network.layer.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="answer is not a number .* take others"):
        segment(network, drive.test[0])
    with pytest.raises(FloatingPointError, match=f"^{drive.test.names[0]}: the network's answer"):
        predict_all(network, drive.test)


def test_the_caller_s_network_stays_where_it_is(drive):
    network = UNet(widths=(4, 4)).train()
    predict(network, drive.test[0], device="cpu")
    with pytest.raises((RuntimeError, NotImplementedError)):
        predict(network, drive.test[0], device="meta")  # a device without numbers
    assert {value.device.type for value in network.parameters()} == {"cpu"}
    assert network.training
    assert all(value.requires_grad and not value.is_inference() for value in network.parameters())


def test_tiles_agree_with_monais(drive):
    torch.manual_seed(0)
    network, sample = Bare().eval(), drive.test[0]
    prepared = prepare(sample)
    with torch.inference_mode():
        theirs = sliding_window_inference(prepared.image[None], (320, 320), 1, network, 0.25, "gaussian")
    theirs = prepared.restore(torch.sigmoid(theirs)[0, 0])
    run = Segmenter(network, tile=320, overlap=80)
    difference = np.abs(prepared.restore(run.flips([prepared])[0, 0]) - theirs)
    # Theirs keep some weight at the rims of tiles, where convolutions see padding; elsewhere all is the same.
    assert np.quantile(difference, 0.95) < 1e-3 and difference.mean() < 2e-3


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (IndexError("out of range"), r"\(out of range\)"),
        (KeyError("out"), r"\(KeyError 'out'\)"),
        (AssertionError(), r"\(AssertionError\)"),
        (AttributeError("no shape"), r"\(no shape\)"),
        (ZeroDivisionError("by zero"), r"\(by zero\)"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_whatever_a_foreign_network_fails_with_is_told_in_words(error, words):
    class Foreign(torch.nn.Module):
        def forward(self, x):
            raise error

    with pytest.raises(DataError, match=rf"the network cannot take images \(1, 3, .*{words}: let it take"):
        logits_of(Foreign(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(DataError, match=rf"the loss fails on .*{words}: see what it expects"):
        loss_of(lambda *parts: Foreign()(parts[0]), *torch.zeros(2, 1, 1, 8, 8), None)


def test_what_a_callers_network_raises_to_stop_goes_through():
    class Stop(Exception):
        pass

    class Foreign(torch.nn.Module):
        def forward(self, x):
            raise Stop

    with pytest.raises(Stop):
        logits_of(Foreign(), torch.zeros(1, 3, 8, 8))


def test_a_photograph_in_place_of_the_network_is_told_in_a_line():
    with pytest.raises(
        ValueError, match=r"a network is needed, not array\(.*\[\.\.\.\]: UNet.from"
    ) as caught:
        segment(photograph(1), UNet(widths=(2, 3)))
    assert "\n" not in str(caught.value)
