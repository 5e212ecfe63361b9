"""Decoding to exact {0, 1}, the dataset, the folds, and what is scored where labels are missing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from builders import (
    SIZE,
    TRAINING,
    colour,
    disc,
    grey,
    one_bit,
    palette,
    photograph,
    png_of_16_bits,
    tree,
    write_drive,
    write_files,
    write_split,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms, tv_tensors
from torchvision.transforms import v2

from drive_unet.data import DRIVEDataset, Sample, collate, folds, load_drive, read_image, read_mask
from drive_unet.data.decoding import decode
from drive_unet.data.painted import painted_dataset
from drive_unet.data.pairing import folders, images, keys_of, match, pair_folders
from drive_unet.data.reading import Decoded
from drive_unet.errors import DataError
from drive_unet.evaluation.finished import finished_predictions
from drive_unet.painter.eye import Ingredients
from drive_unet.painter.painting import paint
from drive_unet.preprocessing import Levels, detect_fov

WHITE, BLACK = (255, 255, 255), (0, 0, 0)

ENCODINGS = {
    "grey 0/255 GIF": (grey(255), ".gif"),
    "grey 0/1 GIF": (grey(1), ".gif"),
    "grey 0/255 PNG": (grey(255), ".png"),
    "grey 0/1 PNG": (grey(1), ".png"),
    "grey 0/255 TIFF": (grey(255), ".tif"),
    "palette {3, 253} GIF": (palette, ".gif"),
    "palette {3, 253} PNG": (palette, ".png"),
    "one bit PNG": (one_bit, ".png"),
    "one bit TIFF": (one_bit, ".tif"),
    "16 bit 0/65535 PNG": (grey(65535, np.uint16), ".png"),
    "16 bit 0/1 TIFF": (grey(1, np.uint16), ".tif"),
    "16 bit 0/255 TIFF": (grey(255, np.uint16), ".tif"),
    "32 bit 0/1 TIFF": (grey(1, np.int32), ".tif"),
    "float 0/1 TIFF": (grey(1, np.float32), ".tif"),
    "RGB": (colour(WHITE, BLACK), ".png"),
    "RGB of two colours": (colour((255, 255, 0), (0, 0, 128)), ".bmp"),
    "RGBA, opaque": (colour((*WHITE, 255), (*BLACK, 255)), ".png"),
    "RGBA, clear background": (colour((*WHITE, 255), (*BLACK, 0)), ".png"),
    "RGBA, drawn in alpha alone": (colour((*BLACK, 255), (*BLACK, 0)), ".png"),
}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Today's official download, read only."""
    return write_drive(tmp_path_factory.mktemp("official"))


@pytest.fixture
def small(tmp_path):
    """Six labelled training photographs."""
    folder = write_split(tmp_path / "training", "training", range(21, 27))
    return DRIVEDataset(folder / "images", folder / "1st_manual")


# --------------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("mask", [tree(3), disc()], ids=["vessels", "fov"])
def test_masks_of_every_encoding(tmp_path, name, mask):
    encode, suffix = ENCODINGS[name]
    encode(mask).save(tmp_path / f"label{suffix}")
    decoded = read_mask(tmp_path / f"label{suffix}")
    assert decoded.dtype == np.bool_
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("name", ENCODINGS)
def test_all_background_is_background(tmp_path, name):
    encode, suffix = ENCODINGS[name]
    encode(np.zeros(SIZE, dtype=bool)).save(tmp_path / f"label{suffix}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"label{suffix}"), np.zeros(SIZE, dtype=bool))


def test_the_palette_trap_is_one(tmp_path):
    """What the second observer's files do to `> 0`, so that the test above means something."""
    palette(tree()).save(tmp_path / "01_manual2.gif")
    with Image.open(tmp_path / "01_manual2.gif") as picture:
        assert picture.mode == "P"
        assert set(np.unique(picture)) == {0, 1}
        assert set(np.unique(picture.convert("L"))) == {3, 253}


@settings(max_examples=40, deadline=None)
@given(
    mask=arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(
        lambda mask: not mask.all()
    ),
    name=st.sampled_from(sorted(ENCODINGS)),
)
def test_any_mask_survives_any_encoding(tmp_path_factory, mask, name):
    encode, suffix = ENCODINGS[name]
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    encode(mask).save(path)
    np.testing.assert_array_equal(read_mask(path), mask)


@pytest.mark.parametrize(
    "name", [name for name in ENCODINGS if name.startswith(("grey", "palette", "one", "16"))]
)
def test_all_foreground_is_foreground(tmp_path, name):
    encode, suffix = ENCODINGS[name]
    encode(np.ones(SIZE, dtype=bool)).save(tmp_path / f"fov{suffix}")
    assert read_mask(tmp_path / f"fov{suffix}").all()


def test_a_label_kept_as_jpeg_is_still_two_valued(tmp_path):
    mask = np.kron(tree(5), np.ones((4, 4), dtype=bool))
    grey(255)(mask).save(tmp_path / "label.jpg", quality=90)
    np.testing.assert_array_equal(read_mask(tmp_path / "label.jpg"), mask)


@pytest.mark.parametrize(
    "levels",
    [
        photograph(3)[..., 1],
        np.asarray(
            Image.fromarray(tree().astype(np.uint8) * 255).resize((90, 87), Image.Resampling.BILINEAR)
        ),
        np.where(disc(), 1, 0).astype(np.uint8) + tree().astype(np.uint8),
    ],
    ids=["a photograph", "resized with smoothing", "classes 0, 1, 2"],
)
def test_what_is_not_two_valued_is_no_label(tmp_path, levels):
    Image.fromarray(levels).save(tmp_path / "label.png")
    with pytest.raises(DataError, match=r"label\.png holds \d+ grey levels where labels have two.*original"):
        read_mask(tmp_path / "label.png")


@pytest.mark.parametrize("suffix", [".tif", ".png", ".bmp", ".ppm"])
def test_photographs(tmp_path, suffix):
    Image.fromarray(photograph(21)).save(tmp_path / f"21{suffix}")
    image = read_image(tmp_path / f"21{suffix}")
    assert (image.dtype, image.shape) == (np.uint8, (*SIZE, 3))
    np.testing.assert_array_equal(image, photograph(21))


def test_photographs_in_grey_16_bit_and_with_alpha(tmp_path):
    channel = photograph(21)[..., 1]
    Image.fromarray(channel).save(tmp_path / "grey.png")
    Image.fromarray(channel.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([photograph(21), channel])).save(tmp_path / "alpha.png")
    for name in ("grey", "deep"):
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png"), np.dstack([channel] * 3))
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), photograph(21))


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["grey.png", "grey.tif", "wide.tif", "colour.png", "colour.tif"])
def test_photographs_of_more_than_8_bits(tmp_path, bits, kind):
    """10 to 14 bits lie in files of 16, and would be black if those were taken for full."""
    image = photograph(21).astype(float)
    levels = np.round(image / image.max() * (2**bits - 1)).astype(np.uint16)
    expected = np.round(levels * (255 / (2**bits - 1))).astype(np.uint8)
    path = tmp_path / kind
    if kind == "colour.png":
        path.write_bytes(png_of_16_bits(levels))
    elif kind == "colour.tif":
        tifffile.imwrite(path, levels, photometric="rgb")
    else:  # wide: 32 bits, as which Pillow 10.0 reads 16-bit PNGs, too
        levels, expected = levels[..., 1], np.dstack([expected[..., 1]] * 3)
        levels[0, 0], expected[0, 0] = 2**bits - 1, 255
        Image.fromarray(levels.astype(np.int32) if kind == "wide.tif" else levels).save(path)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_deep_tiff_may_keep_each_colour_in_a_plane(tmp_path, compression):
    levels = np.random.default_rng(0).integers(0, 2**16, (3, *SIZE)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "deep.tif", levels, photometric="rgb", planarconfig="separate", compression=compression
    )
    np.testing.assert_array_equal(decode(tmp_path / "deep.tif").deep, levels.transpose(1, 2, 0))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_every_bit_of_a_deep_png_is_read(tmp_path, channels):
    levels = np.random.default_rng(channels).integers(0, 2**16, (*SIZE, channels)).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(png_of_16_bits(levels))
    np.testing.assert_array_equal(decode(tmp_path / "deep.png").deep, levels)


def test_values_beyond_16_bits_are_scaled_by_the_brightest(tmp_path):
    levels = photograph(21)[..., 1].astype(np.int32)
    Image.fromarray(levels * 1000).save(tmp_path / "wide.tif")
    expected = np.round(levels * (255 / levels.max())).astype(np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "wide.tif")[..., 0], expected)


def test_a_file_s_own_depth_counts_however_dark_it_is(tmp_path):
    dark = photograph(21)[..., 1].astype(np.uint16)  # at most 255 of 4095
    tifffile.imwrite(tmp_path / "dark.tif", dark, extratags=[(281, "H", 1, 4095, True)])
    expected = np.round(dark * (255 / 4095)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "dark.tif")[..., 0], expected)


@pytest.mark.parametrize("bits", [12, 16])
def test_a_png_s_own_depth_counts_however_dark_it_is(tmp_path, bits):
    dark = photograph(21).astype(np.uint16) * 3  # at most 10 bits
    for path, levels in ((tmp_path / "colour.png", dark), (tmp_path / "grey.png", dark[..., 1])):
        path.write_bytes(png_of_16_bits(levels, significant=bits))
        expected = np.round(levels * (255 / (2**bits - 1))).astype(np.uint8)
        np.testing.assert_array_equal(read_image(path), np.dstack([expected] * 3)[..., :3])


def test_too_little_memory_is_told_as_that(tmp_path, monkeypatch):
    Image.fromarray(photograph(21)).save(tmp_path / "eye.png")
    monkeypatch.setattr(Image.Image, "load", lambda *arguments: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(DataError, match="eye.png needs more memory than there is"):
        read_image(tmp_path / "eye.png")


def test_labels_in_deep_colour(tmp_path):
    mask = tree(4)
    for bright in (1, 4095, 65535):
        (tmp_path / "label.png").write_bytes(png_of_16_bits(np.dstack([mask * np.uint16(bright)] * 3)))
        np.testing.assert_array_equal(read_mask(tmp_path / "label.png"), mask)
    Image.fromarray(np.full(SIZE, 4095, np.uint16)).save(tmp_path / "fov.png")
    assert read_mask(tmp_path / "fov.png").all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["photograph.png", "photograph.tif", "deep.tif"])
def test_orientation_is_obeyed(tmp_path, orientation, kind):
    """As the standard words it: which side of the picture the stored first row and first column are."""
    upright = photograph(21)
    upright[30, 30] = 255  # so that the deep copy has 16 bits
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    label = Image.fromarray(np.ascontiguousarray(stored[..., 1] > 60))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / kind
    if kind == "deep.tif":
        levels = np.ascontiguousarray(stored.astype(np.uint16) * 257)
        tifffile.imwrite(path, levels, photometric="rgb", extratags=[(0x0112, "H", 1, orientation, True)])
    else:
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    label.save(tmp_path / "label.png", exif=exif)
    np.testing.assert_array_equal(read_image(path), upright)
    np.testing.assert_array_equal(read_mask(tmp_path / "label.png"), upright[..., 1] > 60)


def test_jpeg_2000_is_a_photograph_like_any(tmp_path):
    for number in (1, 2):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(photograph(number)).save(tmp_path / "images" / f"{number}.jp2")
    data = DRIVEDataset(tmp_path / "images")
    assert data.names == ["1", "2"]
    np.testing.assert_array_equal(read_image(tmp_path / "images" / "1.jp2"), photograph(1))


# --------------------------------------------------------------------------------------------------- datasets


def test_sample(small):
    sample = small[2]
    assert isinstance(sample, Sample)
    assert isinstance(sample.image, tv_tensors.Image)
    assert isinstance(sample.vessels, tv_tensors.Mask)
    assert isinstance(sample.fov, tv_tensors.Mask)
    assert isinstance(sample.levels, Levels)
    assert [part.dtype for part in sample] == [torch.float32, torch.uint8, torch.uint8, torch.float32]
    assert [tuple(part.shape) for part in sample] == [(3, *SIZE), (1, *SIZE), (1, *SIZE), (3, 256, 2)]
    np.testing.assert_array_equal((sample.image * 255).round().numpy(), photograph(23).transpose(2, 0, 1))
    np.testing.assert_array_equal(sample.vessels[0].numpy(), tree(23))
    np.testing.assert_array_equal(sample.fov[0].numpy(), disc())
    assert float(sample.image.max()) <= 1


def test_names_are_sorted_and_the_article_s_arguments_work(small, tmp_path):
    assert small.names == ["21", "22", "23", "24", "25", "26"]
    assert len(small) == 6
    assert small.has_labels
    assert list(small.second_observer) == [None] * 6
    again = DRIVEDataset(
        image_dir=str(tmp_path / "training/images"),
        mask_dir=tmp_path / "training/1st_manual",
        transform=v2.Resize((32, 32)),
    )
    assert again[0].image.shape == (3, 32, 32)
    np.testing.assert_array_equal(again.vessels[2], tree(23))  # as taken, without the transform
    np.testing.assert_array_equal(again.fovs[2], disc())
    assert again.vessels[2].dtype == again.fovs[2].dtype == bool
    assert "6 photographs with vessel labels" in repr(again)


def test_an_item_may_be_written_into(small):
    before = [part.clone() for part in small[0]]
    for part in small[0]:
        part.zero_()
    assert all(torch.equal(one, other) for one, other in zip(small[0], before, strict=True))


def test_iteration_and_negative_indices(small):
    assert len(list(small)) == 6
    assert torch.equal(small[-1].image, small[5].image)
    with pytest.raises(IndexError):
        small[6]


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip(p=1.0),
        v2.RandomVerticalFlip(p=1.0),
        v2.RandomResizedCrop((40, 44), scale=(0.3, 0.8)),
        v2.RandomRotation(45),
        v2.RandomAffine(20, translate=(0.1, 0.1), scale=(0.8, 1.2)),
        v2.Compose([v2.RandomCrop(32), v2.RandomHorizontalFlip(p=0.5), v2.RandomErasing(p=0)]),
        v2.ElasticTransform(alpha=20.0),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_transforms_move_everything_together(tmp_path, transform):
    """The image's red channel is the vessels and its green the FOV; so it stays wherever they are moved."""
    image = np.dstack([tree(4) * 255, disc() * 255, disc() * 0]).astype(np.uint8)
    for folder, picture in (("images", image), ("1st_manual", tree(4)), ("fov", disc())):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "21.png")
    folders = [tmp_path / name for name in ("images", "1st_manual")]
    data = DRIVEDataset(*folders, transform=transform, fov_dir=tmp_path / "fov")
    torch.manual_seed(3)
    sample = data[0]
    assert isinstance(sample, Sample)
    assert isinstance(sample.vessels, tv_tensors.Mask)
    assert sample.vessels.dtype == sample.fov.dtype == torch.uint8
    assert set(torch.unique(sample.vessels).tolist()) <= {0, 1}
    assert not torch.equal(sample.vessels, Sample(*data.subset([0])[0]).vessels)
    for channel, mask in ((0, sample.vessels), (1, sample.fov)):
        # Nearest and bilinear interpolation agree wherever the image is surely one or the other.
        level = sample.image[channel]
        sure = (level < 0.05) | (level > 0.95)
        agreement = ((level > 0.5) == mask[0].bool())[sure].float().mean()
        assert agreement > 0.98, agreement
        assert sure.float().mean() > 0.5


def test_colour_transforms_leave_masks_alone(small):
    plain = small[1]
    small.transform = v2.Compose(
        [
            v2.ColorJitter(0.4, 0.4),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.2] * 3),
        ]
    )
    changed = small[1]
    assert not torch.equal(changed.image, plain.image)
    assert torch.equal(changed.vessels, plain.vessels)
    assert torch.equal(changed.fov, plain.fov)


def test_transforms_that_know_no_masks_are_refused(small):
    with pytest.raises(
        TypeError, match=r"Compose is from torchvision\.transforms.*torchvision\.transforms\.v2"
    ):
        small.transform = transforms.Compose([transforms.Resize((256, 256)), transforms.ToTensor()])


@pytest.mark.parametrize("workers", [0, 1])
def test_data_loader_batches_samples(small, workers):
    batches = list(DataLoader(small, batch_size=4, num_workers=workers, collate_fn=collate))
    assert [type(batch) for batch in batches] == [Sample, Sample]
    shapes = [(4, 3, *SIZE), (4, 1, *SIZE), (4, 1, *SIZE), (4, 3, 256, 2)]
    assert [tuple(part.shape) for part in batches[0]] == shapes
    assert [part.dtype for part in batches[1]] == [torch.float32, torch.uint8, torch.uint8, torch.float32]
    assert torch.equal(batches[1].image[1], small[5].image)


def test_unlabelled_photographs_are_batched_too(official):
    data = DRIVEDataset(official / "test" / "images")
    assert not data.has_labels
    assert data[0].vessels is None and list(data.vessels) == [None] * len(data)
    data.transform = v2.RandomHorizontalFlip(p=1.0)
    assert data[0].vessels is None
    batch = next(iter(DataLoader(data, batch_size=3, collate_fn=collate)))
    assert isinstance(batch, Sample)
    assert batch.vessels is None
    assert batch.image.shape == (3, 3, *SIZE)


def test_what_does_not_fit_into_one_batch_is_told(small):
    with pytest.raises(DataError, match="only 1 of the 2 samples of this batch have vessels"):
        collate([small[0], small[1]._replace(vessels=None)])
    with pytest.raises(DataError, match=r"image of .*RandomPatch"):
        collate([small[0], v2.CenterCrop(20)(small[1])])


def test_importing_the_package_changes_nothing_of_pytorch():
    code = (
        "from torch.utils.data._utils.collate import default_collate_fn_map as known; before = dict(known);"
        "import drive_unet.data.dataset; assert known == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_datasets_can_be_sent_to_other_processes(small):
    copy = pickle.loads(pickle.dumps(small))
    assert copy.names == small.names
    assert torch.equal(copy[3].image, small[3].image)


def test_subset_shares_what_is_decoded(small):
    flip = v2.RandomHorizontalFlip(p=1.0)
    small.transform = flip
    part = small.subset(["24", "22"])
    assert part.names == ["24", "22"]
    assert part.transform is None
    assert small.subset([0, -1, np.int64(2)], transform=flip).names == ["21", "26", "23"]
    assert part._photographs[0] is small._photographs[3]
    for wrong in ("27", 6, -7):
        with pytest.raises(ValueError, match="there is no photograph"):
            small.subset([wrong])


def test_transforms_get_the_stored_pixels_and_must_not_write_into_them(small):
    got = []
    small.transform = lambda sample: got.append(sample) or sample
    item = small[1]
    assert got[0].image.dtype == torch.uint8
    np.testing.assert_array_equal(got[0].image.numpy().transpose(1, 2, 0), photograph(22))
    item.fov.zero_(), item.levels.zero_()
    assert small[1].fov.any() and small[1].levels.any()

    def wipe(sample):
        sample.fov[:, :3].zero_()
        return sample

    small.transform = wipe
    with pytest.raises(TypeError, match="wrote into the stored photograph 22.*inplace=False"):
        small[1]


def test_fingerprints_are_of_the_pixels(small, tmp_path):
    for number, name in ((23, "else"), (99, "new")):
        (tmp_path / "other").mkdir(exist_ok=True)
        Image.fromarray(photograph(number)).save(tmp_path / "other" / f"{name}.png")
    other = DRIVEDataset(tmp_path / "other")
    assert other.shared_with(small) == ["else"] and small.shared_with(other) == ["23"]
    assert other.marks["else"] == small.fingerprints[2] == small.subset(["23"]).fingerprints[0]
    assert small.identity != small.subset(range(5)).identity


def test_datasets_are_added(small):
    both = small + small.subset([1])
    assert both.names == [*small.names, small.names[1]] and both.transform is None
    assert both.fingerprints[-1] == small.fingerprints[1]


def test_a_subset_of_many_names_looks_each_up_once(monkeypatch):
    """Counted, not timed: comparing names with each other would take n * n / 2 of these."""

    class Name(str):
        compared = 0

        def __eq__(self, other):
            Name.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = [Name(f"photograph {number}") for number in range(2000)]
    decoded = Decoded(
        torch.zeros(3, 2, 2, dtype=torch.uint8), None, torch.ones(1, 2, 2, dtype=torch.uint8), None
    )
    data = DRIVEDataset.from_decoded(names, [decoded] * len(names))
    part = data.subset(Name(name) for name in reversed(names))
    assert part.names == names[::-1]
    assert Name.compared < 5 * len(names)


def test_fov_masks_of_drive_are_found_beside_the_images(tmp_path):
    folder = write_split(tmp_path / "training", "training", [21])
    notched = disc()
    notched[:20] = False
    grey(255)(notched).save(folder / "mask" / "21_training_mask.gif")
    data = DRIVEDataset(folder / "images", folder / "1st_manual")
    np.testing.assert_array_equal(data[0].fov[0].numpy(), notched)


def test_fov_is_found_where_there_is_no_mask(tmp_path):
    folder = write_split(tmp_path, "training", [21, 22], fov=False)
    data = DRIVEDataset(folder / "images", folder / "1st_manual")
    np.testing.assert_array_equal(data[1].fov[0].numpy(), detect_fov(photograph(22)))
    assert (data[1].fov[0].numpy() == disc()).mean() > 0.95


def test_a_label_may_be_all_background(tmp_path):
    folder = write_split(tmp_path, "training", [21, 22])
    grey(255)(np.zeros(SIZE, dtype=bool)).save(folder / "1st_manual" / "22_manual1.gif")
    data = DRIVEDataset(folder / "images", folder / "1st_manual")
    assert [int(sample.vessels.sum()) for sample in data] == [tree(21).sum(), 0]


def test_folders_of_one_s_own_are_paired_by_name(tmp_path):
    for name in ("left_eye", "right_eye"):
        for folder, end, picture in (("images", "", photograph(2)), ("labels", "_vessels", tree(2))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / folder / f"{name}{end}.png")
    data = DRIVEDataset(tmp_path / "images", tmp_path / "labels")
    assert data.names == ["left_eye", "right_eye"]
    np.testing.assert_array_equal(data[0].vessels[0].numpy(), tree(2))


@pytest.mark.parametrize("names", [("1", "left_eye"), ("1_h", "1_g")], ids=["one has none", "one number"])
def test_where_numbers_do_not_tell_photographs_apart_names_do(tmp_path, names):
    for name in names:
        for folder, end, picture in (("images", "", photograph(2)), ("labels", "_vessels", tree(2))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / folder / f"{name}{end}.png")
    assert DRIVEDataset(tmp_path / "images", tmp_path / "labels").names == sorted(names)


@pytest.mark.parametrize(
    ("photographs", "labels", "names"),
    [
        (["000001.png", "000002.png"], ["1_vessels.png", "2_vessels.png"], ["000001", "000002"]),
        (["21_training.tif", "22_training.tif"], ["21_manual1.gif", "22_manual1.gif"], ["21", "22"]),
        (["12_left.jpg", "12_right.jpg"], ["12_left_mask.png", "12_right_mask.png"], ["12_left", "12_right"]),
        (["12_OD.jpg", "12_OS.jpg"], ["12-right.png", "12-left.png"], ["12_OS", "12_OD"]),
        (["12_OD.jpg", "13_OD.jpg"], ["12_R_vessels.png", "13_R_vessels.png"], ["12_OD", "13_OD"]),
        (["3.png", "20.png"], ["3.png", "20.png"], ["3", "20"]),
        (["12_links.jpg", "12_rechts.jpg"], ["12-OS.png", "12-OD.png"], ["12_links", "12_rechts"]),
        (["12_sin.jpg", "13_dex.jpg"], ["12_l_mask.png", "13_r_mask.png"], ["12_sin", "13_dex"]),
        (["12_a.jpg", "12_b.jpg"], ["12_a_manual1.png", "12_b.png"], ["12_a", "12_b"]),
        (["01_dr.jpg", "02_h.jpg"], ["1_manual1.png", "2_h_mask.png"], ["01_dr", "02_h"]),
        (["1_image.jpg", "2_photo.jpg"], ["1_anna.png", "2_anna.png"], ["1", "2"]),
        (["21_Training.tif", "22_TRAINING.tif"], ["21_training_mask.gif", "22_Manual1.gif"], ["21", "22"]),
        (["1_G.png", "1_H.png"], ["1_g.png", "1_h_MASK.png"], ["1_G", "1_H"]),
        (["Anna.png", "bert.png"], ["anna.png", "BERT_vessels.png"], ["Anna", "bert"]),
        (
            ["B\u00e4r.png", "Zoe\u0308.png"],
            ["ba\u0308r.png", "Zo\u00eb_vessels.png"],
            ["B\u00e4r", "Zoe\u0308"],
        ),
        (
            ["12_\u00f6.png", "13_\u00e4.png"],
            ["12_o\u0308.png", "13_A\u0308.png"],
            ["12_\u00f6", "13_\u00e4"],
        ),
        (["A.png", "a.png", "B.png"], ["A.png", "a_mask.png", "b.png"], ["A", "B", "a"]),
    ],
)
def test_numbers_keep_their_form_and_eyes_their_side(tmp_path, photographs, labels, names):
    for folder, files in (("images", photographs), ("labels", labels)):
        (tmp_path / folder).mkdir()
        for file in files:
            (tmp_path / folder / file).write_bytes(b"a picture")
    pairs = pair_folders(tmp_path / "images", tmp_path / "labels")
    assert [pair.name for pair in pairs] == names
    by_file = dict(zip(photographs, labels, strict=True))
    assert all(pair.vessels.name == by_file[pair.image.name] for pair in pairs)
    key = keys_of(tmp_path / "images", [tmp_path / "labels"])  # the doctor's
    assert all(key(pair.vessels) == key(pair.image) for pair in pairs)


@pytest.mark.parametrize(
    ("names", "file", "match_"),
    [
        (["21", "22"], "21_test_vessels.png", "21"),
        (["21_training"], "21_manual1.gif", "21_training"),
        (["12_left"], "12_right_vessels.png", None),
        (["12_left"], "12_OS.png", "12_left"),
        (["01_h"], "01_dr_vessels.png", None),
        (["01_h"], "01_h_vessels.png", "01_h"),
        (["01_h"], "1_vessels.png", "01_h"),
        (["01_h", "01_g"], "1_vessels.png", None),
        (["12_a"], "12_b.png", None),
        (["12_links"], "12_dex_mask.png", None),
        (["Anna"], "anna_Vessels.png", "Anna"),
        (["Zoe\u0308"], "Zo\u00eb_vessels.png", "Zoe\u0308"),
        (["A", "a"], "A_mask.png", "A"),
        (["ANNA", "Anna"], "anna.png", None),
    ],
)
def test_files_are_matched_with_names(names, file, match_):
    assert match(names, [Path(file)]) == ({} if match_ is None else {match_: Path(file)})


def test_predictions_are_matched_in_any_letters_too(tmp_path):
    files = {f"images/{name}.png": photograph(21) for name in ("Bob", "Zo\u00eb")}
    write_files(tmp_path, files | {f"out/pred_{name}.png": tree(21) for name in ("BOB", "Zoe\u0308")})
    found = finished_predictions(tmp_path / "out", DRIVEDataset(tmp_path / "images"))
    assert {name: file.name for name, file in found.segmentations.items()} == {
        "Bob": "pred_BOB.png",
        "Zo\u00eb": "pred_Zoe\u0308.png",
    }


def test_a_file_of_the_very_name_goes_before_one_in_other_letters():
    assert match(["A"], [Path("a.png"), Path("A_mask.png")]) == {"A": Path("A_mask.png")}


class Counted(str):
    """A name that counts how often it is compared."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)


def test_matching_does_not_compare_every_name_with_every_file(monkeypatch):
    monkeypatch.setattr(Counted, "comparisons", 0)
    names = [Counted(f"eye {number}") for number in range(300)]
    assert len(match(names, [Path(f"eye {number}_vessels.png") for number in range(300)])) == 300
    assert Counted.comparisons < 10 * len(names)


# ----------------------------------------------------------------------------------------------- folds, DRIVE

DRIVE_NAMES = [f"{number:02d}" for number in TRAINING]


def test_first_fold_of_drive():
    train, held_out = folds(DRIVE_NAMES)[0]
    assert held_out == ["21", "26", "31", "36"]
    assert len(train) == 16


@given(st.data())
def test_folds_are_disjoint_and_cover(data):
    names = data.draw(
        st.lists(st.text("0123456789ab", min_size=1, max_size=3), min_size=2, max_size=40, unique=True)
    )
    k = data.draw(st.integers(2, len(names)))
    seed = data.draw(st.integers(0, 5))
    parts = folds(names, k, seed)
    assert len(parts) == k
    assert sorted(name for _, held_out in parts for name in held_out) == sorted(names)
    for train, held_out in parts:
        assert not set(train) & set(held_out)
        assert sorted(train + held_out) == sorted(names)
        assert len(names) // k <= len(held_out) <= -(-len(names) // k)
    assert parts == folds(reversed(names), k, seed)


def test_folds_follow_the_seed():
    assert folds(DRIVE_NAMES, seed=1) == folds(DRIVE_NAMES, seed=1)
    assert folds(DRIVE_NAMES, seed=1) != folds(DRIVE_NAMES, seed=2)
    assert folds(DRIVE_NAMES, seed=1)[0] != folds(DRIVE_NAMES)[0]


@pytest.mark.parametrize(("k", "names"), [(1, "ab"), (3, "ab"), (2, "a"), (2, ""), (2, "aab")])
def test_folds_that_cannot_be(k, names):
    with pytest.raises(ValueError, match="choose k from|two or more|name each photograph once"):
        folds(names, k)


def test_two_eyes_of_one_person_make_no_folds():
    with pytest.raises(ValueError, match="2 photographs of 1 persons: add photographs of others"):
        folds(["12_left", "12_right"], 2)


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("form", ["Image_{:02d}L Image_{:02d}R", "{}_left {}_right", "{}-OD {}-OS"])
def test_the_two_eyes_of_a_person_stay_together(form, seed):
    persons = [tuple(form.format(number, number).split()) for number in range(1, 8)]
    splits = folds([eye for eyes in persons for eye in eyes], k=3, seed=seed)
    for eyes in persons:
        assert [len(set(eyes) & set(held_out)) for _, held_out in splits].count(2) == 1
    with pytest.raises(ValueError, match=r"k=3 folds cannot be made of 4 photographs of 2 persons: choose k"):
        folds([eye for eyes in persons[:2] for eye in eyes], k=3)
    with pytest.raises(ValueError, match="k=5 folds cannot be made of 4 photographs: choose k from 2 to 4"):
        folds(["21", "22", "23", "24"], k=5)
    with pytest.raises(ValueError, match=r"of 2 photographs of 1 persons: add photographs of others"):
        folds(persons[0], k=2)


def test_names_that_tell_no_side_are_split_as_ever():
    names = ["01_h", "01_dr", "02_h", "02_dr", "left_eye", "right_eye"]
    assert folds(names, k=6, seed=0)[0][1] == ["01_dr"]


def test_load_without_test_labels(official, capsys):
    drive = load_drive(official, transform=v2.RandomHorizontalFlip(p=1.0))
    assert drive.source == "DRIVE"
    assert drive.validation.names == ["21", "26", "31", "36"]
    assert drive.held_out.has_labels
    assert len(drive.test) == 20
    assert not drive.test.has_labels
    used = [set(part.names) for part in (drive.training, drive.validation, drive.held_out)]
    assert sum(map(len, used)) == len(set.union(*used)) == 20  # disjoint, and nothing is wasted
    assert drive.training.transform is not None
    assert drive.validation.transform is drive.test.transform is drive.held_out.transform is None
    text = drive.describe()
    assert "20 test photographs have no vessel labels" in text
    assert all(name in text for name in drive.held_out.names)
    assert "\n" not in text
    assert capsys.readouterr().out == ""


def test_load_with_test_labels(tmp_path):
    drive = load_drive(write_drive(tmp_path, test_labels=True), fold=1)
    assert drive.held_out.names == drive.test.names
    assert drive.validation.names == ["22", "27", "32", "37"]
    assert len(drive.training) == 16
    np.testing.assert_array_equal(drive.test.second_observer[0], tree(2))
    np.testing.assert_array_equal(drive.test[0].vessels[0].numpy(), tree(1))
    assert "20 test photographs" in drive.describe()
    assert "no vessel labels" not in drive.describe()


def test_order_takes_each_photograph_once_and_again(official):
    data = load_drive(official).training.subset(range(7))
    order = data.order(30, seed=3)
    assert order.dtype == torch.int64 and order.shape == (30,)
    rounds = [order[start : start + 7].tolist() for start in range(0, 28, 7)]
    assert all(sorted(each) == list(range(7)) for each in rounds)
    assert len({tuple(each) for each in rounds}) == 4
    assert torch.equal(data.order(17, seed=3), order[:17])
    assert not torch.equal(data.order(30, seed=4), order)


def test_painted_eyes_are_those_of_their_seeds_sizes_and_strengths():
    size, mix = (146, 141), Ingredients(lesions=0, noise=0)
    data, eye = painted_dataset([4, 2], size=size, mix=mix), paint(2, size, mix)
    assert data.names == ["painted-4", "painted-2"]
    np.testing.assert_array_equal((data[1].image.numpy() * 255).round().transpose(1, 2, 0), eye.image)
    np.testing.assert_array_equal(data.vessels[1], eye.vessels)
    np.testing.assert_array_equal(data.fovs[1], eye.fov)
    np.testing.assert_array_equal(data.second_observer[1], eye.second_observer)
    assert data.fingerprints[:1] != painted_dataset([4], size=size).fingerprints


def test_load_training_alone(tmp_path):
    write_split(tmp_path / "training", "training", TRAINING)
    drive = load_drive(tmp_path)
    assert len(drive.test) == 0
    assert drive.held_out.has_labels
    assert "no test photographs" in drive.describe()


@pytest.mark.parametrize("fold", range(5))
def test_every_fold_is_disjoint(official, fold):
    drive = load_drive(official, fold=fold)
    used = [set(part.names) for part in (drive.training, drive.validation, drive.held_out)]
    assert sum(map(len, used)) == len(set.union(*used)) == 20


def test_load_a_fold_that_does_not_exist(official):
    with pytest.raises(ValueError, match="there is no fold 5: with k=5 folds, choose 0 to 4"):
        load_drive(official, fold=5)


def test_load_test_alone(tmp_path):
    write_split(tmp_path / "test", "test", [1, 2], vessels=False)
    with pytest.raises(DataError, match=r"test photographs only.*put training\.zip beside"):
        load_drive(tmp_path)


def test_litter_is_neither_a_folder_nor_an_image(tmp_path):
    for name in ("images", "masks", "__MACOSX", "folder.png"):
        (tmp_path / name).mkdir()
    for name in ("2.png", "1.tif", "._1.tif", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in folders(tmp_path)] == ["folder.png", "images", "masks"]
    assert [path.name for path in images(tmp_path)] == ["1.tif", "2.png"]
