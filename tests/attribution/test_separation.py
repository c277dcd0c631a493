"""Mean contributions of groups, and the distances of their centroids."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from attribution_cases import digit_labels, digits, encoder
from pullback.attribution import contributions, group_contributions


@pytest.mark.parametrize("method", ["local", "path"])
def test_all_pairs_of_digits_add_up_to_the_distance_of_their_centroids(method):
    net, x, labels = encoder(nn.PReLU), digits()[:600], digit_labels()[:600]
    means = group_contributions(net, x, labels, method=method)
    assert means.groups == tuple(range(10))
    assert torch.equal(means.counts, torch.bincount(labels))
    baseline = x.mean(0) if method == "path" else torch.zeros(64, dtype=torch.float64)
    whole = contributions(net, x, method=method, baseline=baseline)
    value = net(x).detach()
    for a, b in itertools.combinations(range(10), 2):
        apart = means.between(a, b)
        distance = (value[labels == a].mean(0) - value[labels == b].mean(0)).norm()
        assert float((apart.values.sum() + apart.offset - distance).abs()) <= 1e-10
        assert float((apart.distance - distance).abs()) <= 1e-12
        assert torch.equal(means.separation(a, b), apart.values)
        if method == "path":
            assert float(apart.offset.abs()) <= 1e-12
        vector = whole.values[labels == a].mean(0) - whole.values[labels == b].mean(0)
        torch.testing.assert_close(apart.vector, vector, rtol=1e-10, atol=1e-11)
    assert float(means.residual.max()) <= 1e-12
    assert means.verification.passed


def test_feature_groups_and_chunks_change_no_sum():
    net, x, labels = encoder(nn.ReLU), digits(60), [str(k % 3) for k in range(60)]
    whole = group_contributions(net, x, labels)
    found = group_contributions(net, x, labels, feature_groups={"half": range(32)}, chunk_size=7)
    assert found.feature_names[0] == "half"
    torch.testing.assert_close(found.values[:, :, 0], whole.values[:, :, :32].sum(-1))
    torch.testing.assert_close(found.values[:, :, 1:], whole.values[:, :, 32:])


@pytest.mark.parametrize("wrap", [list, np.asarray, pd.Series, pd.Categorical])
def test_rows_without_a_label_are_left_out(wrap):
    net, x = encoder(nn.ReLU), digits(6)
    labels = wrap(["b", "a", None, "b", "a", None])
    found = group_contributions(net, x, labels)
    assert found.groups == ("a", "b")
    assert found.counts.tolist() == [2, 2]
    expected = contributions(net, x).values
    torch.testing.assert_close(found.values[0], (expected[1] + expected[4]) / 2)


def test_an_unknown_group_is_named():
    means = group_contributions(encoder(nn.ReLU), digits(4), ["a", "a", "b", "b"])
    with pytest.raises(ValueError, match="b: expected one of 'a', 'b', got 'c'"):
        means.separation("a", "c")
