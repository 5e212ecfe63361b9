"""The auditor, the guards, the report and the submission, on small scenes whose numbers are known."""

import errno
import json
import math
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from drive_unet.data import DRIVEDataset
from drive_unet.data.pairing import Pair
from drive_unet.data.reading import Decoded
from drive_unet.errors import DataError
from drive_unet.evaluation import (
    Prediction,
    audit,
    compare,
    details,
    differences,
    evaluate,
    evaluate_second_observer,
    guards,
    join,
    over_seeds,
    report,
    result,
    trust,
)
from drive_unet.evaluation.guarding import FROM_TEST, NATIVE, resized_labels
from drive_unet.evaluation.results import KEYS
from drive_unet.evaluation.submission import submission_files, write_submission
from drive_unet.metrics import SCORES, Confusion, pixel_scores

SIZE = (150, 160)
NUMBER = 6


def scene(seed):
    """Photograph, vessels, field of view, second observer, probability: wavy vessels, some of them found."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    fov = np.hypot(rows - SIZE[0] / 2, columns - SIZE[1] / 2) < 70
    vessels = (np.abs((columns + 6 * np.sin(rows / 11 + seed)) % 30 - 15) < 1.5 + seed % 2) & fov
    second = np.roll(vessels, 1, axis=0) & fov
    odds = np.where(vessels, 1.2, -2.2) + rng.normal(0, 1.3, SIZE)
    probability = np.where(fov, 1 / (1 + np.exp(-odds)), 0).astype(np.float32)
    image = np.clip(150 * fov[..., None] - 40 * vessels[..., None] + rng.normal(0, 5, (*SIZE, 3)), 0, 255)
    return image.astype(np.uint8), vessels, fov, second, probability


@pytest.fixture(scope="module")
def scenes():
    return [scene(seed) for seed in range(NUMBER)]


@pytest.fixture(scope="module")
def dataset(scenes):
    def decoded(image, vessels, fov, second):
        masks = (torch.from_numpy(mask.astype(np.uint8)[None]) for mask in (vessels, fov))
        return Decoded(torch.from_numpy(image.transpose(2, 0, 1).copy()), *masks, second)

    names = [f"{number:02d}" for number in range(1, NUMBER + 1)]
    return DRIVEDataset.from_decoded(names, [decoded(*parts[:4]) for parts in scenes])


@pytest.fixture(scope="module")
def maps(scenes):
    return [parts[4] for parts in scenes]


@pytest.fixture(scope="module")
def scored(dataset, maps):
    return evaluate(maps, dataset, threshold=0.4, threshold_from="on others", thorough=True)


@pytest.fixture(scope="module")
def audited(dataset, maps, scored):
    return audit((Prediction(m) for m in maps), dataset, scored, from_training=(0.4, "on others"))


def pixels(scenes, window):
    return (np.concatenate([part[at][window(part)].ravel() for part in scenes]) for at in (4, 1))


def row(audited, name):
    return next(habit for habit in audited.habits if habit.name.startswith(name))


# ---------------------------------------------------------------------- the auditor


def test_every_habit_is_what_scikit_learn_says_of_its_pixels(scenes, audited):
    def box(part):
        rows, columns = (np.flatnonzero(part[2].any(axis=axis)) for axis in (1, 0))
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    windows = {"inside the field": lambda part: part[2], "whole frame": lambda part: ..., "cropped": box}
    for name, window in windows.items():
        values, truth = pixels(scenes, window)
        found = row(audited, name).scores
        assert found["AUC"] == pytest.approx(roc_auc_score(truth, values), abs=1e-9), name
        assert found["AP"] == pytest.approx(average_precision_score(truth, values), abs=1e-9), name
        assert found["Acc"] == pytest.approx(((values >= 0.4) == truth).mean(), abs=1e-12), name
    values, truth = pixels(scenes, lambda part: part[2])
    assert row(audited, "labels and scores sorted").scores["AUC"] == pytest.approx(
        roc_auc_score(np.sort(truth), np.sort(values)), abs=1e-9
    )
    assert row(audited, "second observer").scores["AUC"] == pytest.approx(
        roc_auc_score(np.concatenate([part[3][part[2]] for part in scenes]), values), abs=1e-9
    )
    each = [roc_auc_score(part[1][part[2]], part[4][part[2]]) for part in scenes]
    assert row(audited, "per-image mean").scores["AUC"] == pytest.approx(np.mean(each), abs=1e-9)


def test_thresholds_and_the_mark_of_selection(scenes, audited):
    values, truth = (part[None] for part in pixels(scenes, lambda part: part[2]))
    for name, threshold in (("threshold .5", 0.5), ("threshold from training", 0.4)):
        known = pixel_scores(values, truth, threshold=threshold)
        assert {k: row(audited, name).scores[k] for k in known} == pytest.approx(known)
    best = row(audited, "best threshold")
    tried = [pixel_scores(values, truth, threshold=t)["Dice"] for t in np.linspace(0.05, 0.95, 91)]
    assert best.scores["Dice"] >= max(tried) - 1e-12
    assert [habit.name for habit in audited.habits if habit.selection] == [best.name]


def test_squashed_and_patches_by_hand(scenes, audited):
    def squash(plane):
        picture = Image.fromarray(plane.astype(np.float32))
        return np.asarray(picture.resize((512, 512), Image.Resampling.BILINEAR))

    truth = np.concatenate([(squash(part[1]) >= 0.5).ravel() for part in scenes])
    values = np.concatenate([squash(part[4]).ravel() for part in scenes])
    assert row(audited, "resized").scores["AUC"] == pytest.approx(roc_auc_score(truth, values), abs=1e-6)
    chosen = []
    for _, vessels, fov, _, probability in scenes:
        for top in range(0, SIZE[0] - 47, 24):
            for left in range(0, SIZE[1] - 47, 24):
                patch = slice(top, top + 48), slice(left, left + 48)
                if fov[patch].all():
                    chosen.append((vessels[patch].ravel(), probability[patch].ravel()))
    truth, values = (np.concatenate(part) for part in zip(*chosen, strict=True))
    assert row(audited, "patches").scores["AUC"] == pytest.approx(roc_auc_score(truth, values), abs=1e-9)


def test_the_verdict_comes_first_and_names_both_numbers(audited):
    frame, inside = (row(audited, name).scores["AUC"] for name in ("whole frame", "inside"))
    words = [f"{value:.4f}".removeprefix("0") for value in (frame, inside)]
    assert audited.verdict.startswith(f"Your {words[0]} is {words[1]}: ") and frame > inside
    assert str(audited).startswith(audited.verdict)
    shown = str(audited)
    assert (
        "(!)" in shown and f"({audited.added(audited.habits[1])['AUC']:+.4f})".replace("0.", ".", 1) in shown
    )
    written = json.loads(json.dumps(audited.to_dict(), allow_nan=False))
    assert written["rows"][1]["adds"]["auc"] == pytest.approx(frame - inside)
    assert all(habit["why"].endswith((".", ").")) for habit in written["rows"])


def test_what_a_notebook_compares_of_an_audit_holds_no_measured_number(dataset, maps, scored, audited):
    assert repr(audited) == f"<Audit of {scored.name} by {len(audited.habits)} habits>"
    text = str(guards(evaluate([v.copy() for v in dataset.vessels], dataset), dataset, "DRIVE")[0])
    assert "accuracy of 1.0000" in text and "a Dice of 1.0000 is above 0.840" in text, (
        "what the sanitiser masks"
    )


def test_a_threshold_that_was_given_is_not_said_to_be_chosen_before(dataset, maps, scored):
    best = scored.ranking.best()[1]
    for threshold, row_says, protocol in (
        (0.4, "only who gave it knows", "unless the threshold that was given was."),
        (best, "hardly chosen before they were seen", "its threshold is the best there is on these"),
    ):
        given = evaluate(maps, dataset, threshold=threshold, thorough=True)
        suspicions = guards(given, dataset, "x")
        found = audit(
            (Prediction(m) for m in maps),
            dataset,
            given,
            guards=suspicions,
            from_training=(threshold, given.threshold_from),
        )
        assert (threshold == best) == any(guard.name == FROM_TEST for guard in suspicions)
        assert row_says in row(found, "threshold given").why and protocol in found.habits[0].why
        assert "chosen before these photographs were seen, and frozen" not in str(found)


def test_segmentations_are_audited_without_thresholds(dataset, maps):
    drawn = [values >= 0.4 for values in maps]
    scored = evaluate(drawn, dataset, thorough=True)
    audited = audit((Prediction(None, mask) for mask in drawn), dataset, scored)
    names = [habit.name for habit in audited.habits]
    assert len(names) == 8 and not any("threshold" in name for name in names)
    assert all(math.isnan(habit.scores["AUC"]) for habit in audited.habits)
    assert "accuracy" in audited.verdict and "need probabilities" in str(audited)


# ---------------------------------------------------------------------- what evaluate keeps


def test_the_contract(dataset, scored, maps, scenes):
    observer = evaluate_second_observer(dataset, thorough=True)
    found = result(scored, data="scenes", split="test", observer=observer)
    assert list(found) == [
        *KEYS.values(),
        "threshold",
        "intervals",
        "per_image",
        "protocols",
        "second_observer",
        "guards",
    ]
    known = pixel_scores(*(part[None] for part in pixels(scenes, lambda part: part[2])), threshold=0.4)
    assert {key: found[KEYS[key]] for key in known} == pytest.approx(known)
    for key in KEYS.values():
        low, high = found["intervals"][key]
        assert low <= found[key] <= high
    protocol = found["protocols"]["inside_fov"]
    assert protocol["pixels"] == sum(part[2].sum() for part in scenes)
    assert protocol["vessel_pixels"] == sum((part[1] & part[2]).sum() for part in scenes)
    assert "inside the field of view" in protocol["sentence"].lower()
    frame = evaluate(maps, dataset, threshold=0.4, inside_fov=False).pooled
    assert found["protocols"]["whole_frame"] == pytest.approx({KEYS[k]: v for k, v in frame.items()})
    assert [row["name"] for row in found["per_image"]] == dataset.names
    json.dumps(found, allow_nan=False)
    nothing = evaluate([m * 0 > 1 for m in maps], dataset, thorough=True)
    bare = result(nothing, data="", split="")
    assert bare["dice"] == 0 and bare["auc"] is None and bare["mcc"] is None and bare["threshold"] is None
    json.dumps(bare, allow_nan=False)


def test_agreement_with_two_observers(dataset, scored, scenes):
    observer = evaluate_second_observer(dataset, thorough=True)
    both = result(scored, data="", split="", observer=observer)["second_observer"]["agreement"]
    first, second, drawn = (
        np.concatenate([mask[part[2]] for part, mask in zip(scenes, masks, strict=True)])
        for masks in ([p[1] for p in scenes], [p[3] for p in scenes], [p[4] >= 0.4 for p in scenes])
    )
    assert both["kappa"]["both observers"] == pytest.approx(cohen_kappa_score(first, second))
    assert both["kappa"]["prediction and second observer"] == pytest.approx(cohen_kappa_score(drawn, second))
    assert both["dice"]["prediction and first observer"] == pytest.approx(scored.pooled["Dice"])
    assert both["of these the prediction misses"] == (first & second & ~drawn).sum()
    assert both["of these the prediction calls vessel"] == (~first & ~second & drawn).sum()


def test_differences_and_seeds(dataset, maps, scored):
    other = evaluate([m**2 for m in maps], dataset, threshold=0.4, thorough=True)
    gap = differences(scored, other)
    assert gap["photographs"] == NUMBER
    assert gap["dice"]["difference"] == pytest.approx(scored.pooled["Dice"] - other.pooled["Dice"])
    assert gap["auc"]["difference"] == pytest.approx(0, abs=1e-3)  # the same order of pixels
    assert gap["dice"]["low"] <= gap["dice"]["difference"] <= gap["dice"]["high"]
    mean = over_seeds([scored, other])
    assert mean.pooled["Dice"] == pytest.approx((scored.pooled["Dice"] + other.pooled["Dice"]) / 2)
    low, high = mean.intervals["Dice"]
    assert low <= mean.pooled["Dice"] <= high and "mean of 2 networks" in mean.protocol
    spread = mean.seed_spread()["Dice"]
    assert spread == pytest.approx(np.std([scored.pooled["Dice"], other.pooled["Dice"]], ddof=1))
    with pytest.raises(ValueError, match="different photographs"):
        over_seeds([scored, evaluate(maps[:2], dataset.subset(dataset.names[:2]))])


def test_folds_join_to_what_one_evaluation_says(dataset, maps, scored):
    halves = [
        evaluate([maps[i] for i in part], dataset.subset(list(part)), threshold=0.4, thorough=True)
        for part in (range(0, NUMBER, 2), range(1, NUMBER, 2))
    ]
    joined = join(halves)
    assert joined.names == dataset.names and joined.pooled == pytest.approx(scored.pooled)
    assert joined.whole_frame.pooled == pytest.approx(scored.whole_frame.pooled)
    for key, ends in scored.intervals.items():
        assert joined.intervals[key] == pytest.approx(ends)
    first = evaluate(maps[:3], dataset.subset([0, 1, 2]), threshold=0.4)
    part = scored.only(dataset.names[:3])
    assert part.pooled["Dice"] == pytest.approx(first.pooled["Dice"])
    assert part.pooled["AUC"] == pytest.approx(first.pooled["AUC"], abs=part.binned)


def test_a_temperature_chosen_on_the_others_mends_what_is_too_certain(dataset, maps):
    odds = [np.log(m.clip(1e-6, 1 - 1e-6)) - np.log1p(-m.clip(1e-6, 1 - 1e-6)) for m in maps]
    certain = [(1 / (1 + np.exp(-4 * x))).astype(np.float32) for x in odds]
    found = trust(evaluate(certain, dataset, thorough=True).records)
    assert found["temperature"] > 1.5 and found["ece_tempered"] < found["ece"]
    assert found["brier_tempered"] < found["brier"]
    given = trust(evaluate(certain, dataset, thorough=True).records, temperature=1.0)
    assert given["ece_tempered"] == pytest.approx(given["ece"], abs=0.01)
    assert trust(evaluate([m > 0.5 for m in maps], dataset, thorough=True).records) is None


# ---------------------------------------------------------------------- guards


def named(items):
    return [guard.name for guard in items]


def test_too_good_to_be_true(dataset, maps, scored):
    assert named(guards(scored, dataset, "DRIVE"))[:1] != ["too good to be true"]
    perfect = evaluate([v.copy() for v in dataset.vessels], dataset)
    (guard, *_) = guards(perfect, dataset, "DRIVE")
    assert guard.name == "too good to be true" and "0.960" in guard.sentence and "0.840" in guard.sentence
    (guard, *_) = guards(perfect, dataset, "embedded")
    assert "may be easier" in guard.sentence


def test_photographs_in_both_and_weights_that_saw_them(dataset, scored):
    items = guards(scored, dataset, "own", training=dataset.subset([2, 0]), seen=["05"])
    sentences = [guard.sentence for guard in items if guard.name == "in training and test"]
    assert len(sentences) == 2 and "05" in sentences[0] and "01 and 03 are among" in sentences[1]
    assert "in training and test" not in named(guards(scored, dataset, "own"))


def test_resized_labels(dataset, scenes):
    assert list(resized_labels(dataset, "own")) == []
    (guard,) = resized_labels(dataset, "DRIVE")
    assert "160x150 instead of 565x584" in guard.sentence and NATIVE["DRIVE"] == (584, 565)

    def enlarged(part):
        planes = [np.kron(plane, np.ones((2, 2), plane.dtype)) for plane in (part[1], part[2])]
        image = np.kron(part[0], np.ones((2, 2, 1), np.uint8)).transpose(2, 0, 1).copy()
        masks = (torch.from_numpy(plane.astype(np.uint8)[None]) for plane in planes)
        return Decoded(torch.from_numpy(image), *masks, None)

    large = DRIVEDataset.from_decoded(["a", "b"], [enlarged(part) for part in scenes[:2]])
    (guard,) = resized_labels(large, "own")
    assert "a and b repeat rows" in guard.sentence


def test_a_threshold_from_the_test(dataset, maps, scored):
    assert "threshold from the test" not in named(guards(scored, dataset, "own"))
    best = scored.ranking.best()[1]
    chosen = evaluate(maps, dataset, threshold=best)
    assert "threshold from the test" in named(guards(chosen, dataset, "own"))
    default = evaluate(maps, dataset, threshold=best, threshold_from=evaluate(maps, dataset).threshold_from)
    assert "threshold from the test" not in named(guards(default, dataset, "own")), "nobody chose it"


# ---------------------------------------------------------------------- report and submission


def test_a_report_is_one_file_that_needs_nothing_else(dataset, scored, audited, tmp_path):
    observer = evaluate_second_observer(dataset, thorough=True)
    path = report(
        tmp_path / "sub" / "r.html", scored, dataset, data="<scenes>", observer=observer, audit=audited
    )
    text = path.read_text(encoding="utf-8")
    assert "http" not in text and 'src="data:image/' in text and "<script" not in text
    assert "&lt;scenes&gt;" in text and audited.verdict.split(":")[0] in text
    for heading in ("Scores", "All thresholds", "Can the probability be trusted?", "Better than a human?"):
        assert f"<h2>{heading}" in text
    assert text.count("<figure>") == NUMBER + 2 * 3  # a strip of all, and the three worst with their errors
    bare = evaluate([m > 2 for m in (v.astype(np.uint8) for v in dataset.vessels)], dataset, thorough=True)
    assert "<h2>Protocol" in report(tmp_path / "bare.html", bare, dataset).read_text(encoding="utf-8")


def test_bins_of_unlike_width_do_not_forbid_a_comparison(scored):
    finer, coarser = (replace(scored, name=str(error), binned=error) for error in (2e-5, 3e-4))
    shown = str(compare([coarser, finer]))
    assert "cannot be compared" not in shown and "[1]" not in shown
    assert "within 3e-04" in shown and "within 2e-05" not in shown, "that of the least exact"
    assert "within 2e-05" in finer.protocol


def test_details_are_tables_that_say_what_is_missing(dataset, scored, maps):
    everything = result(scored, data="scenes", split="test", observer=evaluate_second_observer(dataset))
    tables = details(everything)
    agreement = everything["second_observer"]["agreement"]
    shown = tables["observers"]._repr_html_()
    assert f"<td>{agreement['share missed']:.4f}</td>" in shown
    assert tables["observers"].header == ["agreement of", "Dice", "kappa", "share"]
    kinds = ("breaks", "lost", "components")
    counted = [row[1] for row in tables["vessels"].rows if row[0].startswith(kinds)]
    assert len(counted) == 3 and all(len(cell.split(".")[1]) == 1 for cell in counted), "one digit, all alike"
    assert all("Inside the field of view" in tables[name].notes[0] for name in ("vessels", "observers"))
    assert "ECE in 15 bins" in str(tables["probabilities"])
    assert [row[0] for row in tables["vessels"].rows][:2] == [
        "sensitivity, up to 2 px",
        "sensitivity, 3 to 4 px",
    ]
    bare = evaluate([p >= 0.5 for p in maps], dataset)
    for table in details(result(bare, data="", split="")).values():
        assert table.rows == [] and len(table.notes) == 1
        assert table._repr_html_() == f"<p>{table.notes[0]}</p>"


@pytest.fixture
def photographs(scenes, tmp_path):
    pairs = []
    for number, part in enumerate(scenes[:2], start=1):
        Image.fromarray(part[0]).save(tmp_path / f"0{number}_test.tif")
        pairs.append(Pair(f"0{number}", tmp_path / f"0{number}_test.tif"))
    return pairs


def test_a_submission_holds_what_was_predicted(scenes, photographs, maps, tmp_path):
    files = submission_files([Prediction(maps[0]), Prediction(None, maps[1] >= 0.4)], photographs, 0.4)
    path = write_submission(tmp_path / "out" / "s.zip", files)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["01_test.png", "02_test.png"]
        for name, values in zip(archive.namelist(), maps, strict=False):
            picture = Image.open(archive.open(name))
            assert picture.mode == "L" and picture.size == SIZE[::-1]
            assert np.array_equal(np.asarray(picture), (values >= 0.4) * 255)
    again = write_submission(tmp_path / "again.zip", files)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(DataError, match="exists"):
        write_submission(path, files)


def test_a_submission_that_cannot_be_right_is_not_written(photographs, maps):
    fine = Prediction(None, maps[0] >= 0.4)
    for wrong, words in (
        (Prediction(None, maps[1][1:] >= 0.4), "160x149, the photograph 160x150"),
        (Prediction(None, maps[1] > 2), "calls 0%"),
        (Prediction(None, maps[1] <= 2), "calls 100%"),
    ):
        with pytest.raises(DataError, match=words):
            submission_files([fine, wrong], photographs, 0.5)


def test_scores_are_named_once():
    assert set(KEYS) == set(SCORES)
    assert Confusion(1, 2, 3, 4).plus(Confusion(1, 1, 1, 1)) == (2, 3, 4, 5)


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(scored, dataset, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("drive_unet.files.os.replace", full)
    for write in (scored.to_csv, lambda path: report(path, scored, dataset)):
        with pytest.raises(DataError, match=r"scores cannot be written \(No space left on device\)"):
            write(tmp_path / "scores")
    assert not list(tmp_path.iterdir())
