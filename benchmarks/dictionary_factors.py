"""Dictionaries of rows of which two numbers in five are missing, or twenty times as noisy as the others.

    python -m benchmarks.dictionary_factors

2000 sums of up to three atoms (two circles, an arc), 32 numbers, noise .05. A line a set and way: noise level
found, share of the variance of the noise-free rows that is left, coordinate scores by atom.
"""

import logging
from types import SimpleNamespace

import torch
from tests.planted import by_truth, planted, scores_of
from torch import Tensor

import pullback as pb

KINDS = ("circle", "circle", "interval")
ROWS, FEATURES, SIGMA, BAD = 2000, 32, 0.05, 0.4


def main() -> None:
    """Fit and print."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    true = planted(ROWS, "additive", kinds=KINDS, p=FEATURES, sigma=0.0)
    g = torch.Generator().manual_seed(1)
    bad = torch.rand(true.Z.shape, generator=g) < BAD
    noise = torch.randn(true.Z.shape, generator=g, dtype=torch.float64)
    clean = true.clean + SIGMA * noise
    means = clean.masked_fill(bad, torch.nan).nanmean(0)
    sd = torch.where(bad, 20 * SIGMA, SIGMA)
    sets: dict[str, tuple[Tensor, Tensor | None]] = {
        "complete": (clean, None),
        "gaps, filled with means": (torch.where(bad, means, clean), None),
        "gaps, factors": (torch.where(bad, 0.0, clean), torch.diag_embed((~bad).double())),
        "noise, as if even": (true.clean + sd * noise, None),
        "noise, factors": (true.clean + sd * noise, torch.diag_embed(SIGMA / sd)),
    }
    spread = (true.clean - true.clean.mean(0)).square().sum()
    for name, (Z, U) in sets.items():
        ambient = None if U is None else pb.ambient.LowRank(U)
        charts = by_truth(true.A, KINDS)
        model = pb.ManifoldDictionary(3, charts, ambient=ambient, random_state=0).fit(Z)
        codes = model.transform(Z, ambient=ambient)
        left = float((torch.as_tensor(model.inverse_transform(codes)) - true.clean).square().sum() / spread)
        B = torch.as_tensor(model.components_).double()
        plain = SimpleNamespace(layout=model._encoder.layout, codes=codes.plain(B), B=B)
        scores = scores_of(plain, true)  # type: ignore[arg-type]
        told = ", ".join(f"{kind} {score:.3f}" for kind, score in zip(KINDS, scores.coordinates, strict=True))
        print(f"{name}: sigma {model.sigma_:.4f}, clean left {left:.4f}, {told}", flush=True)


if __name__ == "__main__":
    main()
