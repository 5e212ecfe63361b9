"""A stream of painted eyes: what comes in which order, how little is kept, and training on it."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
import re
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from drive_unet import DRIVEDataset, PaintedStream, UNet, fit, presets
from drive_unet.augmentation import training_transform
from drive_unet.data import cache_folder, embedded_folder, painted_dataset
from drive_unet.errors import DataError
from drive_unet.painter import make_embedded, painting
from drive_unet.painter import store as embedded
from drive_unet.painter.eye import AS_USUAL, Ingredients, draw_eye
from drive_unet.painter.painting import Fundus
from drive_unet.preprocessing import Preprocessing
from drive_unet.training import seen, trained_on

SIZE = (48, 52)
SMALL = {"batch_size": 2, "patch_size": 32, "validate_every": 2, "progress": False}


class Painter:
    """A stand-in for `paint` that takes no time; its pixels depend on seed and strengths, and it counts."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def __call__(self, seed: int, size: tuple[int, int] = SIZE, mix: Ingredients = AS_USUAL) -> Fundus:
        self.seeds.append(seed)
        time.sleep(0.002 * (seed % 3))  # so that threads are ready in another order than they began
        rng = np.random.default_rng(seed)
        vessels = rng.random(size) > 0.8
        image = rng.integers(0, 200, (*size, 3)) * (1 - 0.5 * vessels[..., None]) + mix.light
        return Fundus(
            image=image.astype(np.uint8),
            vessels=vessels,
            fov=np.ones(size, bool),
            second_observer=vessels[::-1].copy(),
            arteries=vessels,
            veins=vessels,
            calibre=np.where(vessels, 1, 0).astype(np.float32),
            centreline=vessels,
            eye=draw_eye(rng, size),
        )


@pytest.fixture
def painter(monkeypatch) -> Painter:
    stand_in = Painter()
    monkeypatch.setattr(painting, "paint", stand_in)
    return stand_in


@pytest.fixture
def nothing_painted(monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("an eye was painted")

    monkeypatch.setattr(painting, "paint", never)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def network():
    """A small network that takes small eyes as they are."""
    torch.manual_seed(0)
    model = UNet(widths=(4, 8))
    model.preprocessing = Preprocessing(tolerance=100)
    return model


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


# ---------------------------------------------------------------------- items


def test_an_item_is_a_painted_eye_of_its_own_seed():
    mix = Ingredients(lesions=0, noise=0.5)
    eye = painting.paint(embedded.image_seed(3, 1_000_000), mix=mix)
    stream = PaintedStream(1, seed=3, mix=mix)
    image, vessels, fov, _ = stream[0]
    np.testing.assert_allclose(image.numpy().transpose(1, 2, 0) * 255, eye.image, atol=1e-4)
    assert (image.dtype, vessels.dtype, fov.dtype) == (torch.float32, torch.uint8, torch.uint8)
    np.testing.assert_array_equal(vessels[0].numpy() > 0, eye.vessels)
    np.testing.assert_array_equal(fov[0].numpy() > 0, eye.fov)
    np.testing.assert_array_equal(stream.second_observer[0], eye.second_observer)
    np.testing.assert_array_equal(stream.vessels[0], eye.vessels)


@pytest.mark.parametrize("transform", [None, lambda sample: sample._replace(fov=sample.fov * 0)])
def test_the_same_seed_gives_the_same_items_whatever_the_threads(painter, transform):
    streams = [
        PaintedStream(7, seed=2, at_once=3, reuse=2, threads=threads, transform=transform)
        for threads in (1, 4, None)
    ]
    order = streams[0].order(40, seed=5)
    walks = [[stream[index] for index in order.tolist()] for stream in streams]
    for step, alike in enumerate(zip(*walks, strict=True)):
        assert same(alike[0], alike[1]) and same(alike[0], alike[2]), step
    assert {int(sample.fov.max()) for sample in walks[0]} == {int(transform is None)}


def test_every_eye_of_every_seed_is_another(painter):
    images = [sample.image for seed in (0, 1) for sample in PaintedStream(4, seed=seed)]
    assert len(images) == 8
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(images, 2))


def test_no_eye_is_one_of_a_painted_dataset(painter):
    list(PaintedStream(150, seed=0))
    streamed = set(painter.seeds)
    assert len(streamed) == 150
    assert not streamed & {embedded.image_seed(0, number) for number in range(1, 1000)}
    assert min(streamed) > 1_000_000  # nor of painted_dataset with a seed written by hand


def test_strengths_reach_the_painter(painter):
    usual, bright = PaintedStream(1)[0], PaintedStream(1, mix=Ingredients(light=41))[0]
    torch.testing.assert_close((bright.image - usual.image) * 255, torch.full_like(usual.image, 40.0))


def test_what_the_painter_refuses_is_told():
    with pytest.raises(ValueError, match="strengths of ingredients"):
        PaintedStream(2, mix=Ingredients(density=0))[0]


@pytest.mark.parametrize("name", ["eyes", "at_once", "reuse"])
@pytest.mark.parametrize("number", [0, -3])
def test_numbers_less_than_one_are_refused(name, number):
    with pytest.raises(ValueError, match="eyes, at_once and reuse must be 1 or more"):
        PaintedStream(**{"eyes": 4, name: number})


def test_a_negative_number_of_threads_is_refused():
    with pytest.raises(ValueError, match="greater than 0"):
        PaintedStream(4, threads=-1)


# ---------------------------------------------------------------------- what is known before painting


def test_names_labels_length_and_order_need_no_painting(nothing_painted):
    stream = PaintedStream(5, seed=7)
    assert len(stream) == 5
    assert stream.names == [f"streamed-7-{eye}" for eye in range(5)]
    assert stream.has_labels is True
    assert len(stream.order(1000, 0)) == 1000
    assert "5 photographs with vessel labels" in repr(stream)
    with pytest.raises(AssertionError, match="an eye was painted"):
        stream[0]


def test_fingerprints_are_of_the_eyes_pixels(painter):
    stream = PaintedStream(4, seed=0)
    assert stream.marks == {}
    eyes = stream.subset([0, 2])
    assert stream.marks == {}  # none of the stream itself was read
    stream[2]
    assert stream.marks == {"streamed-0-2": eyes.fingerprints[1]}
    assert eyes.shared_with(stream) == ["streamed-0-2"]
    assert stream.fingerprints[::2] == eyes.fingerprints
    assert all(re.fullmatch("[0-9a-f]{16}", mark) for mark in stream.fingerprints)
    assert len(set(stream.fingerprints)) == 4
    assert list(stream.marks) == ["streamed-0-2"]


def test_the_identity_tells_seeds_strengths_and_painters_apart(nothing_painted, monkeypatch):
    first = PaintedStream(20, seed=0).identity
    assert PaintedStream(20, seed=0, at_once=3, reuse=2, threads=1).identity == first
    others = [PaintedStream(20, seed=1), PaintedStream(21), PaintedStream(20, mix=Ingredients(lesions=0))]
    marks = [first, *(other.identity for other in others)]
    monkeypatch.setattr(painting, "VERSION", painting.VERSION + 1)
    marks.append(PaintedStream(20, seed=0).identity)
    assert len(set(marks)) == 5


# ---------------------------------------------------------------------- order


@settings(deadline=None, max_examples=60)
@given(
    eyes=st.integers(1, 12),
    at_once=st.integers(1, 5),
    reuse=st.integers(1, 4),
    length=st.integers(1, 120),
    seed=st.integers(0, 2**40),
)
def test_eyes_of_one_stretch_are_mixed_and_each_gives_as_many_patches(eyes, at_once, reuse, length, seed):
    stream = PaintedStream(eyes, at_once=at_once, reuse=reuse)
    order = stream.order(length, seed)
    assert order.dtype == torch.int64
    assert order.shape == (length,)
    whole = stream.order(length + 3 * eyes * reuse, seed)  # the longer run begins as the shorter one does
    assert torch.equal(whole[:length], order)
    left = whole.tolist()
    while len(left) >= eyes * reuse:  # once through all eyes, and again
        for start in range(0, eyes, at_once):
            present = range(start, min(start + at_once, eyes))
            patches, left = left[: len(present) * reuse], left[len(present) * reuse :]
            assert sorted(patches) == sorted([*present] * reuse)


def test_stretches_are_shuffled_each_in_its_own_way():
    stream = PaintedStream(8, at_once=8, reuse=16)
    order = stream.order(256, 0)
    assert not torch.equal(order[:128], order[128:])
    assert not torch.equal(order, stream.order(256, 1))
    assert torch.equal(order, PaintedStream(8, at_once=8, reuse=16, seed=9, threads=1).order(256, 0))
    assert len(order[:16].unique()) > 4  # neither one eye after the other, ...
    assert (order[:128].reshape(16, 8).sort(1).values != torch.arange(8)).any()  # ... nor all in turn


# ---------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("eyes", "at_once"), [(12, 3), (6, 3), (7, 3), (11, 4), (5, 3), (4, 1), (3, 8), (1, 1)]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_few_eyes_are_kept_and_none_is_painted_twice(painter, eyes, at_once, threads):
    stream = PaintedStream(eyes, at_once=at_once, reuse=5, threads=threads)
    kept = []
    for index in stream.order(eyes * 5, 0).tolist():
        stream[index]
        kept.append(len(stream._photographs.ready))
    assert max(kept) <= 2 * at_once
    assert max(kept) <= eyes
    # but the first stretch again, which is ahead when the last one is used
    painted = [painter.seeds.count(seed) for seed in dict.fromkeys(painter.seeds)]
    assert len(painted) == eyes
    assert max(painted) <= 2 and sum(painted) <= eyes + at_once


def test_the_next_eyes_are_painted_ahead(painter):
    stream = PaintedStream(6, at_once=2, threads=2)
    stream[0]
    stream._photographs.ready[2].result(timeout=10)  # which takes the place of 0
    before = len(painter.seeds)
    for _ in range(20):
        stream[0]
    assert len(painter.seeds) == before == 2


def test_an_eye_that_was_forgotten_is_painted_again_equally(painter):
    stream = PaintedStream(5, at_once=1, threads=1)
    first = stream[0]
    for index in (1, 2, 3):
        stream[index]
    assert 0 not in stream._photographs.ready
    again = stream[0]
    assert same(first, again)
    assert painter.seeds.count(embedded.image_seed(0, 1_000_000)) == 2


def test_a_transform_must_not_write_into_its_sample(painter):
    stream = PaintedStream(2, transform=lambda sample: sample._replace(fov=sample.fov.zero_()))
    with pytest.raises(TypeError, match="wrote into the stored photograph streamed-0-0"):
        stream[0]


def test_a_stream_at_another_scale_has_the_same_fingerprints(painter):
    stream = PaintedStream(3)
    half = stream.prepared(Preprocessing(fov_width=26))
    assert type(half) is PaintedStream and half.prepared(Preprocessing(fov_width=26)) is half
    assert half[1].image.shape == (3, 24, 26) and half[1].vessels.shape == (1, 24, 26)
    assert stream.marks == half.marks == {"streamed-0-1": stream.fingerprints[1]}


# ---------------------------------------------------------------------- subsets


def test_some_of_the_eyes(painter):
    stream = PaintedStream(6, at_once=2, transform=lambda sample: None)
    part = stream.subset(["streamed-0-4", "streamed-0-1"], transform=lambda sample: sample.image / 255)
    assert isinstance(part, DRIVEDataset) and len(part) == 2
    assert part.names == ["streamed-0-4", "streamed-0-1"]
    stream.transform = None
    assert torch.equal(part[0], stream[4].image) and torch.equal(part[1], stream[1].image)
    assert stream.subset([-1, 0]).names == ["streamed-0-5", "streamed-0-0"]
    assert part.has_labels
    for wrong in ("streamed-0-6", 6):
        with pytest.raises(ValueError, match="there is no photograph"):
            stream.subset([wrong])


def test_a_network_learns_from_some_of_the_eyes(painter):
    part = PaintedStream(6, at_once=2).subset([0, 3, 4])
    assert len(set(part.fingerprints)) == 3
    assert sorted(part.order(6, 0).tolist()) == [0, 0, 1, 1, 2, 2]
    run = fit(network(), part, steps=2, **SMALL)
    assert len(run.history) == 2


def test_all_of_the_eyes_stay_a_stream_and_share_what_is_painted(painter):
    stream = PaintedStream(4, at_once=2, reuse=3, mix=Ingredients(light=2))
    view = stream.subset(stream.names, transform=lambda sample: sample.image / 255)
    assert painter.seeds == []
    assert type(view) is PaintedStream
    assert stream.transform is None
    assert torch.equal(view.order(50, 1), stream.order(50, 1))
    assert view.identity == stream.identity
    assert torch.equal(view[0], stream[0].image)
    assert view.marks == stream.marks and len(view.marks) == 1
    assert painter.seeds.count(embedded.image_seed(0, 1_000_000)) == 1


def test_a_stream_goes_to_another_process(painter):
    again = pickle.loads(pickle.dumps(PaintedStream(3, seed=4)))
    assert same(again[1], PaintedStream(3, seed=4)[1])


# ---------------------------------------------------------------------- training


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="a stand-in painter needs a fork")
def test_worker_processes_get_the_same_items(painter):
    stream = PaintedStream(5, at_once=2, threads=2)
    here = list(stream)  # with threads in this process, which a fork does not have
    there = list(DataLoader(stream, batch_size=None, num_workers=2))
    assert len(there) == 5
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="a stand-in painter needs a fork")
def test_weights_do_not_depend_on_workers_or_threads(painter):
    results = []
    for workers, threads, seed in ((0, 1, 0), (0, 4, 0), (2, 2, 0), (0, 2, 1)):
        model = network()
        stream = PaintedStream(5, seed=seed, at_once=2, reuse=2, threads=threads)
        fit(model, stream, steps=6, num_workers=workers, **SMALL)
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[3])


def test_training_takes_the_patches_in_the_streams_order(painter):
    taken = []

    def cut(sample):
        taken.append(sample.image.clone())
        return training_transform(32)(sample)

    stream = PaintedStream(5, at_once=2, reuse=3)
    fit(network(), stream.subset(stream.names, cut), steps=10, seed=4, **SMALL)
    expected = stream.order(20, 4).tolist()
    assert len(taken) == 20
    assert all(
        torch.equal(image / 255, stream[eye].image) for image, eye in zip(taken, expected, strict=True)
    )


class Broken(Exception):
    pass


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_resuming_ends_where_an_unbroken_run_ends(painter, tmp_path, average):
    options = {"steps": 8, "average": average, **SMALL}
    unbroken = network()
    whole = fit(unbroken, PaintedStream(5, at_once=2, reuse=2), **options)

    cut, calls = training_transform(32), iter(range(1, 100))

    def breaks_off(sample):
        if next(calls) > 2 * 5:
            raise Broken
        return cut(sample)

    breaks_off.description = None  # as if there were none, so that the run goes on without it
    stream = PaintedStream(5, at_once=2, reuse=2, transform=breaks_off)
    with pytest.raises(Broken):
        fit(network(), stream, out=tmp_path, **options)
    assert {path.name for path in tmp_path.iterdir()} == {"train.log", "last.pt", "previous.pt"}

    resumed = network()
    run = fit(resumed, PaintedStream(5, at_once=2, reuse=2), out=tmp_path, resume=True, **options)
    assert run.history == whole.history
    assert resumed.notes["trained_on"] == unbroken.notes["trained_on"]
    assert torch.equal(weights(resumed), weights(unbroken))

    other = PaintedStream(5, at_once=2, reuse=2, mix=Ingredients(lesions=0))
    with pytest.raises(ValueError, match="belongs to another run"):
        fit(network(), other, out=tmp_path, resume=True, **options)
    for other in (PaintedStream(5, at_once=3, reuse=2), PaintedStream(5, at_once=2, reuse=3)):
        with pytest.raises(ValueError, match=f"each was 2 x 2, is {other.at_once} x {other.reuse}\\)"):
            fit(network(), other, out=tmp_path, resume=True, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_weights_know_the_eyes_that_they_learned_from_by_pixels(painter, workers):
    if workers and multiprocessing.get_start_method() != "fork":
        pytest.skip("a stand-in painter needs a fork")
    model, stream = network(), PaintedStream(6, seed=6, at_once=2, reuse=1)
    fit(model, stream, steps=2, num_workers=workers, **SMALL)  # of two patches each
    record = model.notes["trained_on"]
    eyes = stream.subset(range(4))
    assert (record["names"], record["fingerprints"]) == (eyes.names, eyes.fingerprints)
    assert seen(model.notes, stream) == eyes.names  # under whatever name:
    assert seen(model.notes, DRIVEDataset.from_decoded(["a"], [eyes._photographs[0].read()])) == ["a"]


def test_an_eye_of_the_stream_is_refused_for_validation(painter):
    stream = PaintedStream(6, at_once=2, reuse=1)
    unused, used = stream.subset([5]), stream.subset([1])
    fit(network(), PaintedStream(6, at_once=2, reuse=1), unused, steps=2, **SMALL)
    with pytest.raises(DataError, match="streamed-0-1 are in both training and validation"):
        fit(network(), stream, used, steps=2, **SMALL)


def test_a_stream_is_refused_where_thresholds_would_need_all_of_it(painter):
    with pytest.raises(ValueError, match="use|with fit"):
        presets.train("laptop", PaintedStream(3), steps=1)
    assert painter.seeds == []


def test_a_long_stream_has_a_short_name():
    assert len(repr(PaintedStream(20_000))) < 100


def test_bad_seeds_and_strengths_are_refused_at_once():
    with pytest.raises(ValueError, match="seed=-1"):
        PaintedStream(2, seed=-1)
    with pytest.raises(ValueError, match="0 or more"):
        PaintedStream(2, mix=Ingredients(noise=-1))


def test_the_embedded_set_lies_in_the_cache(monkeypatch, tmp_path):
    folder = embedded_folder(progress=False)
    assert folder.is_relative_to(cache_folder())
    assert make_embedded(cache_folder(), progress=False) == folder
    assert (folder / "training" / "images" / "21_training.tif").is_file()
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"


def test_a_record_of_training_names_what_was_seen_there_and_before():
    eyes = painted_dataset([1, 2])
    first, second = (eyes.subset([name]) for name in eyes.names)
    record = trained_on(second, "painted", before=trained_on(first))
    assert record["source"] == "painted"
    assert record["names"] == second.names
    assert record["fingerprints"] == second.fingerprints
    assert seen({"trained_on": record}, eyes) == eyes.names
    assert seen({"trained_on": trained_on(first)}, eyes) == first.names
    assert seen({}, eyes) is None
