"""Attribution beside glass-box-umap and captum: how many times less time and memory the same numbers take.

All sides take the same float32 inputs and weights in turn, in one process, with one torch thread, by process
CPU time; results are compared first. Ratios are smallest / median / largest over the rounds. Memory is the
growth of the resident size of a fresh process, result aside. The table is printed at the end; nothing is
asserted about time.
"""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.timing import ratios, table, worded
from torch import Tensor, nn

from pullback.attribution import (
    compute_jacobian,
    contributions,
    contributions_between,
    group_contributions,
)

JACOBIANS = {
    (1797, 64, 128, 2): 1.4,
    (5000, 784, 128, 2): 1.1,
    (2000, 2000, 256, 2): 1.1,
    (4000, 50, 512, 2): 1.1,
    (1797, 64, 128, 8): 1.1,
}
CONTRIBUTIONS = {(5000, 2000, 50): 128, (2000, 2000, 0): 128, (5000, 784, 0): 128}
"""Rows, features, principal axes (0: none) -> hidden width."""
ASKED = {"full": 1.0, "full, out=": 1.3, "l2": 1.2, "mean_l2": 1.2}
MEMORY = (20_000, 2000)


# glass-box's encoder does not see magnitudes, which is said each time
pytestmark = pytest.mark.filterwarnings("ignore::pullback.attribution.HomogeneityWarning")


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    yield from table()


def rows(n: int, p: int) -> Tensor:
    return torch.randn(n, p, generator=torch.Generator().manual_seed(0))


def glassbox_pair(p: int, h: int, d: int) -> tuple[Any, nn.Module]:
    """Their default encoder and the same network of standard layers, with the same weights."""
    theirs = pytest.importorskip("glass_box_umap.parametric_umap.models", reason="pip install glass-box-umap")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = theirs.DeepPReLUNet((p,), d, hidden_size=h).eval()
    layers: list[nn.Module] = []
    for layer in net.model:
        if isinstance(layer, nn.PReLU):
            layers.append(nn.PReLU())
            layers[-1].load_state_dict(layer.state_dict())
        elif hasattr(layer, "scale"):
            layers.append(nn.LayerNorm(len(layer.scale), eps=1e-12, bias=False))
            layers[-1].load_state_dict({"weight": layer.scale})
        else:
            layers.append(layer)
    return net, nn.Sequential(*layers).eval()


def glassbox_model(net: nn.Module, X: np.ndarray, axes: int) -> Any:
    """A GlassBoxUMAP as after a fit, without the fit."""
    glass = pytest.importorskip("glass_box_umap")
    from sklearn.decomposition import PCA

    class Fitted(glass.GlassBoxUMAP):
        _fitted_model = property(lambda self: self.holder)  # type: ignore[assignment]

    model = Fitted(pca_components=axes or None)
    model._device = torch.device("cpu")
    model._mean = X.mean(axis=0)
    model._pca = PCA(axes, random_state=0).fit(X - model._mean) if axes else None
    model.holder = nn.Module()
    model.holder.encoder = net
    return model


@pytest.mark.parametrize("size", JACOBIANS, ids=str)
def test_jacobian(lines: list[str], size: tuple[int, int, int, int]) -> None:
    n, p, h, d = size
    theirs, ours = glassbox_pair(p, h, d)
    glass = pytest.importorskip("glass_box_umap.jacobian")
    x = rows(n, p)
    expected, found = glass.compute_jacobian(theirs, x), compute_jacobian(ours, x, map="local_linear")
    error = (found - expected).abs().amax((1, 2)) / expected.abs().max()
    # a unit within rounding of its kink may take either slope
    assert float(error.quantile(0.999)) < 2e-6
    measured = ratios(
        lambda: glass.compute_jacobian(theirs, x), lambda: compute_jacobian(ours, x, map="local_linear")
    )
    lines.append(worded(f"Jacobian {n}x{p} h{h} d{d}, glass-box / ours", measured, JACOBIANS[size]))


@pytest.mark.parametrize("size", CONTRIBUTIONS, ids=str)
def test_contributions(lines: list[str], size: tuple[int, int, int]) -> None:
    n, p, axes = size
    theirs, ours = glassbox_pair(axes or p, CONTRIBUTIONS[size], 2)
    x = rows(n, p)
    model = glassbox_model(theirs, x.numpy(), axes)
    mean = torch.from_numpy(model._mean)
    front = (mean, torch.from_numpy(model._pca.components_)) if axes else None
    options = {"map": "local_linear", "baseline": mean, "preprocessing": front}
    if front is None:
        options["preprocessing"] = (mean, torch.ones(p))
    out = torch.empty(n, 2, p)
    calls = {
        "full": (lambda: model.compute_contributions(x.numpy()), lambda: contributions(ours, x, **options)),
        "full, out=": (
            lambda: model.compute_contributions(x.numpy()),
            lambda: contributions(ours, x, out=out, **options),
        ),
        "l2": (
            lambda: model.compute_contributions(x.numpy(), reduction="l2"),
            lambda: contributions(ours, x, reduction="l2", **options),
        ),
        "mean_l2": (
            lambda: model.compute_contributions(x.numpy(), reduction="l2").mean(axis=0),
            lambda: contributions(ours, x, reduction="mean_l2", **options),
        ),
    }
    for name, (other, mine) in calls.items():
        # rounding decides the piece of a row that lies on a kink
        assert np.isclose(mine().values.numpy(), other(), rtol=1e-3, atol=1e-5).mean() > 0.999
        text = f"contributions {n}x{p}{f' PCA {axes}' if axes else ''} {name}, glass-box"
        lines.append(worded(text, ratios(other, mine, 7), ASKED[name]))


def test_groups(lines: list[str]) -> None:
    n, p = 5000, 2000
    theirs, ours = glassbox_pair(p, 128, 2)
    x, labels = rows(n, p), np.arange(n) % 10
    model = glassbox_model(theirs, x.numpy(), 0)
    mean = torch.from_numpy(model._mean)

    def other() -> np.ndarray:
        whole = model.compute_contributions(x.numpy())
        return np.stack([whole[labels == group].mean(axis=0) for group in range(10)])

    def mine() -> Any:
        front = (mean, torch.ones(p))
        return group_contributions(ours, x, labels, map="local_linear", preprocessing=front)

    np.testing.assert_allclose(mine().values.numpy(), other(), rtol=1e-3, atol=1e-5)
    lines.append(worded("means of 10 groups 5000x2000, glass-box", ratios(other, mine, 7), 1.2))


def plain_net(p: int, h: int = 128, d: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for before, after in ((p, h), (h, h), (h, h)):
            layers += [nn.Linear(before, after), nn.PReLU()]
        return nn.Sequential(*layers, nn.Linear(h, d)).eval()


@pytest.mark.parametrize(("n", "p"), [(1797, 64), (2000, 784)])
def test_captum(lines: list[str], n: int, p: int) -> None:
    attr = pytest.importorskip("captum.attr", reason="pip install captum==0.9.0 into .venv-peers")
    net, x = plain_net(p), rows(n, p).requires_grad_()
    product, integrated = attr.InputXGradient(net), attr.IntegratedGradients(net)

    def products() -> Tensor:
        return torch.stack([product.attribute(x, target=i) for i in range(2)], dim=1)

    def integrals() -> Tensor:
        return torch.stack([integrated.attribute(x, target=i, n_steps=50) for i in range(2)], dim=1)

    def ours() -> Any:
        return contributions(net, x)

    torch.testing.assert_close(ours().values, products().detach(), rtol=1e-3, atol=1e-5)
    text = f"{n}x{p}, all outputs, captum"
    lines.append(worded(f"InputXGradient {text}", ratios(products, ours), 2.0))
    lines.append(worded(f"IntegratedGradients, 50 steps, {text}", ratios(integrals, ours, 5), 20.0))
    some, zero = x[:200], torch.zeros(200, p)
    exact = contributions_between(net, some, zero)

    def few() -> Tensor:
        found = [integrated.attribute(some, target=i, n_steps=50) for i in range(2)]
        return torch.stack(found, dim=1)

    error = (few().sum(-1) - exact.value).abs() / exact.values.abs().sum(-1)
    ratio = ratios(few, lambda: contributions_between(net, some, zero), 5)
    lines.append(worded(f"  against the exact path, 200x{p}, captum", ratio, 0.0))
    lines.append(
        f"  completeness error: captum {error.median():.0e} (median), ours "
        f"{exact.verification.pointwise_error:.0e} (largest), {int(exact.pieces.median())} pieces"
    )


def test_memory(lines: list[str]) -> None:
    pytest.importorskip("glass_box_umap")
    used = {side: peak(side) for side in ("glass-box", "l2", "mean_l2")}
    for side in ("l2", "mean_l2"):
        ratio = used["glass-box"] / used[side]
        lines.append(
            f"{f'peak memory {MEMORY[0]}x{MEMORY[1]} {side}, glass-box / ours':46s} {ratio:6.1f}"
            f"   ({used['glass-box']:.0f} / {used[side]:.0f} MiB)   asked   4.0, aim 8"
        )


def peak(side: str) -> float:
    """MiB that a call takes beyond input and result, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_attribution", side],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=170,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _measure(side: str) -> float:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    n, p = MEMORY
    theirs, ours = glassbox_pair(p, 128, 2)
    x = rows(n, p)
    few = x[:64].numpy()
    model = glassbox_model(theirs, few, 0)
    mean = torch.from_numpy(model._mean)
    front = (mean, torch.ones(p))
    model.compute_contributions(few, reduction="l2")
    contributions(ours, x[:64], map="local_linear", preprocessing=front, reduction="l2")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _resident("VmRSS")
    if side == "glass-box":
        result = model.compute_contributions(x.numpy(), reduction="l2")
    else:
        result = contributions(
            ours, x, map="local_linear", preprocessing=front, reduction=side
        ).values.numpy()
    return _resident("VmHWM") - before - result.nbytes / 2**20


def _resident(entry: str) -> float:
    """MiB of this process, as Linux counts them."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(entry))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))
