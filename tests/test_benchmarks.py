"""The ladder of benchmarks: every rung runs, is scored, and changes what it claims and nothing else."""

from __future__ import annotations

import importlib
import types
from dataclasses import fields
from itertools import pairwise

import pytest
import torch
from builders import SIZE, write_drive
from repository import ROOT
from torchvision import tv_tensors

from drive_unet import ArticleNet, UNet
from drive_unet.data import DRIVEDataset, Sample
from drive_unet.data.find import find_drive

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the source archive has no benchmarks")


@pytest.fixture(scope="module")
def ladder():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import ladder

        patch.setattr(ladder, "BATCH", 2)
        yield ladder


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return write_drive(tmp_path_factory.mktemp("DRIVE"))


@pytest.fixture(scope="module")
def photographs(copy):
    return DRIVEDataset.from_pairs(find_drive(copy).training)


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
    rows = cells(capsys.readouterr().out)
    assert rows[""] == ["recipe", "AUC", "Dice", "MCC", "clDice", "threshold", "training, s", "trainings"]
    for number, rung in enumerate(ladder.RUNGS, start=1):
        recipe, auc, dice, _, _, threshold, _, trainings = rows[str(number)]
        assert recipe == rung.repair and trainings == "1"
        assert 0 < float(auc) < 1 and 0 <= float(dice) < 1
        assert (threshold == ".5000") == (not rung.chosen)
    assert rows["8"][1] == rows["9"][1], "one training, read with two thresholds, has one AUC"
    assert rows["11"][1] != rows["12"][1]
    assert len(list(tmp_path.rglob("*.json"))) == 10 and not list(tmp_path.rglob("*.claim"))

    monkeypatch.setattr(ladder, "learn", None)
    ladder.main([*command, "--rungs", "2", "9"])
    again = cells(capsys.readouterr().out)
    assert again == {key: rows[key] for key in ("", "--:", "2", "8", "9")}


def test_every_rung_changes_one_thing(ladder):
    changed = [
        [f.name for f in fields(after) if getattr(before, f.name) != getattr(after, f.name)]
        for before, after in pairwise(ladder.RUNGS)
    ]
    expected = ["labels", "inside", "network", "transform", "transform", "loss", "one_cycle"]
    expected += ["chosen", "network", "average", "flips"]
    assert changed == [["repair", name] for name in expected]


def test_the_networks_of_the_rungs(ladder):
    networks = [rung.network() for rung in ladder.RUNGS]
    assert [type(network) for network in networks] == [ArticleNet] * 3 + [UNet] * 9
    assert all(network.arguments == UNet().arguments for network in networks[3:]), (
        "first weights differ alone"
    )


def test_the_loss_sees_the_labels_and_the_field_of_view_that_a_rung_names(ladder, photographs, monkeypatch):
    seen = []

    def combine(**weights):
        def loss(logits, labels, fov):
            seen.append((weights, labels, fov))
            return logits.mean()

        return loss

    monkeypatch.setattr(ladder, "combine", combine)
    for rung in ladder.RUNGS[:7]:
        ladder.learn(rung, photographs, 1, 0)
    shares = [labels.float().mean().item() for _, labels, _ in seen]
    assert shares[0] > 0.6, "a disc"
    assert 0 < max(shares[1:]) < 0.1, "vessels"
    assert [fov is None for *_, fov in seen] == [True, True] + [False] * 5
    assert [weights for weights, *_ in seen] == [{"bce": 1.0}] * 6 + [{"bce": 1.0, "dice": 0.5}]
    assert {tuple(labels.shape) for _, labels, _ in seen} == {(2, 1, 256, 256)}


def test_the_upper_rungs_train_by_fit(ladder, photographs, monkeypatch):
    calls = []
    monkeypatch.setattr(ladder, "fit", lambda model, train, **settings: calls.append(settings))
    for rung in ladder.RUNGS[7:]:
        ladder.learn(rung, photographs, 5, 3)
    assert [call["average"] for call in calls] == [0, 0, 0, 0.98, 0.98]
    assert all((call["lr"], call["steps"], call["seed"]) == (1e-2, 5, 3) for call in calls)


def test_a_squashed_photograph_is_predicted_at_its_own_size(ladder, photographs):
    few, model = photographs.subset([0, 1]), ArticleNet()
    squashed, native = (ladder.predictions(ladder.RUNGS[n], model, few) for n in (3, 4))
    assert [m.shape for m in squashed] == [m.shape for m in native] == [SIZE] * 2
    assert all(0 <= m.min() and m.max() <= 1 for m in squashed)
    assert (squashed[0] != native[0]).any()


def test_a_cut_keeps_the_pixels_and_is_centred_in_the_field_of_view(ladder):
    image = torch.arange(1, 300 * 280 + 1).reshape(1, 300, 280)
    fov = torch.zeros(1, 300, 280, dtype=torch.uint8)
    fov[:, 10:20, 260:270] = 1
    sample = Sample(tv_tensors.Image(image), tv_tensors.Mask(image), tv_tensors.Mask(fov))
    torch.manual_seed(0)
    cut = Sample(*(part.as_subclass(torch.Tensor) for part in ladder.Cut()(sample)))
    assert cut.image.shape == (1, 256, 256)
    row, column = divmod(int(cut.image[0, 128, 128]) - 1, 280)
    assert fov[0, row, column] == 1 and cut.fov[0, 128, 128] == 1
    assert torch.equal(cut.image, cut.vessels)
    inside = image[0, : row + 128, column - 128 :]
    assert torch.equal(cut.image[0, 128 - row :, : 280 - column + 128], inside)
    assert cut.image[0, : 128 - row].max() == 0, "black beyond the photograph"


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
    painted, random = (few_shots.run(start, k, 3, 1, photographs) for start in ("synthetic", None))
    assert learned[0] == learned[1] and len(set(learned[0])) == k
    assert not set(learned[0]) & set(few_shots.folds(photographs.names)[0][1])
    assert painted["Dice"] != random["Dice"]
    table = cells(few_shots.report({
        ("painted first", k): [painted | {"seed": 3}], ("random weights", k): [random | {"seed": 3}],
    }))  # fmt: skip
    assert float(table[str(k)][-1]) == pytest.approx(painted["Dice"] - random["Dice"], abs=1e-4)
