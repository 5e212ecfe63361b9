"""The networks: shapes, sizes, gradients, skips, weights in one file."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy
import torch
from safetensors.torch import save_file

from drive_unet import PaintedStream, models
from drive_unet.inference import predict
from drive_unet.models import ArticleNet, UNet, fused
from drive_unet.preprocessing import Preprocessing
from drive_unet.training.provenance import seen


@pytest.fixture(params=[UNet, ArticleNet])
def model(request):
    torch.manual_seed(0)
    return request.param()


@pytest.mark.parametrize("size", [(584, 565), (1, 1), (17, 31), (64, 64), (255, 3)])
def test_logits_have_the_size_of_the_input(model, size):
    with torch.inference_mode():
        logits = model.eval()(torch.rand(2, 3, *size))
    assert logits.shape == (2, 1, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("stem", "widths"), [(1, (8, 16)), (2, (8, 16, 24)), (4, (8, 8, 8, 8))])
def test_other_depths_stems_and_channels(stem, widths):
    model = UNet(in_channels=1, num_classes=3, widths=widths, stem=stem).eval()
    assert model(torch.rand(1, 1, 50, 33)).shape == (1, 3, 50, 33)
    assert model.multiple == stem * 2 ** (len(widths) - 1)


def test_every_parameter_receives_a_gradient(model):
    model.train()(torch.rand(2, 3, 64, 64)).square().mean().backward()
    silent = [
        name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum()
    ]
    assert silent == []


def test_skips_carry_what_the_bottleneck_loses():
    """With the bottleneck silenced a change of one pixel still reaches the output of the U-Net."""
    torch.manual_seed(0)
    model = UNet().eval()
    for parameter in model.bottleneck.parameters():
        parameter.data.zero_()
    image = torch.rand(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 32, 32] = 1 - changed[..., 32, 32]
    assert not torch.allclose(model(image), model(changed), atol=1e-5)


def receptive_field(network, size=32):
    """Rows and columns of the input that the middle output pixel looks at."""
    image = torch.zeros(1, 3, size, size, requires_grad=True)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.weight.data.abs_().add_(0.01)  # so that nothing cancels and every ReLU is open
            module.bias.data.fill_(1.0)
        if isinstance(module, torch.nn.MaxPool2d):
            module.forward = lambda x: torch.nn.functional.avg_pool2d(x, 2)  # which hides no pixel
    network(image)[0, 0, size // 2, size // 2].backward()
    seen = image.grad[0].abs().sum(0) > 0
    return int(seen.any(1).sum()), int(seen.any(0).sum())


def test_the_article_s_network_is_the_article_s():
    network = ArticleNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == 109_057
    layers = [type(layer).__name__ for layer in (*network.encoder, *network.decoder)]
    expected = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "ConvTranspose2d", "ReLU", "Conv2d"]
    assert layers == expected
    assert receptive_field(network) == (8, 8)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 64, 1)])
def test_another_shape_is_refused_with_its_numbers(model, shape):
    with pytest.raises(ValueError, match="takes \\(B, 3, H, W\\)"):
        model(torch.rand(shape))


def test_weights_make_the_round_trip(model, tmp_path):
    model.threshold, model.threshold_single = 0.375, 0.25
    model.preprocessing = Preprocessing(fov_width=300, tolerance=0.2)
    model.notes = {"data": "made up"}
    path = model.save_pretrained(tmp_path / "run" / "best.safetensors")
    for source in (path, path.parent, str(path)):
        loaded = type(model).from_pretrained(source)
        assert (loaded.notes, loaded.training) == ({"data": "made up"}, False)
        assert loaded.preprocessing == Preprocessing(fov_width=300, tolerance=0.2)
        assert (loaded.threshold_for(tta=True), loaded.threshold_for(tta=False)) == (0.375, 0.25)
        image = torch.rand(1, 3, 40, 40)
        assert torch.equal(model.eval()(image), loaded(image))
    assert [entry.name for entry in path.parent.iterdir()] == ["best.safetensors"]


PACKAGED = ("default", "drive", "fast", "open", "synthetic", "synthetic-fast")


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_bring_all_that_is_needed_to_use_them(name):
    model = UNet.from_pretrained(name)
    for threshold in (model.threshold, model.threshold_single):
        assert type(threshold) is float and 0.2 < threshold < 0.7
    assert sum(parameter.numel() for parameter in model.parameters()) < 2_000_000
    finest = {"default": 1080, "open": 1080, "synthetic": 810}.get(name)
    assert model.preprocessing == Preprocessing(fov_width=540, tolerance=0.1, finest=finest)
    assert {"data", "threshold", "training", "terms", "limits", "versions", "trained_on"} <= set(model.notes)
    with torch.inference_mode():
        assert model(torch.rand(2, 3, 61, 45)).isfinite().all()


def test_packaged_weights_know_what_they_learned_from():
    painted = UNet.from_pretrained("synthetic-fast").notes["trained_on"]
    assert not any(photograph.isdigit() for photograph in painted["names"])
    drive = [str(number) for number in range(21, 41)]
    record = UNet.from_pretrained("fast").notes["trained_on"]
    assert record["source"] == "DRIVE" and record["names"] == drive
    assert record["before"]["fingerprints"] == painted["fingerprints"]
    record = UNet.from_pretrained("drive").notes["trained_on"]
    assert record["source"] == "DRIVE" and set(drive) < set(record["names"])
    assert not any("_" in name for name in record["names"]), "no photograph of HRF"
    record = UNet.from_pretrained("default").notes["trained_on"]
    assert record["source"] == "DRIVE and HRF" and set(drive) < set(record["names"])
    assert {f"{number:02}_{group}" for number in range(1, 11) for group in ("h", "dr", "g")} < set(
        record["names"]
    )
    before = record["before"]
    assert before["source"] == "DRIVE" and set(drive) < set(before["names"])
    assert len(before["before"]["names"]) > 300, "the eyes of its first weights"
    known = UNet.from_pretrained("open").notes["trained_on"]
    assert known["source"] == "HRF" and not set(drive) & set(known["names"]), "no photograph of DRIVE"
    first = UNet.from_pretrained("synthetic").notes["trained_on"]
    assert known["before"]["fingerprints"] == first["fingerprints"]
    assert not any(photograph.isdigit() for photograph in first["names"])


@pytest.mark.skipif(
    not (np.__version__.startswith("2.4.") and scipy.__version__.startswith("1.17.")),
    reason="releases of NumPy and SciPy paint eyes a little differently; these are those of the weights",
)
def test_packaged_weights_know_painted_eyes_by_their_pixels():
    eyes = PaintedStream(2)
    for name in PACKAGED:
        assert seen(UNet.from_pretrained(name).notes, eyes) == eyes.names, name


def test_packaged_weights_are_small_and_the_default_is_taken_without_a_name():
    folder = Path(models.__file__).parent / "weights"
    assert {path.stem for path in folder.glob("*.safetensors")} == set(PACKAGED)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    default, named = UNet.from_pretrained().state_dict(), UNet.from_pretrained("default").state_dict()
    assert all(torch.equal(default[name], named[name]) for name in named)


def test_half_precision_halves_the_file_and_hardly_moves_the_answer(tmp_path):
    model = UNet.from_pretrained("synthetic")
    whole, half = (
        model.save_pretrained(tmp_path / f"{half}.safetensors", half=half) for half in (False, True)
    )
    sizes = [path.stat().st_size - 2 * len(json.dumps(model.notes)) for path in (half, whole)]
    assert sizes[0] < 0.65 * sizes[1]
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        one, other = (torch.sigmoid(UNet.from_pretrained(path)(image)) for path in (whole, half))
    assert 0 <= (one - other).abs().max() < 0.01


@pytest.mark.parametrize(
    "notes",
    [
        *([], {"training": 3}, {"trained_on": 5}, {"trained_on": {"names": [], "fingerprints": None}}),
        {"trained_on": {"names": ["1"]}},
        {"trained_on": {"names": [], "fingerprints": [], "before": {"names": [], "fingerprints": [7]}}},
    ],
)
def test_notes_that_no_training_wrote_are_refused(notes, tmp_path):
    model = UNet(widths=(4, 4))
    model.notes = notes
    path = model.save_pretrained(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="weights.safetensors is damaged or was not written by .*; save it"):
        UNet.from_pretrained(path)


def as_if_trained(model):
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return model


@pytest.mark.parametrize("size", [(64, 64), (61, 45)])
def test_folded_normalisation_gives_the_same_logits(size):
    torch.manual_seed(0)
    model = as_if_trained(UNet(widths=(6, 8))).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = fused(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fast.modules())
    assert model.training and not fast.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    image = torch.rand(1, 3, *size)
    with torch.inference_mode():
        assert torch.allclose(model.eval()(image), fast(image), atol=1e-4)


def test_hooks_see_what_they_saw_before_folding():
    torch.manual_seed(0)
    model, image, seen = as_if_trained(UNet(widths=(6, 8))).eval(), torch.rand(1, 3, 32, 32), []
    norm = model.encoder[0][1]
    for module in (norm, model.encoder[0]):
        module.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.inference_mode():
        model(image)
        fused(model)(image)
    assert len(seen) == 4
    assert torch.allclose(seen[0], seen[2], atol=1e-5) and torch.allclose(seen[1], seen[3], atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_network_that_cannot_be_copied_is_used_itself():
    model = torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Conv2d(3, 1, 1)))
    model(torch.rand(1, 3, 8, 8))  # keeps a tensor with a history, which Python cannot copy
    assert fused(model) is model and model.training
    model[0].eval()
    predict(model, np.full((8, 8, 3), 99, np.uint8), fov=np.ones((8, 8), bool))
    assert model.training and not model[0].training, "it stays as it is"


def test_a_run_s_folder_is_not_shadowed_by_packaged_weights_without_a_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = UNet(widths=(4, 4))
    mine.save_pretrained(Path("fast") / "best.safetensors")
    with pytest.warns(UserWarning, match="'fast' is taken for the packaged weights.*write ./fast"):
        assert UNet.from_pretrained("fast").arguments != mine.arguments
    for path in ("./fast", Path("fast"), "fast/best.safetensors"):
        assert UNet.from_pretrained(path).arguments == mine.arguments


def test_a_folder_as_a_hub_keeps_it(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, image = UNet(widths=(4, 4)).eval(), torch.rand(1, 3, 16, 16)
    model.threshold = 0.4
    model.save_pretrained(tmp_path / "mine")
    assert {"model.safetensors", "README.md"} <= {path.name for path in (tmp_path / "mine").iterdir()}
    loaded = UNet.from_pretrained(tmp_path / "mine")
    assert torch.equal(loaded(image), model(image)) and loaded.threshold == 0.4
    asked = []

    def download(repository, name, **options):
        asked.append((repository, name))
        return str(tmp_path / "mine" / name)

    monkeypatch.setattr(models, "hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **options: None)
    loaded = UNet.from_pretrained("somebody/some-weights")
    assert torch.equal(loaded(image), model(image)) and asked == [
        ("somebody/some-weights", "model.safetensors")
    ]


def test_a_hub_that_cannot_be_reached_ends_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="no weights at somebody/some-weights, and none.*synthetic"):
        UNet.from_pretrained("somebody/some-weights", cache_dir=tmp_path)


def test_weights_that_cannot_be_used_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="packaged name: .*synthetic"):
        UNet.from_pretrained(tmp_path / "nothing.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="broken.safetensors is damaged"):
        UNet.from_pretrained(broken)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(1)}, foreign, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="foreign.safetensors is damaged or was not written by"):
        UNet.from_pretrained(foreign)
    for config in ("[]", "{}", '{"model": "UNet", "arguments": 3}', "not JSON", "[" * 100_000):
        save_file({"weight": torch.zeros(1)}, foreign, metadata={"config": config})
        with pytest.raises(ValueError, match="foreign.safetensors is damaged or was not written by"):
            UNet.from_pretrained(foreign)
    config = {"model": "UNet", "arguments": {"in_channels": 3, "num_classes": 1, "widths": [8, 8], "stem": 2}}
    rest = {"threshold": 0.5, "threshold_single": 0.5, "preprocessing": {}, "notes": {}}
    save_file(
        {"weight": torch.zeros(1)},
        foreign,
        metadata={"config": json.dumps(config | rest)},
    )
    with pytest.raises(ValueError, match=r"foreign.safetensors.*weights.*do not fit"):
        UNet.from_pretrained(foreign)
    other = ArticleNet().save_pretrained(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds a ArticleNet, not a UNet"):
        UNet.from_pretrained(other)
