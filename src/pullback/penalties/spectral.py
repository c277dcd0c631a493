"""Spectra of small symmetric matrices."""

import torch
from torch import Tensor


def positive_part(matrix: Tensor) -> Tensor:
    """The nearest positive semi-definite matrix: eigenvalues below zero replaced by zero; batched."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return (vectors * values.clamp_min(0).unsqueeze(-2)) @ vectors.mT


def wide(tensor: Tensor) -> Tensor:
    """float64 where the device has it."""
    return tensor if tensor.device.type == "mps" else tensor.double()
