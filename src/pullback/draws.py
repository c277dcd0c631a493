"""Where random numbers come from: never from a generator that others draw from, too."""

import torch


def source_of(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    """The generator that was given, or a fresh one with a fixed seed, so that results repeat."""
    return torch.Generator(device=device).manual_seed(0) if generator is None else generator
