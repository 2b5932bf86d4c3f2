import gzip
import hashlib
import shutil

import numpy as np
import pytest
import torch

from zonb import data


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """A copy of the embedded files that a test may damage."""
    folder = tmp_path / "embedded"
    shutil.copytree(data.EMBEDDED, folder)
    monkeypatch.setattr(data, "EMBEDDED", folder)
    return folder


@pytest.mark.parametrize("split, size", [("train", 3000), ("test", 1000)])
def test_embedded_mnist_has_the_documented_form(split, size):
    digits = data.load("mnist", split=split)
    assert digits.images.shape == (size, 28, 28) and digits.images.dtype == np.uint8
    assert digits.labels.shape == (size,) and digits.labels.dtype == np.int64
    assert digits.classes == tuple("0123456789") and set(digits.labels.tolist()) == set(range(10))
    assert len(digits) == size and digits.images.max() == 255


def test_the_published_images_are_those_that_the_published_code_draws(monkeypatch, tmp_path):
    drawn = data.load("mnist", split="published")
    assert drawn.images.shape == (200, 28, 28) and drawn.labels.tolist() == [0] * 100 + [1] * 100
    stream = np.random.RandomState(0)
    stream.normal(size=(784, 24))
    picks = np.stack([stream.choice(size, 100) for size in (5923, 6742)])
    for pick, images in zip(picks, np.split(drawn.images, 2), strict=True):
        same = [[(a == b).all() for b in images] for a in images]
        assert (np.array(same) == (pick[:, None] == pick)).all()  # drawn with replacement, so some come twice
    monkeypatch.setenv("ZONB_DATA", str(tmp_path))
    assert (data.load("mnist", split="published", source="full").images == drawn.images).all()


def test_embedded_files_are_small_and_have_their_provenance_beside_them():
    assert sum(path.stat().st_size for path in data.EMBEDDED.glob("mnist-*.npz")) < 1_500_000
    text = (data.EMBEDDED / "README.md").read_text()
    assert sum(path.stat().st_size for path in data.EMBEDDED.glob("reviews-*.tsv")) < 1_300_000
    for path in (*data.EMBEDDED.glob("*.npz"), *data.EMBEDDED.glob("*.tsv")):
        assert path.name in text and path.name in data.checksums()
    assert "CC BY-SA" in text


def test_inputs_are_normalised_with_the_papers_constants():
    digits = data.load("mnist")
    x = data.mnist_inputs(digits.images, dtype=torch.float64)
    assert x.shape == (3000, 1, 28, 28) and x.dtype == torch.float64
    assert abs(x.mean()) < 0.02 and abs(x.std() - 1) < 0.02  # the constants are those of all 60,000 images
    assert x[0, 0, 0, 0].item() == pytest.approx(-0.1307 / 0.3081)


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "swapped"])
def test_a_damaged_file_is_an_error_and_never_a_picture(embedded, damage):
    path = embedded / "mnist-test.npz"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "altered":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "swapped":
        shutil.copy(embedded / "mnist-train.npz", path)
    else:
        path.unlink()
    with pytest.raises(data.DataError, match=r"mnist-test\.npz is (damaged|missing).*reinstall"):
        data.load("mnist", split="test")
    assert len(data.load("mnist")) == 3000


@pytest.mark.parametrize("given", [{"name": "emnist"}, {"split": "valid"}, {"source": "web"}])
def test_unknown_choices_are_refused_with_the_known_ones(given):
    with pytest.raises(ValueError, match=r"is not available.*; choose one of '"):
        data.load(**{"name": "mnist", **given})


def test_first_digits_are_the_first_of_each_label():
    test = data.load("mnist", split="test")
    inputs = data.first_digits()
    for digit in range(10):
        index = next(k for k, label in enumerate(test.labels) if label == digit)
        assert torch.equal(inputs[digit], data.mnist_inputs(test.images[index : index + 1])[0])


def test_a_label_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="label 11 is not among the labels"):
        data.load("mnist").first(11)


@pytest.fixture
def small_full(tmp_path, monkeypatch):
    """A folder like a full MNIST download, cut to 5 images, with the checksums of those files."""
    digits = data.load("mnist", split="test")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.array([2051, 5, 28, 28], ">i4").tobytes() + digits.images[:5].tobytes()
    labels = np.array([2049, 5], ">i4").tobytes() + digits.labels[:5].astype(np.uint8).tobytes()
    files = []
    for name, content in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
        (raw / name).write_bytes(content)
        files.append((name, hashlib.sha256(content).hexdigest()))
    monkeypatch.setitem(data._MNIST_RAW, "test", tuple(files))
    monkeypatch.setenv("ZONB_DATA", str(tmp_path))
    return raw


def test_full_mnist_is_read_from_the_folder(small_full):
    digits, sample = data.load("mnist", split="test", source="full"), data.load("mnist", split="test")
    np.testing.assert_array_equal(digits.images, sample.images[:5])
    np.testing.assert_array_equal(digits.labels, sample.labels[:5])
    assert digits.images.dtype == np.uint8 and digits.labels.dtype == np.int64 and digits.classes == sample.classes


def test_a_damaged_full_file_is_an_error(small_full):
    path = small_full / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(data.DataError, match=r"t10k-images-idx3-ubyte is damaged.*downloaded again"):
        data.load("mnist", split="test", source="full")


def test_a_download_is_tried_and_its_failure_names_both_ways(tmp_path, monkeypatch):
    import torchvision.datasets

    def offline(root, download):
        assert download
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets, "MNIST", offline)
    monkeypatch.setenv("ZONB_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match=r"could not download it \(no network\)\. Put MNIST/raw .*or connect"):
        data.load("mnist", source="full")
    monkeypatch.delenv("ZONB_DATA")
    with pytest.raises(data.DataError, match="set ZONB_DATA"):
        data.load("mnist", source="full")


def test_a_download_lands_where_it_is_read(small_full, monkeypatch):
    import torchvision.datasets

    kept = {path.name: path.read_bytes() for path in small_full.iterdir()}
    for path in small_full.iterdir():
        path.unlink()

    def download(root, download):
        for name, content in kept.items():
            (root / "MNIST" / "raw" / name).write_bytes(gzip.decompress(gzip.compress(content)))

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    assert len(data.load("mnist", split="test", source="full")) == 5


def test_embedded_colour_images_have_the_documented_form():
    for name, size, labels in (("cifar10", 32, 10), ("tiny_imagenet", 64, 2)):
        sample = data.load(name)
        assert sample.images.shape == (20, size, size, 3) and sample.images.dtype == np.uint8
        assert sample.labels.dtype == np.int64 and len(sample.classes) == labels
    animals = ("bird", "cat", "deer", "dog", "frog", "horse")
    cifar = data.load("cifar10")
    assert sum(cifar.classes[label] in animals for label in cifar.labels) == 10
    with pytest.raises(ValueError, match=r"split='test' is not available for cifar10; choose one of 'train'"):
        data.load("cifar10", split="test")


def test_full_colour_sets_are_read_from_the_folder_and_refused_in_another_form(tmp_path, monkeypatch):
    monkeypatch.setenv("ZONB_DATA", str(tmp_path))
    sample = data.load("cifar10")
    arrays = {"images": sample.images, "labels": sample.labels, "classes": np.array(sample.classes)}
    np.savez(tmp_path / "tiny_imagenet.npz", **arrays)
    full = data.load("tiny_imagenet", source="full")
    np.testing.assert_array_equal(full.images, sample.images)
    digest = hashlib.sha256((tmp_path / "tiny_imagenet.npz").read_bytes()).hexdigest()
    assert data.files_read["tiny_imagenet.npz"] == digest  # for the record of a run
    for wrong in ({"images": sample.images[..., 0]}, {"labels": sample.labels + 9}, {"images": sample.images / 255.0}):
        np.savez(tmp_path / "tiny_imagenet.npz", **{**arrays, **wrong})
        with pytest.raises(data.DataError, match=r"arrays of another form: it must be tiny_imagenet\.npz"):
            data.load("tiny_imagenet", source="full")
    (tmp_path / "tiny_imagenet.npz").write_bytes(b"no archive")
    with pytest.raises(data.DataError, match="cannot be read"):
        data.load("tiny_imagenet", source="full")
    (tmp_path / "tiny_imagenet.npz").unlink()
    with pytest.raises(data.DataError, match="from the official archive"):
        data.load("tiny_imagenet", source="full")
    monkeypatch.delenv("ZONB_DATA")
    with pytest.raises(data.DataError, match=r"set ZONB_DATA to one that holds cifar10\.npz"):
        data.load("cifar10", source="full")


def test_cifar10_is_downloaded_if_absent_and_the_failure_names_both_ways(tmp_path, monkeypatch):
    import torchvision.datasets

    sample = data.load("cifar10")

    class Downloaded:
        def __init__(self, root, download):
            if offline:
                raise RuntimeError("no network")
            self.data, self.targets, self.classes = sample.images, sample.labels.tolist(), list(sample.classes)

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Downloaded)
    monkeypatch.setenv("ZONB_DATA", str(tmp_path))
    offline = False
    np.testing.assert_array_equal(data.load("cifar10", source="full").labels, sample.labels)
    offline = True
    with pytest.raises(data.DataError, match=r"could not download it \(no network\)\. Put cifar10\.npz"):
        data.load("cifar10", source="full")


def test_binary_takes_the_first_of_each_group_in_order():
    digits = data.load("mnist")
    images, y = data.binary(digits, ["3"], ["5", "6"], per_class=7)
    assert y.tolist() == [0.0] * 7 + [1.0] * 7
    zero = [k for k, label in enumerate(digits.labels) if label == 3][:7]
    one = [k for k, label in enumerate(digits.labels) if label in (5, 6)][:7]
    np.testing.assert_array_equal(images, digits.images[zero + one])
    with pytest.raises(ValueError, match="no class 'bird'"):
        data.binary(digits, ["bird"], ["5"], per_class=7)
    with pytest.raises(ValueError, match=r"per_class=11 must be in 1\.\.10"):
        data.binary(data.load("cifar10"), ["cat", "dog", "frog", "horse"], ["ship"], per_class=11)


def test_grey_8x8_keeps_a_flat_image_and_its_luminance():
    flat = np.zeros((1, 32, 32, 3), np.uint8)
    flat[..., 0], flat[..., 1] = 100, 200
    grey = data.grey_8x8(flat, dtype=torch.float64)
    assert grey.shape == (1, 64) and grey.dtype == torch.float64
    luminance = (0.2989 * 100 + 0.587 * 200) / 255
    torch.testing.assert_close(grey, torch.full((1, 64), luminance, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    step = np.zeros((1, 32, 32), np.uint8)
    step[:, :, 16:] = 255
    rows = data.grey_8x8(step).view(8, 8)
    assert (rows.diff(dim=1) >= 0).all() and rows[0, 0] < 1e-6 < 1 - 1e-6 < rows[0, -1]  # left to right


def shrunk(grey, size=8):
    """Bilinear at the centres of the new pixels, as OpenCV documents INTER_LINEAR: the two nearest of each axis."""
    at = (np.arange(size) + 0.5) * len(grey) / size - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(len(grey)) - at[:, None]))
    return weights @ grey @ weights.T


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 32, 32, 3), (2, 64, 64, 3)])
def test_grey_8x8_equals_the_twin(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    grey = images / 255 if len(shape) == 3 else images / 255 @ [0.2989, 0.587, 0.114]
    expected = torch.from_numpy(np.stack([shrunk(one).ravel() for one in grey]))
    torch.testing.assert_close(data.grey_8x8(images, dtype=torch.float64), expected, rtol=1e-5, atol=1e-6)


def test_embedded_reviews_have_the_documented_form_and_two_separate_splits():
    train, test = data.reviews(), data.reviews(split="test")
    assert (len(train), len(test)) == (9059, 1011)
    assert len(set(train.texts) | set(test.texts)) == len(train) + len(test)
    for part in (train, test):
        assert part.labels.dtype == np.int64 and len(part.texts) == len(part)
        assert abs(part.labels.mean() - 0.5) < 0.02 and 30 < part.labels[:100].sum() < 70  # no order
        assert all(text == " ".join(text.lower().split()) for text in part.texts)


def test_the_tracked_reviews_are_the_papers_and_are_held_out():
    tracked = data.tracked_reviews()
    assert tracked.labels.tolist() == [0, 1, 0, 1, 0] and tracked.labels.dtype == np.int64
    for text, phrase in zip(tracked.texts, data.TRACKED, strict=True):
        assert phrase in text and text in data.reviews(split="test").texts
        assert not any(phrase in other for other in data.reviews().texts)


def test_a_damaged_text_is_an_error(embedded):
    path = embedded / "reviews-test.tsv"
    path.write_bytes(path.read_bytes().replace(b"\t1\n", b"\t0\n", 1))
    with pytest.raises(data.DataError, match=r"reviews-test\.tsv is damaged.*reinstall"):
        data.reviews(split="test")
    assert data.checksums()["reviews-test.tsv"] not in (data.EMBEDDED / "SHA256SUMS").read_text()  # so keys change


def test_full_reviews_are_read_from_the_folder_and_refused_in_another_form(tmp_path, monkeypatch):
    monkeypatch.setenv("ZONB_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match=r"sst2/dev\.tsv is not in ZONB_DATA: .*sentence TAB label"):
        data.reviews(split="test", source="full")
    (tmp_path / "sst2").mkdir()
    path = tmp_path / "sst2" / "dev.tsv"
    tracked = data.tracked_reviews()
    lines = "".join(f"{text} \t{label}\n" for text, label in zip(tracked.texts, tracked.labels, strict=True))
    for head in ("", "sentence\tlabel\n"):
        path.write_text(head + lines, encoding="utf-8")
        full = data.reviews(split="test", source="full")
        assert full.texts == tracked.texts and full.labels.tolist() == tracked.labels.tolist()
    assert data.tracked_reviews(source="full").texts == tracked.texts
    assert data.files_read["sst2/dev.tsv"] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(lines + lines, encoding="utf-8")
    with pytest.raises(data.DataError, match="2 reviews of the full test set hold 'remains depressingly prosaic"):
        data.tracked_reviews(source="full")
    for wrong in ("no label\n", "a label of three kinds\t2\n", "", "sentence\tlabel\n"):
        path.write_text(wrong)
        with pytest.raises(data.DataError, match=r"sst2/dev\.tsv cannot be read .*: it must be .*label 0 or 1"):
            data.reviews(split="test", source="full")
    monkeypatch.delenv("ZONB_DATA")
    with pytest.raises(data.DataError, match=r"set ZONB_DATA to one that holds sst2/train\.tsv"):
        data.reviews(source="full")


@pytest.mark.parametrize("given", [{"split": "valid"}, {"source": "web"}])
def test_unknown_choices_of_reviews_are_refused_with_the_known_ones(given):
    with pytest.raises(ValueError, match=r"is not available; choose one of '"):
        data.reviews(**given)
