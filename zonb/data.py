"""Real data sets: a small sample embedded in the package, the whole on request.

Every set of images has one form: ``images`` (uint8, N x H x W, with a last axis of three colours where there are
colours), ``labels`` (int64, N) and ``classes`` (one name a label); reviews are ``texts`` and ``labels``. Embedded files
are checked against a SHA-256 before they are read, and all are read without pickle, so a damaged file is an error and
never a wrong picture or text.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

if TYPE_CHECKING:
    import torch

__all__ = ["EMBEDDED", "TRACKED", "DataError", "Dataset", "Reviews", "binary", "checksums", "files_read"]
__all__ += [
    "first_digits",
    "folder",
    "grey_8x8",
    "load",
    "mnist_inputs",
    "reviews",
    "sha256",
    "tracked_reviews",
    "verify",
]

EMBEDDED = Path(__file__).parent / "_data"
_SOURCES = ("embedded", "full")
_SPLITS = ("train", "test")

# Mean and standard deviation of MNIST's training pixels (as fractions of 255), as paper A uses them.
_MNIST_MEAN, _MNIST_STD = 0.1307, 0.3081

# The five movie reviews that paper A tracks, in its order: a phrase that no other review has. (The paper misprints the
# fourth: "jobs" for "jabs".)
TRACKED = (
    "remains depressingly prosaic and dull",
    "sprawling swashbuckler that delivers its diversions",
    "without all oedekerk 's impish augmentation",
    "the jabs it employs are short",
    "so unremittingly awful that labeling it a dog",
)

# The four original MNIST files after gunzip: what torchvision keeps in MNIST/raw.
_MNIST_RAW = {
    "train": (
        ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    ),
    "test": (
        ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
}
# Files read by source="full" in this process, for the record of a run: name and SHA-256.
files_read: dict[str, str] = {}
_IMAGES = {"mnist": (*_SPLITS, "published"), "cifar10": ("train",), "tiny_imagenet": ("train",)}


class DataError(RuntimeError):
    """A data file is missing or is not the file it should be."""


@dataclass(frozen=True)
class Dataset:
    """Images with their labels.

    Attributes:
        images: uint8, (N, H, W) or (N, H, W, 3).
        labels: int64, (N,), values in ``range(len(classes))``.
        classes: the name of each label.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def first(self, label: int) -> int:
        """Index of the first image of class ``label``.

        >>> digits = load("mnist", split="test")
        >>> int(digits.labels[digits.first(4)])
        4
        """
        (hits,) = np.nonzero(self.labels == label)
        if len(hits) == 0:
            raise ValueError(f"label {label} is not among the labels {sorted(set(self.labels.tolist()))}")
        return int(hits[0])


def load(name: str, *, split: str = "train", source: str = "embedded") -> Dataset:
    """Load a data set.

    Args:
        name: ``"mnist"``, ``"cifar10"`` or ``"tiny_imagenet"``.
        split: ``"train"`` or, for MNIST, ``"test"``, or ``"published"``: the 100 zeros and 100 ones of the training set
            that paper B's linear run drew, in its order, whatever ``source`` is.
        source: ``"embedded"`` reads the sample that ships with the package: the first 3,000 training and 1,000 test
            images of MNIST; 20 images of CIFAR-10; 20 of ImageNet in the size of Tiny ImageNet, labelled ``animal``
            and ``other``. ``"full"`` reads the folder ``$ZONB_DATA``: MNIST and CIFAR-10 in torchvision's layout,
            downloaded there through torchvision if absent; or ``cifar10.npz`` and ``tiny_imagenet.npz`` with the
            three arrays of a `Dataset`.

    Raises:
        ValueError: unknown ``name``, ``split`` or ``source``.
        DataError: the file is missing, truncated or altered; the message says what to do.

    Source: LeCun, Cortes and Burges, MNIST; Krizhevsky, CIFAR-10; Russakovsky et al., ImageNet (provenance and licence
    in ``zonb/_data/README.md``).

    >>> digits = load("mnist", split="test")
    >>> digits.images.shape, digits.images.dtype, digits.classes[:3]
    ((1000, 28, 28), dtype('uint8'), ('0', '1', '2'))
    """
    _one_of("name", name, _IMAGES)
    _one_of("source", source, _SOURCES)
    if split not in _IMAGES[name]:
        known = ", ".join(map(repr, _IMAGES[name]))
        raise ValueError(f"split={split!r} is not available for {name}; choose one of {known}")
    if source == "full" and split != "published":
        return _full_mnist(split) if name == "mnist" else _full_colour(name)
    return _read(_embedded(f"{name}-{split}.npz"))


def checksums() -> dict[str, str]:
    """SHA-256 of each embedded file as it is on disk: the data's part of a run's key.

    >>> sorted(checksums())
    ['cifar10-train.npz', 'mnist-published.npz', 'mnist-test.npz', 'mnist-train.npz', 'reviews-test.tsv',
     'reviews-train.tsv', 'tiny_imagenet-train.npz']
    """
    return {path.name: sha256(path) for path in sorted(EMBEDDED.iterdir()) if path.suffix in (".npz", ".tsv")}


def folder(wanted: str) -> Path:
    """The folder of large files, ``$ZONB_DATA``.

    Args:
        wanted: what it is asked for, for the message.

    Raises:
        DataError: the variable is not set.
    """
    if not os.environ.get("ZONB_DATA"):
        raise DataError(f"large files need a folder: set ZONB_DATA to one that holds {wanted}")
    return Path(os.environ["ZONB_DATA"])


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, expected: str | None, fix: str) -> None:
    """Refuse a file that is missing, or another than the one with the SHA-256 ``expected``.

    Args:
        path: the file.
        expected: its SHA-256 in hexadecimal.
        fix: what to do, for the message.

    Raises:
        DataError: the file is missing or has another checksum.
    """
    if not path.is_file():
        raise DataError(f"{path.name} is missing: {fix}")
    if (found := sha256(path)) != expected:
        raise DataError(f"{path.name} is damaged: its SHA-256 begins {found[:12]}, not {str(expected)[:12]}: {fix}")


@dataclass(frozen=True)
class Reviews:
    """Sentences of movie reviews with their sentiment.

    Attributes:
        texts: lower case, words and punctuation apart.
        labels: int64, (N,), 1 for a positive review and 0 for a negative one.
    """

    texts: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        """The number of reviews."""
        return len(self.labels)


def reviews(*, split: str = "train", source: str = "embedded") -> Reviews:
    """Load movie reviews for sentiment classification.

    Args:
        split: ``"train"`` or ``"test"``.
        source: ``"embedded"`` reads the snippets that ship with the package, about 9,000 to train on and 1,000 to test
            with, labelled by the sign of their mean rating by 20 readers. ``"full"`` reads SST-2 from the folder
            ``$ZONB_DATA``: ``sst2/train.tsv``, and for the test set ``sst2/dev.tsv``, the one whose labels are public.

    Raises:
        ValueError: unknown ``split`` or ``source``.
        DataError: the file is missing, altered or of another form; the message says what to do.

    Source: Pang and Lee's Rotten Tomatoes snippets, from which the Stanford Sentiment Treebank was built, with the
    ratings of Hutto and Gilbert (provenance and licence in ``zonb/_data/README.md``); Socher et al. and GLUE, SST-2.

    >>> test = reviews(split="test")
    >>> len(test), test.texts[4], int(test.labels[4])
    (1011, "it 's a satisfying summer blockbuster and worth a look .", 1)
    """
    _one_of("split", split, _SPLITS)
    _one_of("source", source, _SOURCES)
    if source == "full":
        return _full_reviews(split)
    return _read_reviews(_embedded(f"reviews-{split}.tsv"))


def tracked_reviews(*, source: str = "embedded") -> Reviews:
    """The five reviews of the test set that paper A tracks, in its order, as they stand in ``source``.

    Args:
        source: as in `reviews`.

    Raises:
        DataError: the set does not hold each of them exactly once.

    Source: paper A, Section E.2. Deviation: the paper prints "jobs" for "jabs" in the fourth.

    >>> [int(label) for label in tracked_reviews().labels]
    [0, 1, 0, 1, 0]
    """
    test = reviews(split="test", source=source)
    hits = [[k for k, text in enumerate(test.texts) if phrase in text] for phrase in TRACKED]
    for phrase, found in zip(TRACKED, hits, strict=True):
        if len(found) != 1:
            raise DataError(f"{len(found)} reviews of the {source} test set hold {phrase!r}, and there must be one")
    chosen = [found[0] for found in hits]
    return Reviews(tuple(test.texts[k] for k in chosen), test.labels[chosen])


def mnist_inputs(images: np.ndarray, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    r"""Network inputs from MNIST images: :math:`(p/255 - 0.1307)/0.3081`.

    Args:
        images: uint8, (N, 28, 28).
        dtype: floating type of the result; float32 if not given.

    Returns:
        (N, 1, 28, 28).

    >>> tuple(mnist_inputs(load("mnist", split="test").images[:2]).shape)
    (2, 1, 28, 28)
    """
    import torch

    pixels = torch.from_numpy(images).to(dtype or torch.float32)
    return ((pixels / 255 - _MNIST_MEAN) / _MNIST_STD).unsqueeze(1)


def first_digits(*, source: str = "embedded") -> torch.Tensor:
    """The first MNIST test image of every digit, as network inputs, so that nothing is picked by hand.

    Args:
        source: as in `load`.

    Returns:
        (10, 1, 28, 28), float32.

    >>> tuple(first_digits().shape)
    (10, 1, 28, 28)
    """
    test = load("mnist", split="test", source=source)
    return mnist_inputs(test.images[[test.first(digit) for digit in range(10)]])


def binary(
    dataset: Dataset, zero: Sequence[str], one: Sequence[str], *, per_class: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two groups of classes as a task with targets 0 and 1: the first ``per_class`` images of each group.

    Args:
        dataset: where to take the images from.
        zero, one: names of the classes with target 0 and with target 1.
        per_class: how many of each.

    Returns:
        The images, uint8, those with target 0 first, and the targets, float64, (2 per_class,).

    Raises:
        ValueError: a class that the set does not have, or too few images of a group.

    Source: paper B, Appendix C: targets 0 and 1, N = 200.

    >>> images, y = binary(load("mnist"), ["0"], ["1"], per_class=100)
    >>> images.shape, y.sum()
    ((200, 28, 28), np.float64(100.0))
    """
    chosen = []
    for group in (zero, one):
        if unknown := sorted(set(group) - set(dataset.classes)):
            raise ValueError(f"no class {', '.join(map(repr, unknown))}; the set has {', '.join(dataset.classes)}")
        (hits,) = np.nonzero(np.isin(dataset.labels, [dataset.classes.index(name) for name in group]))
        if not 1 <= per_class <= len(hits):
            raise ValueError(f"per_class={per_class} must be in 1..{len(hits)}, the images of {', '.join(group)}")
        chosen.append(hits[:per_class])
    return dataset.images[np.concatenate(chosen)], np.repeat([0.0, 1.0], per_class)


def grey_8x8(images: np.ndarray, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    r"""Images as 64 grey pixels in [0, 1]: luminance (ITU-R 601), then bilinear resizing to 8 x 8, not antialiased.

    New pixel i reads at :math:`(i+\frac12)H/8-\frac12`, between the two nearest pixels of each axis: what
    ``cv2.resize`` documents for its default, ``INTER_LINEAR``.

    Args:
        images: uint8, (N, H, W) or (N, H, W, 3).
        dtype: floating type of the result; float32 if not given.

    Returns:
        (N, 64), row by row.

    Source: paper B, Appendix C.3, and its published code, which calls ``cv2.resize``. Deviation: for colour images that
    code resizes and takes the luminance in whole grey levels; here nothing is rounded.

    >>> tuple(grey_8x8(load("cifar10").images).shape)
    (20, 64)
    """
    import torch
    from torchvision.transforms.v2 import functional

    pixels = torch.from_numpy(images)
    pixels = pixels.movedim(-1, 1) if pixels.ndim == 4 else pixels.unsqueeze(1)
    pixels = pixels.to(dtype or torch.float32) / 255
    grey = functional.rgb_to_grayscale(pixels) if pixels.shape[1] == 3 else pixels
    return functional.resize(grey, [8, 8], antialias=False).flatten(1)


def _one_of(what: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{what}={value!r} is not available; choose one of {', '.join(map(repr, allowed))}")


def _embedded(name: str) -> Path:
    sums = dict(line.split()[::-1] for line in (EMBEDDED / "SHA256SUMS").read_text().split("\n") if line)
    verify(EMBEDDED / name, sums.get(name), "restore it from the package (reinstall zonb, or git checkout)")
    return EMBEDDED / name


def _read(path: Path) -> Dataset:
    with np.load(path, allow_pickle=False) as arrays:
        return Dataset(arrays["images"], arrays["labels"], tuple(arrays["classes"].tolist()))


def _read_reviews(path: Path) -> Reviews:
    rows = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").split("\n") if line]
    rows = rows[1:] if rows[:1] == [["sentence", "label"]] else rows  # as in GLUE's own files
    texts, labels = zip(*((text.strip(), ("0", "1").index(label)) for text, label in rows), strict=True)
    return Reviews(texts, np.array(labels, dtype=np.int64))


def _full_reviews(split: str) -> Reviews:
    name = "sst2/train.tsv" if split == "train" else "sst2/dev.tsv"
    line = "a line 'sentence TAB label' for each sentence, label 0 or 1 (a head line may stand above)"
    return _given(name, f"{name} of SST-2 in GLUE with {line}", _read_reviews)


def _full_colour(name: str) -> Dataset:
    wanted = f"{name}.npz with arrays images (uint8, N x H x W x 3), labels (int64, N) and classes"
    if name == "cifar10" and not (folder(wanted) / "cifar10.npz").is_file():
        images = _downloaded("CIFAR10", wanted)
        return Dataset(images.data, np.array(images.targets, dtype=np.int64), tuple(images.classes))
    dataset = _given(f"{name}.npz", wanted, _read)
    shapes = dataset.images.ndim == 4 and dataset.images.shape[-1] == 3 and len(dataset.images) == len(dataset.labels)
    kinds = dataset.images.dtype == np.uint8 and dataset.labels.dtype == np.int64
    if not (shapes and kinds and set(dataset.labels.tolist()) <= set(range(len(dataset.classes)))):
        raise DataError(f"{name}.npz has arrays of another form: it must be {wanted}")
    return dataset


def _given(name: str, wanted: str, read: Callable[[Path], Any]) -> Any:
    """What ``read`` makes of a file that its user has put into the folder of large files."""
    path = folder(wanted) / name
    if not path.is_file():
        raise DataError(f"{name} is not in ZONB_DATA: put {wanted} there, made from the official archive")
    try:
        found = read(path)
    except Exception as error:
        raise DataError(f"{name} cannot be read ({error}): it must be {wanted}") from error
    files_read[name] = sha256(path)
    return found


def _full_mnist(split: str) -> Dataset:
    wanted = "MNIST/raw with the four original files"
    raw = folder(f"{wanted}, or to an empty one, and torchvision will download them there") / "MNIST" / "raw"
    files = _MNIST_RAW[split]
    if not all((raw / name).is_file() for name, _ in files):
        _downloaded("MNIST", wanted)
    for name, expected in files:  # torchvision looks at what it downloads, and not at what is there
        verify(raw / name, expected, f"delete it, and it is downloaded again, or put the original {name} there")
        files_read[name] = expected
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images, labels = (str(raw / name) for name, _ in files)
    return Dataset(read_image_file(images).numpy(), read_label_file(labels).numpy(), tuple("0123456789"))


def _downloaded(name: str, wanted: str) -> Any:
    """A training set of torchvision, downloaded if it is absent; a second process waits, and then finds it."""
    from torchvision import datasets

    place = folder(wanted)
    place.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place / ".zonb.lock"):
            return getattr(datasets, name)(place, download=True)  # checked by their MD5
    except Exception as error:
        raise DataError(
            f"{name} is not in ZONB_DATA, and torchvision could not download it ({error}). Put {wanted} there, or "
            "connect to the network and try again"
        ) from error
