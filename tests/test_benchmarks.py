"""The ladder of benchmarks: every rung runs, is scored, and changes what it claims and nothing else."""

from __future__ import annotations

import importlib
import json
import re
import sys
import types
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from builders import SIZE, disc, write_drive
from repository import ROOT
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from drive_unet import PRESETS, ArticleNet, UNet
from drive_unet.data import DRIVEDataset, Sample
from drive_unet.data.find import find_drive
from drive_unet.metrics import scores
from drive_unet.preprocessing import Preprocessing
from drive_unet.widgets.explorer import LAYERS

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the source archive has no benchmarks")


@pytest.fixture(scope="module")
def ladder():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import ladder

        patch.setattr(ladder, "BATCH", 2)
        patch.setattr(ladder, "SIZE", 64)
        patch.setattr(ladder, "SQUASH", v2.Resize((64, 64)))
        patch.setattr(ladder, "UPDATES", 1)
        patch.setattr(ladder, "PRESET", replace(ladder.PRESET, steps=2))
        yield ladder


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return write_drive(tmp_path_factory.mktemp("DRIVE"))


@pytest.fixture(scope="module")
def photographs(copy):
    return DRIVEDataset.from_pairs(find_drive(copy).training)


@pytest.fixture(autouse=True)
def no_enlarging(monkeypatch):
    """Photographs keep their own pixels: brought to 540, tiny ones would cost as much as real ones."""
    monkeypatch.setattr(Preprocessing, "scale", lambda *_: 1.0)


def cells(table: str) -> dict[str, list[str]]:
    """The Markdown table's rows by their first cell."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    return {row[0]: row[1:] for row in rows}


def test_one_command_makes_the_table_and_a_second_one_trains_nothing(
    ladder, copy, tmp_path, capsys, monkeypatch
):
    command = ["--data", str(copy), "--steps", "1", "--folds", "1", "--out", str(tmp_path)]
    ladder.main(command)
    shown = capsys.readouterr().out
    rows = cells(shown)
    assert rows[""][:6] == ["recipe", "AUC", "Dice", "MCC", "clDice", "Dice gained"]
    assert rows[""][6:] == ["threshold", "updates", "training, s", "runs"]
    for number, rung in enumerate(ladder.rungs(1), start=1):
        recipe, auc, dice, _, _, gained, threshold, updates, _, runs = rows[str(number)]
        assert recipe == rung.repair and runs == "1" and updates == ("2" if number == 16 else "1")
        assert 0 < float(auc) < 1 and 0 <= float(dice) < 1
        assert (threshold == ".5000") == (not rung.chosen)
        if number == 1:
            assert gained == ""
        else:
            assert float(gained) == pytest.approx(float(dice) - float(rows[str(number - 1)][2]), abs=2e-4)
    assert rows["13"][1] == rows["14"][1], "one training, read with two thresholds, has one AUC"
    assert rows["14"][1] != rows["15"][1]
    assert "Row 1 against its own labels, whole frame: accuracy" in shown
    # one fewer than usual: with equal budgets rows 2 and 3 are one training
    assert len(list(tmp_path.rglob("*.json"))) == 13 and not list(tmp_path.rglob("*.claim"))

    monkeypatch.setattr(ladder, "learn", None)
    ladder.main([*command, "--rungs", "5", "14"])
    again = cells(capsys.readouterr().out)
    assert set(again) == {"", "--:", "5", "13", "14", "15"}
    rows["5"][5] = rows["13"][5] = ""  # the rows above them were not asked for
    assert again == {key: rows[key] for key in again}


def test_the_table_takes_gains_run_by_run_and_gives_intervals(ladder):
    def record(fold, *dice):
        values = [dict.fromkeys(ladder.SHOWN, value) | {"threshold": 0.5} for value in dice]
        done = {str(number): scored for number, scored in enumerate(values, start=1)}
        where = {"hardware": "", "versions": {"torch": ""}, "precision": "bf16"}
        return {"seed": 0, "fold": fold, "seconds": 9.0, "rungs": done, **where}

    rows = cells(ladder.table(ladder.rungs(), [record(1, 0.2, 0.5), record(3, 0.4, 0.8)]))
    # Student's t for one degree of freedom: 12.706; half of it times the difference of two values
    assert rows["1"][2] == ".3000 ± 1.2706"
    assert rows["2"][2] == ".6500 ± 1.9059"
    assert rows["2"][5] == "+.3500 ± .6353", "the interval of the gains, not of the scores"
    nothing = record(1, float("nan"), 0.5)
    assert cells(ladder.table(ladder.rungs(), [nothing]))["1"][3] == "none"


def test_every_rung_changes_one_thing(ladder):
    changed = [
        [f.name for f in fields(after) if getattr(before, f.name) != getattr(after, f.name)]
        for before, after in pairwise(ladder.rungs())
    ]
    expected = ["labels", "steps", "network", "network", "transform", "inside", "standardised", "transform"]
    expected += ["loss", "one_cycle", "network", "network", "chosen", "flips", "steps"]
    assert changed == [["repair", name] for name in expected]


def test_the_first_rung_is_the_article_and_the_last_one_the_preset(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "ladder", raising=False)  # whose budgets the other tests cut
    ladder = importlib.import_module("ladder")
    article, *_, ours = ladder.rungs()
    assert (ladder.UPDATES, ladder.BATCH, ladder.SIZE) == (30, 8, 256)
    assert isinstance(article.network(), ArticleNet)
    assert sum(p.numel() for p in article.network().parameters()) == 109_057
    assert article.labels == "fov" and not article.inside and dict(article.loss) == {"bce": 1}
    preset = PRESETS["laptop"]
    assert (ours.steps, ladder.BATCH, ours.loss) == (preset.steps, preset.batch_size, preset.loss)
    first, start = ours.network(), UNet.from_pretrained(preset.start)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), start.parameters(), strict=True))


def test_the_networks_of_the_rungs(ladder):
    networks = [rung.network() for rung in ladder.rungs()]
    assert [type(network) for network in networks] == [ArticleNet] * 3 + [UNet] * 13
    assert [network.arguments["stem"] for network in networks[3:]] == [1] * 8 + [2] * 5
    deep, skipping = networks[3:5]
    assert sum(p.numel() for p in deep.parameters()) == sum(p.numel() for p in skipping.parameters())


def test_without_skips_fine_detail_cannot_reach_the_output(ladder):
    deep, skipping = ladder.skipless().eval(), UNet(stem=1).eval()
    skipping.load_state_dict(deep.state_dict())
    image = torch.rand(1, 3, 32, 32)
    assert not torch.equal(deep(image), skipping(image))
    gradients = torch.autograd.grad(deep(image).sum(), deep.decoder[-1][0].weight)[0].abs().sum(dim=(0, 2, 3))
    up, skip = gradients.chunk(2)
    assert up.max() > 0 and skip.max() == 0


def test_the_loss_sees_the_labels_and_the_field_of_view_that_a_rung_names(ladder, photographs, monkeypatch):
    seen = []

    def combine(**weights):
        def loss(logits, labels, fov):
            seen.append((weights, labels, fov))
            return logits.mean()

        return loss

    monkeypatch.setattr(ladder, "combine", combine)
    for rung in ladder.rungs(1)[:10]:
        ladder.learn(rung, photographs, 0)
    shares = [labels.float().mean().item() for _, labels, _ in seen]
    assert shares[0] > 0.6, "a disc"
    assert 0 < max(shares[1:]) < 0.1, "vessels"
    assert [fov is None for *_, fov in seen] == [True] * 6 + [False] * 4
    assert [weights for weights, *_ in seen] == [{"bce": 1.0}] * 9 + [{"bce": 1.0, "dice": 0.5}]
    assert {tuple(labels.shape) for _, labels, _ in seen} == {(2, 1, 64, 64)}


def test_photographs_are_normalised_as_a_rung_says(ladder, photographs):
    batch = next(iter(DataLoader(photographs, 2)))
    article, ours = ladder.rungs()[0], ladder.rungs()[-1]
    by_hand = (batch.image[:, 0] - 0.485) / 0.229
    assert torch.allclose(ladder.network_input(article, batch)[:, 0], by_hand)
    inside = ladder.network_input(ours, batch)[0, 0][batch.fov[0, 0] > 0]
    assert inside.mean().abs() < 1e-3 and (inside.std() - 1).abs() < 1e-3


def test_the_upper_rungs_train_by_fit(ladder, photographs, monkeypatch):
    calls = []
    monkeypatch.setattr(ladder, "fit", lambda model, train, **settings: calls.append(settings))
    models = [ladder.learn(rung, photographs, 3, "bf16") for rung in ladder.rungs(5)[10:]]
    assert {model.preprocessing for model in models} == {Preprocessing()}, "read as they are taught here"
    assert [call["steps"] for call in calls] == [5] * 5 + [2]
    settings = {"lr": 1e-2, "seed": 3, "batch_size": 2, "mixed_precision": "bf16"}
    assert all(call | settings == call for call in calls)


def test_the_articles_loop_computes_in_the_precision_asked_for(ladder, photographs, monkeypatch):
    seen = []
    monkeypatch.setattr(ladder, "combine", lambda **_: lambda logits, *_: logits.mean())
    monkeypatch.setattr(
        ArticleNet, "forward", lambda model, image: seen.append(torch.is_autocast_enabled("cpu")) or image * 1
    )
    for precision in ("no", "bf16"):
        with pytest.raises(RuntimeError, match="does not require grad"):
            ladder.learn(ladder.rungs(1)[0], photographs, 0, precision)
    assert seen == [False, True]


def test_a_squashed_photograph_is_predicted_at_its_own_size(ladder, photographs):
    few, model = photographs.subset([0, 1]), UNet(widths=(2, 3), stem=1).eval()
    squashed, native = (ladder.predictions(ladder.rungs()[n], model, few) for n in (4, 5))
    assert [m.shape for m in squashed] == [m.shape for m in native] == [SIZE] * 2
    assert all(0 <= m.min() and m.max() <= 1 for m in squashed)
    assert (squashed[0] != native[0]).any()
    with torch.inference_mode():
        by_hand = torch.sigmoid(model(ladder.IMAGENET(few[0].image)[None]))[0, 0]
    assert torch.allclose(torch.from_numpy(native[0]), by_hand.as_subclass(torch.Tensor), atol=1e-6)


def test_a_cut_keeps_the_pixels_and_is_centred_in_the_field_of_view(ladder):
    image = torch.arange(1, 300 * 280 + 1).reshape(1, 300, 280)
    fov = torch.zeros(1, 300, 280, dtype=torch.uint8)
    fov[:, 10:20, 260:270] = 1
    sample = Sample(tv_tensors.Image(image), tv_tensors.Mask(image), tv_tensors.Mask(fov))
    torch.manual_seed(0)
    cut = Sample(*(part.as_subclass(torch.Tensor) for part in ladder.Cut()(sample)[:3]))
    assert cut.image.shape == (1, 64, 64)
    row, column = divmod(int(cut.image[0, 32, 32]) - 1, 280)
    assert fov[0, row, column] == 1 and cut.fov[0, 32, 32] == 1
    assert torch.equal(cut.image, cut.vessels)
    inside = image[0, : row + 32, column - 32 :]
    assert torch.equal(cut.image[0, 32 - row :, : 280 - column + 32], inside)
    assert cut.image[0, : 32 - row].max() == 0, "black beyond the photograph"


# ---------------------------------------------------------------------- painted photographs


@pytest.fixture
def benchmark_named(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_ingredients_are_left_out_one_at_a_time(benchmark_named, copy, tmp_path, capsys, monkeypatch):
    ingredients = benchmark_named("ingredients")
    for name, mix in ingredients.VARIANTS.items():
        changed = [field for field, strength in mix._asdict().items() if strength != 1]
        assert changed == ([] if name == "everything" else [name.removeprefix("no ")])
    monkeypatch.setattr(ingredients, "EYES", 1)
    monkeypatch.setattr(ingredients, "CHOOSING", 1)
    command = ["no twigs", "--data", str(copy), "--steps", "1", "--out", str(tmp_path)]
    ingredients.main(command)
    rows = cells(capsys.readouterr().out)
    assert set(rows) >= {"everything", "no twigs"}
    lost = float(rows["everything"][1]) - float(rows["no twigs"][1])
    assert float(rows["no twigs"][5]) == pytest.approx(lost, abs=2e-4)
    monkeypatch.setattr(ingredients, "run", None)  # a second time trains nothing
    ingredients.main(command)
    assert cells(capsys.readouterr().out) == rows


def test_few_shots_compares_both_starts_on_the_same_photographs(benchmark_named, copy, tmp_path, monkeypatch):
    few_shots = benchmark_named("few_shots")
    learned = []

    def fit_nothing(model, photographs, **settings):
        learned.append(tuple(photographs.names))
        return types.SimpleNamespace(seconds=0.0)

    monkeypatch.setattr(few_shots, "fit", fit_nothing)
    photographs = DRIVEDataset.from_pairs(find_drive(copy).training)
    k = len(few_shots.folds(photographs.names)[0][0]) - 1
    painted, random = (few_shots.run(start, k, 3, 1, photographs) for start in ("synthetic-fast", None))
    assert learned[0] == learned[1] and len(set(learned[0])) == k
    assert not set(learned[0]) & set(few_shots.folds(photographs.names)[0][1])
    assert painted["Dice"] != random["Dice"]
    table = cells(few_shots.report({
        ("painted first", k): [painted | {"seed": 3}], ("random weights", k): [random | {"seed": 3}],
    }))  # fmt: skip
    assert float(table[str(k)][-1]) == pytest.approx(painted["Dice"] - random["Dice"], abs=1e-4)


# ---------------------------------------------------------------------- labels


def test_labels_says_what_the_files_hold(benchmark_named, copy, photographs):
    labels = benchmark_named("labels")
    facts = labels.facts(benchmark_named("records").labelled(str(copy)))
    vessels, fovs = photographs.vessels, photographs.fovs
    inside = sum(int((v & f).sum()) for v, f in zip(vessels, fovs, strict=True))
    assert facts["vessels, of the field of view"] == pytest.approx(inside / sum(int(f.sum()) for f in fovs))
    assert facts["labelled pixels outside"] == sum(int(v.sum()) for v in vessels) - inside
    lines = sum(int(v.sum()) for v in vessels) / sum(v.size for v in vessels)
    assert facts["empty prediction, whole frame: accuracy"] == pytest.approx(1 - lines)
    assert facts["centreline one pixel wide"] > 0.9, "the copy's vessels are lines"


def test_the_articles_accuracy_of_a_label_that_the_squash_makes_grey(benchmark_named):
    half = [[False, True] * 256] * 512  # every second column: all grey
    black = [[False] * 512] * 512
    for mask, expected in ((half, (0.0, 0.0)), (black, (1.0, 1.0))):
        assert benchmark_named("labels").article_accuracy([np.array(mask)]) == expected


# ---------------------------------------------------------------------- cameras, and manual labels


def test_thresholds_and_temperatures_are_taken_from_the_other_camera(
    benchmark_named, copy, tmp_path, capsys, monkeypatch
):
    calibration = benchmark_named("calibration")
    monkeypatch.setattr(calibration, "RUNS", tmp_path / "runs")
    other = write_drive(tmp_path / "other", suffix=".png")
    torch.manual_seed(0)
    model = UNet(widths=(4, 6))
    model.preprocessing = Preprocessing(tolerance=100)
    file = model.save_pretrained(tmp_path / "small.safetensors")
    command = ["--weights", str(file), "--data", str(copy), str(other)]
    calibration.main(command)
    table = capsys.readouterr().out
    first, second = (line.split(" | ") for line in table.splitlines()[2:])
    assert (first[1], first[2]) == (second[2], second[1])
    (here, at), (_, elsewhere) = (first[5].strip("()").split(" at "), second[4].split(" at "))
    assert at == elsewhere, "best for the first is what the second is cut at"
    own = calibration.counted(model, DRIVEDataset.from_pairs(find_drive(copy).training))
    assert float(here) == pytest.approx(calibration.dice(own, own.ranking().best()[1]), abs=1e-4)
    monkeypatch.setattr(calibration, "predict_all", None)  # a second time predicts nothing
    calibration.main(command)
    assert capsys.readouterr().out == table


def test_dice_and_error_from_bins_are_the_exact_ones(benchmark_named):
    calibration = benchmark_named("calibration")
    rng = np.random.default_rng(0)
    probability, vessels = rng.random((1, 5000), np.float32), rng.random((1, 5000)) < 0.2
    counts = calibration.PixelCounts()
    counts.update(probability, vessels)
    for threshold in (0.25, 0.5, 0.9):
        exact = scores(probability >= threshold, vessels)["Dice"]
        assert calibration.dice(counts, threshold) == pytest.approx(exact, abs=2e-3)
    exact = calibration.calibration(probability.ravel(), vessels.ravel()).ece
    assert calibration.error(counts) == pytest.approx(exact, abs=1e-4)
    sure = calibration.PixelCounts()  # twice as sure as it may be
    sure.update(
        calibration.tempered(probability, 0.5).astype(np.float32), rng.random((1, 5000)) < probability
    )
    assert calibration.temperature(sure) == pytest.approx(2, abs=0.1)
    assert calibration.error(sure, calibration.temperature(sure)) < calibration.error(sure) / 3


def test_measurements_are_compared_with_manual_labels(benchmark_named, copy, tmp_path, capsys, monkeypatch):
    measurements = benchmark_named("measurements")
    monkeypatch.setattr(measurements, "RUNS", tmp_path)
    command = ["--weights", "fast", "--labelled", str(copy), "--photographs", "21", "22", "23"]
    measurements.main(command)
    printed = capsys.readouterr().out
    assert "Manual label against the photograph, weights `fast`, 3 photographs:" in printed
    record = json.loads((tmp_path / "measurements" / "labelled-22-fast-.json").read_text())
    vessels = DRIVEDataset.from_pairs(find_drive(copy).training).subset(["22"]).vessels[0]
    assert record["label"]["whole"]["area_density"] == pytest.approx(vessels.sum() / disc().sum(), abs=1e-3)
    assert len(record["widths"]) == 2 and 0 <= record["both"] <= 1
    monkeypatch.setattr(measurements, "Segmenter", None)  # a second time predicts nothing
    measurements.main(command)
    assert capsys.readouterr().out == printed


def test_the_redraws_of_the_explorer_are_timed_for_every_layer(monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    redraw = importlib.import_module("redraw")
    redraw.main(["--sizes", "73x91"])
    (row,) = re.findall("73x91: (.*)", capsys.readouterr().out)
    assert [cell.split()[0] for cell in row.split(", ")] == list(LAYERS)
