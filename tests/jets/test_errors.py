"""What a user reads when something is wrong."""

import re

import pytest
import torch
from torch import nn

from jet_cases import dense, points
from pullback import ambient
from pullback.jets import (
    Residual,
    contract_hessian,
    contract_third,
    directional_jet,
    jet,
    metric_jet,
    reference_jet,
    tangential_acceleration,
)

pytestmark = pytest.mark.usefixtures("as_users_run")


def says(kind, text):
    return pytest.raises(kind, match=re.escape(text))


@pytest.mark.parametrize("order", [4, -1, 1.5, True, "2"])
def test_order(order):
    for call in (jet, reference_jet):
        with says(ValueError, f"order: expected 0, 1, 2 or 3, got {order}"):
            call(dense(nn.Tanh, 2), points(3, 2), order)
    with says(ValueError, "order: expected 1, 2 or 3, got 0"):
        directional_jet(dense(nn.Tanh, 2), points(3, 2), points(3, 2), 0)


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (torch.arange(5), "got shape (5,) int64"),
        (torch.zeros(5), "got shape (5,) float32"),
        (torch.zeros(2, 3, 4), "got shape (2, 3, 4) float32"),
        (torch.zeros(2, 3, dtype=torch.int64), "got shape (2, 3) int64"),
    ],
)
def test_points_of_another_shape_or_kind(x, got):
    for call in (jet, reference_jet, metric_jet):
        with says(ValueError, f"x: expected (n, d) floating point, {got}"):
            call(dense(nn.Tanh, 2), x)


def test_points_that_are_no_tensor():
    with says(TypeError, "x: expected a torch.Tensor, got list"):
        jet(dense(nn.Tanh, 2), [[1.0, 2.0]])


def test_map_that_cannot_be_called():
    with says(TypeError, "f: expected a module or a function (n, d) -> (n, p), got int"):
        jet(3, points(3, 2))


def test_parameters_of_another_precision():
    with says(TypeError, "x is float64 but f has float32 parameters; call f.double() or x.float()"):
        jet(dense(nn.Tanh, 2).float(), points(3, 2))
    with says(TypeError, "x is float32 but f has float64 parameters; call f.float() or x.double()"):
        jet(dense(nn.Tanh, 2), points(3, 2, torch.float32))


@pytest.mark.parametrize(
    ("layer", "name"),
    [(nn.BatchNorm1d(4), "BatchNorm1d"), (nn.Dropout(0.2), "Dropout"), (nn.RReLU(), "RReLU")],
)
def test_layers_in_train_mode(layer, name):
    f = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), layer, nn.Linear(4, 2)).double()
    text = f"module 2 ({name}) couples or randomises rows in train mode; call f.eval()"
    for call in (jet, reference_jet, metric_jet):
        with says(ValueError, text):
            call(f, points(3, 2))
    jet(f.eval(), points(3, 2))


def test_dropout_of_nothing_and_instance_norm_may_train():
    f = nn.Sequential(
        nn.Linear(2, 4), nn.Dropout(0.0), nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2), nn.Flatten()
    )
    assert jet(f.double(), points(3, 2)).jacobian.shape == (3, 4, 2)


def test_batch_norm_without_statistics():
    f = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4, track_running_stats=False)).double().eval()
    with says(ValueError, "module 1 (BatchNorm1d) couples rows"):
        jet(f, points(3, 2))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_outputs_that_are_no_rows(order):
    image = nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (2, 2))).double()
    with says(ValueError, "got (3, 2, 2); for image decoders append nn.Flatten()"):
        jet(image, points(3, 2), order)
    with says(ValueError, "expected (n, p) with n=3"):
        jet(lambda z: z[:1] if z.shape[0] == 3 else z.unsqueeze(0), points(3, 2), order)


def test_unknown_module_when_fallback_is_refused():
    f = nn.Sequential(nn.Linear(2, 4), Residual(nn.Sequential(nn.Tanh(), nn.Softmax(dim=-1)))).double()
    with pytest.raises(
        TypeError, match=r"module 1\.block\.1 \(Softmax\) has no jet rule; supported: .*Linear.*register"
    ):
        jet(f, points(3, 2), fallback="error")
    with says(TypeError, "module (itself) (function) has no jet rule"):
        jet(lambda z: z, points(3, 2), fallback="error")
    with says(ValueError, "fallback: expected one of 'module', 'nested', 'error', got 'no'"):
        jet(f, points(3, 2), fallback="no")


def test_residual_branch_of_another_shape():
    f = nn.Sequential(nn.Linear(2, 4), Residual(nn.Linear(4, 3))).double()
    text = "residual branch: expected shape (3, 4) as its input, got (3, 3)"
    with says(ValueError, text):
        jet(f, points(3, 2), 2)
    with says(ValueError, text):
        f(points(3, 2))
    with says(ValueError, text):
        metric_jet(f, points(3, 2))


def test_covectors_and_directions_of_another_shape():
    f, x = dense(nn.Tanh, 2), points(3, 2)
    for call in (contract_hessian, contract_third):
        with says(ValueError, "covectors: expected (n, q, p) = (3, q, 5), got (3, 1, 4)"):
            call(f, x, torch.zeros(3, 1, 4, dtype=torch.float64))
        with says(ValueError, "covectors: expected (n, q, p) with n=3 from x, got (3, 5)"):
            call(f, x, torch.zeros(3, 5, dtype=torch.float64))
        with says(ValueError, "covectors: expected (n, q, p) with n=3 from x, got (2, 1, 5)"):
            call(f, x, torch.zeros(2, 1, 5, dtype=torch.float64))
        with says(ValueError, "covectors: expected (n, q, p) = (3, q, 5), got (3, 1, 6)"):
            call(nn.Sequential(f, nn.Tanh()), x, torch.zeros(3, 1, 6, dtype=torch.float64))
    for call in (directional_jet, tangential_acceleration):
        with says(ValueError, "v: expected shape (3, 2), got (3, 1)"):
            call(f, x, torch.zeros(3, 1, dtype=torch.float64))


def test_ambients_that_change_with_the_point():
    f, x = dense(nn.Tanh, 2), points(3, 2)
    for space in (ambient.Bernoulli(), ambient.Poisson(), ambient.LowRank(lambda z: z)):
        with says(TypeError, f"{type(space).__name__}, whose W changes with the point"):
            metric_jet(f, x, space)
    with says(ValueError, "ambient: expected one factor a point, (n, p, r) with n=3, got (2, 5, 2)"):
        metric_jet(f, x, ambient.LowRank(torch.zeros(2, 5, 2, dtype=torch.float64)))
    with says(ValueError, "ambient: expected factors (n, p, r) with p=5, got (3, 4, 2)"):
        metric_jet(f, x, ambient.LowRank(torch.zeros(3, 4, 2, dtype=torch.float64)))
    with says(ValueError, "ambient: expected a factor with p=5 rows, got (4, 2)"):
        metric_jet(f, x, ambient.LowRank(torch.zeros(4, 2, dtype=torch.float64)))
    with says(ValueError, "ambient: expected a weight for p=5 features, got (4,)"):
        metric_jet(f, x, ambient.Diagonal(torch.ones(4, dtype=torch.float64)))


@pytest.mark.parametrize(("size", "kind"), [(0, ValueError), (-3, ValueError), (1.5, TypeError)])
def test_chunk_sizes(size, kind):
    with pytest.raises(kind, match="chunk_size"):
        jet(dense(nn.Tanh, 2), points(3, 2), chunk_size=size)


def test_log_softmax_needs_its_dimension():
    with says(ValueError, "LogSoftmax: expected dim to be set"), pytest.warns(UserWarning, match="Implicit"):
        jet(nn.Sequential(nn.Linear(2, 3), nn.LogSoftmax(dim=None)).double(), points(3, 2))


def test_non_finite_results_are_no_error():
    f = dense(nn.Tanh, 2)
    x = torch.tensor([[float("nan"), 0.0]], dtype=torch.float64)
    assert torch.isnan(jet(f, x, 2).hessian).all()
