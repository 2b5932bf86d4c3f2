"""Real data sets: a small sample embedded in the package, the whole on request.

Every set has one form: ``images`` (uint8, N x H x W), ``labels`` (int64, N) and ``classes``
(one name a label). Files are checked against a SHA-256 before they are read and are read
without pickle, so a damaged file is an error and never a wrong picture.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

if TYPE_CHECKING:
    import torch

EMBEDDED = Path(__file__).parent / "_data"
SOURCES = ("embedded", "full")
SPLITS = ("train", "test")

# Mean and standard deviation of MNIST's training pixels (as fractions of 255), as paper A uses them.
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081

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
_NAMES = ("mnist",)


class DataError(RuntimeError):
    """A data file is missing or is not the file it should be."""


@dataclass(frozen=True)
class Dataset:
    """Images with their labels.

    Attributes:
        images: uint8, (N, H, W).
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
        name: ``"mnist"``.
        split: ``"train"`` or ``"test"``.
        source: ``"embedded"`` reads the sample that ships with the package (MNIST: the first 3,000
            training and the first 1,000 test images); ``"full"`` reads the whole set from the folder
            ``$ZONB_DATA`` (torchvision's layout), downloading it there through torchvision if absent.

    Raises:
        ValueError: unknown ``name``, ``split`` or ``source``.
        DataError: the file is missing, truncated or altered; the message says what to do.

    Source: LeCun, Cortes and Burges, the MNIST database (provenance and licence in ``zonb/_data/README.md``).

    >>> digits = load("mnist", split="test")
    >>> digits.images.shape, digits.images.dtype, digits.classes[:3]
    ((1000, 28, 28), dtype('uint8'), ('0', '1', '2'))
    """
    for value, allowed, what in ((name, _NAMES, "name"), (split, SPLITS, "split"), (source, SOURCES, "source")):
        if value not in allowed:
            raise ValueError(f"{what}={value!r} is not available; choose one of {', '.join(map(repr, allowed))}")
    if source == "full":
        return _full_mnist(split)
    path = EMBEDDED / f"{name}-{split}.npz"
    _verify(path, _embedded_checksums().get(path.name), "restore it from the package (reinstall zonb, or git checkout)")
    with np.load(path, allow_pickle=False) as arrays:
        return Dataset(arrays["images"], arrays["labels"], tuple(arrays["classes"].tolist()))


def checksums() -> dict[str, str]:
    """SHA-256 of each embedded file as it is on disk: the data's part of a run's key.

    >>> sorted(checksums())
    ['mnist-test.npz', 'mnist-train.npz']
    """
    return {path.name: _sha256(path) for path in sorted(EMBEDDED.glob("*.npz"))}


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
    return ((pixels / 255 - MNIST_MEAN) / MNIST_STD).unsqueeze(1)


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


def _full_mnist(split: str) -> Dataset:
    folder = os.environ.get("ZONB_DATA")
    if not folder:
        raise DataError(
            'source="full" needs a folder: set ZONB_DATA to one that holds MNIST/raw with the four original files, '
            "or to an empty one, and torchvision will download them there"
        )
    raw = Path(folder) / "MNIST" / "raw"
    files = _MNIST_RAW[split]
    if not all((raw / name).is_file() for name, _ in files):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(folder) / ".zonb.lock"):  # a second process waits, and then finds the files
            if not all((raw / name).is_file() for name, _ in files):
                _download_mnist(Path(folder), [name for name, _ in files])
    for name, expected in files:
        _verify(raw / name, expected, f"delete it, and it is downloaded again, or put the original {name} there")
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images, labels = (str(raw / name) for name, _ in files)
    return Dataset(
        read_image_file(images).numpy(), read_label_file(labels).numpy(), tuple(str(digit) for digit in range(10))
    )


def _download_mnist(folder: Path, names: Sequence[str]) -> None:
    from torchvision.datasets import MNIST

    try:
        MNIST(folder, download=True)
    except Exception as error:
        raise DataError(
            f"MNIST is not in ZONB_DATA ({' and '.join(names)} wanted in its folder MNIST/raw), and torchvision could "
            f"not download it ({error}). Put the original files there, or connect to the network and try again"
        ) from error


def _embedded_checksums() -> dict[str, str]:
    lines = (EMBEDDED / "SHA256SUMS").read_text().split("\n")
    return {name: digest for digest, name in (line.split() for line in lines if line)}


def _verify(path: Path, expected: str | None, fix: str) -> None:
    if not path.is_file():
        raise DataError(f"{path.name} is missing: {fix}")
    if (found := _sha256(path)) != expected:
        raise DataError(
            f"{path.name} is damaged: its SHA-256 begins {found[:12]}, expected {str(expected)[:12]}: {fix}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
