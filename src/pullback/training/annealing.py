"""Weights that rise and fall with the epochs."""

from pullback.validation import check_whole


def cyclic_annealing(
    epoch: int,
    n_epochs: int,
    n_cycles: int,
    *,
    fraction: float = 0.5,
    low: float = 0.0,
    high: float = 1.0,
) -> float:
    """low + (high - low) min(τ/fraction, 1), τ in [0, 1) the position in the cycle.

    Fu et al. 2019, "Cyclical annealing schedule: a simple approach to mitigating KL vanishing".

    Args:
        epoch: from 0.
        n_epochs: of the whole training.
        n_cycles: how often the weight starts again.
        fraction: part of a cycle in which it rises, in (0, 1].
        low, high: where it starts and where it stays.
    Raises:
        ValueError: counts below 1, an epoch below 0, or a fraction outside (0, 1].
    Example:
        >>> [cyclic_annealing(epoch, 8, 2) for epoch in range(8)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0]
    """
    check_whole("epoch", epoch, minimum=0)
    check_whole("n_epochs", n_epochs)
    check_whole("n_cycles", n_cycles)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: expected a number in (0, 1], got {fraction}")
    position = (epoch * n_cycles / n_epochs) % 1.0
    return low + (high - low) * min(position / fraction, 1.0)
