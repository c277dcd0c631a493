"""The network of a metric's factors, and the choice of centroids."""

import pytest
import torch
from torch import nn

from pullback.linalg import lower_triangular
from pullback.models import MetricNetwork, select_centroids


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_factors_are_lower_triangular_with_a_positive_diagonal(d, dtype):
    network = MetricNetwork(7, d, (6, 5), ("tanh", nn.ReLU)).to(dtype)
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    L, parts = network(x), network.parts(x)
    assert L.shape == (4, d, d)
    assert L.dtype == dtype
    assert torch.equal(L, L.tril())
    torch.testing.assert_close(L.diagonal(dim1=1, dim2=2), parts.diagonal)
    assert bool((parts.diagonal > 0).all())
    rows, columns = torch.tril_indices(d, d, -1)
    assert torch.equal(L[:, rows, columns], parts.lower)


def test_entries_below_the_diagonal_go_row_by_row():
    L = lower_triangular(torch.tensor([10.0, 20.0, 30.0, 40.0]), torch.arange(1.0, 7.0))
    assert L.tolist() == [[10, 0, 0, 0], [1, 20, 0, 0], [2, 3, 30, 0], [4, 5, 6, 40]]
    assert torch.autograd.gradcheck(
        lower_triangular,
        [torch.rand(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)],
    )


def test_exponents_are_bounded():
    network = MetricNetwork(1, 2, (), max_log_diagonal=2.0)
    with torch.no_grad():
        network.diagonal.weight.copy_(torch.tensor([[100.0], [-100.0]]))
    diagonal = network.parts(torch.ones(1, 1)).diagonal
    torch.testing.assert_close(diagonal, torch.tensor([[2.0, -2.0]]).exp())


def test_output_activation_comes_before_exp():
    network = MetricNetwork(2, 2, (3,), output_activation="tanh")
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)) * 50
    parts = network.parts(x)
    assert bool((parts.diagonal.log().abs() <= 1).all())
    assert bool((parts.lower.abs() <= 1).all())


def test_a_trunk_of_ones_own():
    trunk = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3), nn.Flatten())
    assert MetricNetwork(8, 2, trunk=trunk)(torch.zeros(3, 16)).shape == (3, 2, 2)


def test_weights_come_from_the_generator():
    one, other = (MetricNetwork(4, 2, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one.diagonal.weight, other.diagonal.weight)
    assert one.diagonal.bias.abs().max() == 0


@pytest.mark.parametrize("d", [1, 3])
def test_identity_start(d):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(MetricNetwork(4, d, init="identity")(x), torch.eye(d).expand(5, d, d))


def test_a_head_that_counts_the_diagonal_is_refused():
    network = MetricNetwork(4, 5)
    network.lower = nn.Linear(128, 15)
    with pytest.raises(ValueError, match=r"d\(d-1\)/2 = 10 outputs for latent_dim=5, got 15 \(n\(n\+1\)/2"):
        network(torch.zeros(2, 4))
    network = MetricNetwork(4, 5)
    network.diagonal = nn.Linear(128, 4)
    with pytest.raises(ValueError, match="diagonal: expected 5"):
        network(torch.zeros(2, 4))


def test_as_many_activations_as_layers():
    with pytest.raises(ValueError, match="one for each of 2 hidden layers, got 3"):
        MetricNetwork(4, 2, (3, 3), ["tanh", "tanh", "relu"])


CLUSTERS = torch.cat([torch.zeros(20, 3), torch.ones(20, 3), torch.full((20, 3), 5.0)]) + 0.01 * torch.randn(
    60, 3, generator=torch.Generator().manual_seed(0)
)


@pytest.mark.parametrize("method", ["kmedoids", "kmeans"])
def test_centroids_find_the_clusters(method):
    found = select_centroids(CLUSTERS, 3, method, random_state=0)
    assert sorted(found.mean(1).round().tolist()) == [0, 1, 5]
    rows = (found.unsqueeze(1) == CLUSTERS).all(2).any(1)
    assert bool(rows.all()) == (method == "kmedoids")


def test_random_and_all():
    found = select_centroids(CLUSTERS, 10, "random", random_state=0)
    assert len(found.unique(dim=0)) == 10
    assert torch.equal(found, select_centroids(CLUSTERS, 10, "random", random_state=0))
    assert select_centroids(CLUSTERS, 5, "all") is CLUSTERS


def test_images_keep_their_shape_and_equal_rows_count_once():
    x = torch.zeros(30, 1, 2, 2)
    x[15:] = 1
    assert select_centroids(x, 8, random_state=0).shape == (2, 1, 2, 2)
