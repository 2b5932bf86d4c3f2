"""The published zeroth-order step, written from its description (Malladi et al. 2023)."""

from collections.abc import Callable, Sequence

import torch


@torch.no_grad()
def four_draws(model: torch.nn.Module, closure: Callable, seeds: Sequence[int], *, lr: float, mu: float) -> None:
    """Perturb in place by +mu, by -2 mu, by +mu, and update: each seed's direction is drawn four times."""

    def move(seed: int, scale: float) -> None:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            z = torch.normal(mean=0, std=1, size=parameter.shape, dtype=parameter.dtype)
            parameter.data = parameter.data + scale * z

    slopes = []
    for seed in seeds:
        move(seed, mu)
        plus = closure().item()
        move(seed, -2 * mu)
        minus = closure().item()
        move(seed, mu)
        slopes.append((plus - minus) / (2 * mu))
    for seed, slope in zip(seeds, slopes, strict=True):
        move(seed, -lr / len(seeds) * slope)
