"""Numbers of the bars of path attribution."""

import matplotlib.pyplot as plt
import pytest
import torch

import pullback as pb


@pytest.mark.parametrize("values", [[[3.0, -1.0, 0.5]], [[-3.0, -1.0, -0.5]]])
def test_numbers_of_negative_shares_are_clear_of_the_names(values):
    share = torch.tensor(values, dtype=torch.float64)
    energy = share.sum(1)
    zero = torch.zeros_like(share)
    shares = pb.EnergyShares(
        share, share / share.abs().sum(), zero, share.abs(), energy, "feature", ("a", "b", "c")
    )
    ax = pb.plots.path_attribution(shares)
    ax.figure.canvas.draw()
    frame = ax.get_window_extent()
    for number in ax.texts:
        box = number.get_window_extent()
        assert box.x0 >= frame.x0
        assert box.x1 <= frame.x1
    plt.close(ax.figure)
