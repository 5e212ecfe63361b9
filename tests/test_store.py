"""Sets too large for memory: decoded on demand, prepared in the cache, mapped from there."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from builders import SIZE, grey, photograph, tree, write_split
from PIL import Image
from torch.utils.data import DataLoader

from drive_unet import files
from drive_unet.augmentation import training_transform
from drive_unet.data import DRIVEDataset, collate, store
from drive_unet.data.reading import Decoded
from drive_unet.errors import DataError
from drive_unet.preprocessing import Preprocessing, levels, rescale, rescale_mask

HALF = Preprocessing(fov_width=27)  # of the 56 px that the field of view has in these photographs


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path / "cache"))
    store._read_lately.cache_clear()
    return tmp_path / "cache" / "prepared"


@pytest.fixture
def folder(tmp_path):
    return write_split(tmp_path / "training", "training", range(21, 25), second=True)


@pytest.fixture
def large(folder, monkeypatch):
    """Four photographs that are treated as too many for memory."""
    monkeypatch.setattr(store, "IN_MEMORY", 0)
    return DRIVEDataset(folder / "images", folder / "1st_manual", second_dir=folder / "2nd_manual")


@pytest.fixture
def decoded(monkeypatch):
    """The names of the photographs that are decoded from now on."""
    names, read = [], store.read_photograph

    def counted(pair, **options):
        names.append(pair.name)
        return read(pair, **options)

    monkeypatch.setattr(store, "read_photograph", counted)
    return names


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# ------------------------------------------------------------------------------------------- on demand


def test_a_large_set_gives_the_same_items_as_a_small_one(large, folder, monkeypatch):
    monkeypatch.setattr(store, "IN_MEMORY", 10**9)
    small = DRIVEDataset(folder / "images", folder / "1st_manual", second_dir=folder / "2nd_manual")
    assert isinstance(small._photographs[0], store.InMemory)
    assert isinstance(large._photographs[0], store.InFiles)
    assert large.names == small.names and large.has_labels
    assert all(same(a, b) for a, b in zip(large, small, strict=True))
    for kind in ("vessels", "fovs", "second_observer"):
        for a, b in zip(getattr(large, kind), getattr(small, kind), strict=True):
            np.testing.assert_array_equal(a, b)
    assert large.fingerprints == small.fingerprints and large.identity == small.identity


def test_nothing_is_decoded_before_it_is_needed_and_little_is_kept(folder, decoded, monkeypatch):
    monkeypatch.setattr(store, "IN_MEMORY", 0)
    data = DRIVEDataset(folder / "images", folder / "1st_manual")
    assert len(data) == 4 and data.has_labels and decoded == []
    assert data.vessels[2] is not None and data.fovs[-1].any()
    assert decoded == ["23", "24"]
    assert (data[2], data[3]) and decoded == ["23", "24"]  # read lately


def test_what_headers_tell_is_told_at_once(folder, monkeypatch):
    monkeypatch.setattr(store, "IN_MEMORY", 0)
    grey(255)(tree(22, (30, 40))).save(folder / "1st_manual" / "22_manual1.gif")
    with pytest.raises(DataError, match=r"22_manual1.gif is 40x30 .*its photograph 22_training.tif is 60x58"):
        DRIVEDataset(folder / "images", folder / "1st_manual")
    (folder / "1st_manual" / "22_manual1.gif").write_bytes(b"nothing")
    with pytest.raises(DataError, match="22_manual1.gif is no image"):
        DRIVEDataset(folder / "images", folder / "1st_manual")


def test_the_rest_is_told_when_a_photograph_is_read(large, folder):
    Image.fromarray(photograph(1)[..., 1]).save(folder / "1st_manual" / "22_manual1.gif")
    assert large[0].vessels.any()
    with pytest.raises(DataError, match="22_manual1.gif holds .* grey levels"):
        large[1]
    with pytest.raises(DataError, match="22_manual1.gif holds .* grey levels"):
        large.prepared(HALF)


# ------------------------------------------------------------------------------------------- prepared


def test_small_sets_are_prepared_in_memory(folder, own_cache):
    data = DRIVEDataset(folder / "images", folder / "1st_manual", second_dir=folder / "2nd_manual")
    assert data.prepared(Preprocessing(fov_width=55)) is data
    half = data.prepared(HALF)
    assert half.prepared(HALF) is half
    scale = HALF.scale(data.fovs[0])
    image = rescale(photograph(21), scale)
    np.testing.assert_array_equal((half[0].image * 255).round().numpy().transpose(1, 2, 0), image)
    np.testing.assert_array_equal(half.vessels[0], rescale_mask(data.vessels[0], scale))
    np.testing.assert_array_equal(half.second_observer[0], rescale_mask(data.second_observer[0], scale))
    assert torch.equal(half[0].levels, levels(image, half.fovs[0]))
    assert half.fingerprints == data.fingerprints
    back = half.prepared(Preprocessing(fov_width=55))
    assert same(back[3], data[3])
    assert not own_cache.exists()


@pytest.mark.parametrize("width", [27, 55])
def test_large_sets_are_prepared_once_and_mapped(large, folder, decoded, own_cache, monkeypatch, width):
    preprocessing = Preprocessing(fov_width=width)
    first = large.prepared(preprocessing)
    assert sorted(decoded) == large.names
    assert isinstance(first._photographs[0], store.Mapped)
    assert first.prepared(preprocessing) is first
    again = DRIVEDataset(folder / "images", folder / "1st_manual", second_dir=folder / "2nd_manual")
    again = again.prepared(preprocessing)
    assert again.fingerprints and again.identity and all(again)
    assert len(decoded) == 4  # not a second time
    monkeypatch.setattr(store, "IN_MEMORY", 10**9)
    small = DRIVEDataset(folder / "images", folder / "1st_manual", second_dir=folder / "2nd_manual")
    small = small.prepared(preprocessing)
    assert all(same(a, b) for a, b in zip(again, small, strict=True))
    for kind in ("vessels", "fovs", "second_observer"):
        for a, b in zip(getattr(again, kind), getattr(small, kind), strict=True):
            np.testing.assert_array_equal(a, b)
    assert again.fingerprints == small.fingerprints
    assert not list(own_cache.glob(".*"))


def test_changed_files_are_prepared_anew(large, folder, decoded):
    large.prepared(HALF)
    Image.fromarray(photograph(77)).save(folder / "images" / "22_training.tif")
    os.utime(folder / "images" / "22_training.tif", ns=(1, 1))
    again = DRIVEDataset(folder / "images", folder / "1st_manual", second_dir=folder / "2nd_manual")
    changed = again.prepared(HALF)
    assert decoded[4:] == ["22"]
    assert changed.fingerprints[1] != large.fingerprints[1]
    assert changed.fingerprints[1] == store.pixel_fingerprint(
        torch.from_numpy(photograph(77).transpose(2, 0, 1))
    )


@pytest.mark.parametrize("damage", ["deleted", "cut off", "other", "empty"])
def test_a_damaged_file_is_made_again(large, own_cache, damage):
    prepared = large.prepared(HALF)
    before = list(prepared)
    for path in own_cache.iterdir():
        content = path.read_bytes()
        path.unlink()
        if damage != "deleted":
            path.write_bytes(
                {"cut off": content[: len(content) // 2], "other": b"x" * 99, "empty": b""}[damage]
            )
    assert all(same(a, b) for a, b in zip(prepared, before, strict=True))
    assert all(same(a, b) for a, b in zip(large.prepared(HALF), before, strict=True))
    assert large.prepared(HALF).fingerprints == large.fingerprints


@pytest.mark.parametrize("kind", ["file", "full"])
def test_a_cache_that_cannot_be_written_is_told(large, tmp_path, monkeypatch, kind):
    if kind == "file":
        (tmp_path / "cache").write_text("in the way")
    else:

        def full(*arguments, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match="prepared photograph 2. cannot be written.*DRIVE_UNET_CACHE"):
        large.prepared(HALF)
    assert not list(tmp_path.glob("cache/prepared/*.npy")) + list(tmp_path.glob("cache/prepared/.*.part"))
    assert len(large.fingerprints) == 4  # which need no cache


def test_what_killed_processes_left_is_swept(large, own_cache):
    own_cache.mkdir(parents=True)
    for name, age in ((".old.part", 2 * 24 * 3600), (".new.part", 60)):
        (own_cache / name).write_bytes(b"half")
        os.utime(own_cache / name, (time.time() - age,) * 2)
    large.prepared(HALF)
    assert [path.name for path in own_cache.glob(".*")] == [".new.part"]


# ------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize(
    ("module", "computed"),
    [("drive_unet.data.store", "pixel_fingerprint"), ("drive_unet.preprocessing.levels", "levels")],
)
def test_threads_do_not_wait_for_each_other(monkeypatch, module, computed):
    """Nor does a forked process, for a thread that it does not have."""
    image = torch.full((4, 5, 6), 1, dtype=torch.uint8)
    photographs = [store.InMemory(Decoded(image[:3], None, image[3:], None)) for _ in range(2)]
    both = threading.Barrier(2, timeout=20)  # which each passes only while the other computes too
    module = importlib.import_module(module)
    monkeypatch.setattr(module, computed, lambda *arguments: both.wait() >= 0)
    name = "fingerprint" if computed == "pixel_fingerprint" else computed
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda photograph: getattr(photograph, name), photographs)) == [True, True]
    assert getattr(photographs[0], name)  # known now


needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="what is patched here goes along by a fork"
)


@needs_fork
def test_two_processes_may_prepare_at_once(large, decoded):
    fork = multiprocessing.get_context("fork")
    both, marks = fork.Barrier(2, timeout=60), fork.SimpleQueue()

    def prepare():
        both.wait()
        marks.put(large.prepared(HALF).fingerprints)

    fillers = [fork.Process(target=prepare) for _ in range(2)]
    for filler in fillers:
        filler.start()
    assert marks.get() == marks.get()
    for filler in fillers:
        filler.join()
    assert all(sample.fov.any() for sample in large.prepared(HALF)) and decoded == []


@needs_fork
def test_a_kill_in_the_middle_leaves_nothing_half_done(large, own_cache, decoded, tmp_path):
    def killed():
        def write(file):
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        files.write_atomically(large._photographs[0].prepared(HALF).path.with_name("x.npy"), write)

    large.subset([0]).prepared(HALF)
    child = multiprocessing.get_context("fork").Process(target=killed)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(list(own_cache.glob(".*.part"))) == 1 and not (own_cache / "x.npy").exists()
    assert len(large.prepared(HALF)) == 4 and sorted(decoded) == ["21", "22", "23", "24"]


def test_worker_processes_share_what_is_prepared(large, decoded):
    prepared = large.prepared(HALF)
    prepared.transform = training_transform(16)
    loader = DataLoader(prepared, batch_size=2, num_workers=2, collate_fn=collate)
    batches = list(loader)
    assert [tuple(batch.image.shape) for batch in batches] == [(2, 3, 16, 16)] * 2
    copy = pickle.loads(pickle.dumps(large.prepared(HALF)))
    assert same(copy[1], large.prepared(HALF)[1])
    assert len(pickle.dumps(large)) < 3 * SIZE[0] * SIZE[1]  # paths, no pixels


def test_what_is_written_into_a_mapped_photograph_stays_there(large, own_cache):
    prepared = large.prepared(HALF)
    before = prepared[0]
    prepared._photographs[0].read().image.zero_()
    assert same(prepared[0], before) and same(large.prepared(HALF)[0], before)


def test_the_usual_width_of_many_photographs_is_found_without_decoding_all(folder, decoded, monkeypatch):
    from drive_unet.presets import fov_width

    monkeypatch.setattr(store, "IN_MEMORY", 0)
    data = DRIVEDataset(folder / "images", folder / "1st_manual").subset([0, 1, 2, 3] * 60)
    del decoded[:]
    store._read_lately.cache_clear()
    monkeypatch.setattr(store, "_read_lately", store._read_lately.__wrapped__)
    assert fov_width(data) == 56
    assert len(decoded) <= 60
