"""The networks of the papers, and training that is remembered."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock
from safetensors.torch import load_model, save_model
from torch import nn
from tqdm import tqdm

from zonb import data, directions

__all__ = ["accuracy", "lenet", "mlp", "remembered", "trained_lenet"]

_Model = TypeVar("_Model", bound=nn.Module)
# What the weights follow from, besides the settings: a trained network is kept under a key of these files.
_SOURCES = (__file__, data.__file__, directions.__file__)


def lenet(*, seed: int, width: float = 1.0, extra_layers: int = 0) -> nn.Sequential:
    """Paper A's LeNet for 28 x 28 grey images and ten classes, freshly initialised: 29,624 parameters.

    Conv 1->6 (5x5, padding 2), tanh, average pool; Conv 6->16 (5x5), tanh, average pool; linear 400->60, tanh,
    60->42, tanh, 42->10. Weights follow torch's defaults, drawn from ``seed`` alone.

    Args:
        seed: seed of the weights.
        width: factor on the numbers of channels and of hidden units (rounded to nearest, at least one).
        extra_layers: further hidden layers, each as wide as the last one.

    Raises:
        ValueError: ``width`` is not positive or ``extra_layers`` negative.

    Source: paper A, Section E.1 (the parameter count; layer sizes from the authors' public code). Deviation: ``width``
    and ``extra_layers`` are ours, to grow d at the same ten outputs.

    >>> [sum(p.numel() for p in lenet(seed=0, width=w).parameters()) for w in (0.5, 1, 2)]
    [7587, 29624, 117078]
    """
    if not 0 < width < math.inf or extra_layers < 0:
        raise ValueError(f"width={width} must be positive and finite, and extra_layers={extra_layers} at least 0")
    a, b, h, last = (max(1, round(width * size)) for size in (6, 16, 60, 42))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, a, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(a, b, 5), nn.Tanh()]
        layers += [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(25 * b, h), nn.Tanh(), nn.Linear(h, last), nn.Tanh()]
        for _ in range(extra_layers):
            layers += [nn.Linear(last, last), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(last, 10))


def mlp(sizes: Sequence[int] = (64, 10, 5, 1), *, seed: int) -> nn.Sequential:
    """Paper B's ReLU network, freshly initialised: 711 parameters for 64-10-5-1, 51 for 2-5-5-1.

    Weights and biases follow torch's defaults, drawn from ``seed`` alone in the default dtype. In float32, with
    ``seed=0``, it is the network of the published code; another default dtype draws another network.

    Args:
        sizes: numbers of units from the inputs to the outputs, at least two.
        seed: seed of the weights.

    Raises:
        ValueError: fewer than two layers of units, or one without units.

    Source: paper B, Appendix C.3, and its published code; the paper's text does not say how it initialises.

    >>> [sum(p.numel() for p in mlp(sizes, seed=0).parameters()) for sizes in ((64, 10, 5, 1), (2, 5, 5, 1))]
    [711, 51]
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes={tuple(sizes)} must name at least two layers of at least one unit each")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def trained_lenet(
    *,
    n_train: int = 2000,
    epochs: int = 100,
    source: str = "embedded",
    seed: int = 0,
    width: float = 1.0,
    extra_layers: int = 0,
) -> nn.Sequential:
    """The LeNet after paper A's training; trained once, then read from the cache.

    Cross-entropy on the first ``n_train`` MNIST training images, batches of 64 in a fresh random order each epoch,
    SGD with learning rate 1e-3, momentum 0.9 and weight decay 5e-4. The paper's checkpoint is not public, so its
    settings are reproduced, not its weights.

    Args:
        n_train: images to train on.
        epochs: passes over them.
        source: as in `zonb.data.load`; the embedded sample holds 3,000 images.
        seed: initial weights and order of the batches.
        width, extra_layers: as in `lenet`.

    Returns:
        The network in evaluation mode, float32. The cache is the folder ``$ZONB_CACHE`` (``~/.cache/zonb`` if unset).

    Raises:
        ValueError: more images asked for than there are.

    Source: paper A, Section E.1 (settings from the authors' public code).
    """
    digits = data.load("mnist", source=source)
    if not 1 <= n_train <= len(digits) or epochs < 0:
        raise ValueError(f"n_train={n_train} must be in 1..{len(digits)} ({source}), and epochs={epochs} at least 0")
    shape: dict[str, Any] = {"width": float(width), "extra_layers": int(extra_layers)}
    model = lenet(seed=seed, **shape)
    settings = {
        "n_train": n_train,
        "epochs": epochs,
        "seed": seed,
        **shape,
        "images": hashlib.sha256(digits.images[:n_train].tobytes() + digits.labels[:n_train].tobytes()).hexdigest(),
    }

    def train() -> None:
        x = data.mnist_inputs(digits.images[:n_train])
        _train(model, x, torch.from_numpy(digits.labels[:n_train]), epochs, directions.generator(seed, 1))

    return remembered(model, train, name="lenet", settings=settings, sources=_SOURCES)


def remembered(
    model: _Model,
    train: Callable[[], None],
    *,
    name: str,
    settings: Mapping[str, Any],
    sources: Sequence[str | Path],
) -> _Model:
    """The model with trained weights: trained once, then read from the cache.

    Args:
        model: freshly initialised; its weights are replaced.
        train: trains ``model`` in place. It runs on one thread: a sum split over threads rounds differently, and
            weights would depend on the machine's cores.
        name: what the file's name begins with.
        settings: everything but code that the weights follow from, as JSON takes it.
        sources: the files of the code that they follow from.

    Returns:
        The model in evaluation mode. The cache is the folder ``$ZONB_CACHE`` (``~/.cache/zonb`` if unset); a file's key
        is made of ``settings``, the content of ``sources`` and torch's version.
    """
    settings = {
        **settings,
        "code": hashlib.sha256(b"".join(Path(file).read_bytes() for file in sources)).hexdigest(),
        "torch": torch.__version__,
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("ZONB_CACHE", Path.home() / ".cache" / "zonb"))
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{name}-{key}.safetensors"
    with FileLock(cache / f"{name}-{key}.lock"):
        if not path.exists():
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                train()
            finally:
                torch.set_num_threads(threads)
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                save_model(model, str(Path(folder) / path.name))
                (Path(folder) / path.name).replace(path)
    load_model(model, path)
    return model.eval()


def accuracy(model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of inputs whose largest logit is that of their label, in [0, 1].

    >>> accuracy(nn.Identity(), torch.eye(2), torch.tensor([0, 0]))
    0.5
    """
    with torch.no_grad():
        return (model(x).argmax(-1) == labels).double().mean().item()


def _train(model: nn.Module, x: torch.Tensor, labels: torch.Tensor, epochs: int, order: torch.Generator) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    for _ in tqdm(range(epochs), desc="training LeNet", unit="epoch", disable=None):
        for batch in torch.randperm(len(x), generator=order).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), labels[batch]).backward()
            optimizer.step()
