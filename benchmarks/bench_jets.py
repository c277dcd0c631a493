"""Jets beside nested ``torch.func``: how many times less time the same numbers take.

Both sides run in turn in one process on one thread, by process CPU time (on a GPU: by the clock, waiting for
the device), float32. Every ratio is given as smallest / median / largest over the rounds, and the inference
table adds the fraction of the speed of a 1024³ product: of ``torch.mm``, and of the quickest kernel at hand.
The table is printed at the end; nothing is asserted about time.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.func import jacfwd, jvp, vjp, vmap

from pullback.jets import contract_hessian, jet, metric_jet, tangential_acceleration
from pullback.jets.gemm import times_transposed
from pullback.jets.indices import count, indices
from pullback.penalties import IsometryPenalty
from pullback.products import gram

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROUNDS = 7
SHORTEST = 0.02
"""Seconds that one measurement takes at least."""


@dataclass(frozen=True)
class Case:
    """A decoder with two hidden layers."""

    activation: str
    d: int
    p: int
    h: int
    n: int

    def __str__(self) -> str:
        return f"{self.activation} d{self.d} p{self.p} h{self.h} n{self.n}"

    def build(self) -> tuple[nn.Module, Tensor]:
        act = getattr(nn, self.activation)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            f = nn.Sequential(
                nn.Linear(self.d, self.h), act(), nn.Linear(self.h, self.h), act(), nn.Linear(self.h, self.p)
            )
            return f.to(DEVICE), torch.randn(self.n, self.d).to(DEVICE)

    def operations(self, order: int) -> int:
        """Operations of the matrix products; the first layer counts for the value only."""
        m = 1 + count(self.d, order)
        return 2 * self.n * (self.d * self.h + m * self.h * (self.h + self.p))


INFERENCE = [
    Case("Tanh", 2, 64, 128, 256),
    Case("Tanh", 2, 784, 256, 256),
    Case("Softplus", 4, 200, 128, 128),
    Case("GELU", 8, 64, 128, 64),
    Case("Tanh", 2, 2000, 512, 64),
    Case("Tanh", 8, 784, 256, 32),
    Case("SiLU", 2, 2000, 512, 64),
]
TRAINING = [
    Case("Tanh", 2, 64, 128, 256),
    Case("Tanh", 4, 784, 256, 64),
    Case("Tanh", 2, 784, 256, 256),
    Case("Softplus", 4, 200, 128, 128),
    Case("GELU", 8, 64, 128, 64),
    Case("Tanh", 2, 2000, 512, 64),
]
CONTRACTIONS = [
    Case("Tanh", 2, 784, 256, 256),
    Case("Tanh", 2, 2000, 512, 64),
    Case("Tanh", 8, 784, 256, 32),
    Case("Tanh", 4, 200, 128, 128),
    Case("Tanh", 8, 2000, 256, 64),
]
ASKED = {
    "J": 1.7,
    "H": 3.2,
    "K": 6.5,
    "J penalty": 1.5,
    "isometry": 1.5,
    "H penalty": 2.5,
    "JᵀH": 5.5,
    "JᵀH[v,v]": 3.2,
}
ROWS: list[str] = []


def _now() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _seconds(run: Callable[[], object], repeats: int) -> float:
    begin = _now()
    for _ in range(repeats):
        run()
    return (_now() - begin) / repeats


def _repeats(run: Callable[[], object]) -> int:
    run()
    return max(1, int(SHORTEST / max(_seconds(run, 1), 1e-6)))


@dataclass(frozen=True)
class Ratio:
    """Time of the slow side over time of the quick one, round by round."""

    smallest: float
    median: float
    largest: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.smallest:.2f} / {self.median:.2f} / {self.largest:.2f}"


def _compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = ROUNDS) -> Ratio:
    ours_repeats, theirs_repeats = _repeats(ours), _repeats(theirs)
    quick, ratios = [], []
    for _ in range(rounds):
        quick.append(_seconds(ours, ours_repeats))
        ratios.append(_seconds(theirs, theirs_repeats) / quick[-1])
    ratios.sort()
    quick.sort()
    return Ratio(ratios[0], ratios[rounds // 2], ratios[-1], quick[rounds // 2])


def _nested(f: nn.Module, order: int) -> Callable[[Tensor], Tensor]:
    function: Callable = f
    for _ in range(order):
        function = jacfwd(function)
    return vmap(function)


def _report(
    benchmark, case: Case, name: str, ratio: Ratio, run: Callable[[], object], note: str = ""
) -> None:
    asked = 12.0 if name == "JᵀH" and str(case).endswith("d8 p2000 h256 n64") else ASKED.get(name)
    benchmark.extra_info.update(
        case=str(case), quantity=name, median=ratio.median, smallest=ratio.smallest, largest=ratio.largest
    )
    floor = "" if asked is None else f"asked {asked}"
    ROWS.append(f"{case!s:32} {name:10} {ratio!s:24} {floor:10} {ratio.seconds * 1e3:8.3f} ms  {note}")
    benchmark.pedantic(run, rounds=3, iterations=1)


@pytest.fixture(autouse=True, scope="module")
def as_users_run_on_one_thread() -> Iterator[None]:
    """No run-time shape checks, one thread; the table at the end."""
    before = torch.get_num_threads(), jaxtyping.config.jaxtyping_disable
    torch.set_num_threads(1)
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    torch.set_num_threads(before[0])
    jaxtyping.config.update("jaxtyping_disable", before[1])
    print("\n\nnested torch.func over jets, smallest / median / largest:")
    print("\n".join(ROWS))


@pytest.fixture(scope="module")
def peak(as_users_run_on_one_thread) -> tuple[float, float]:
    """Operations a second of a 1024³ product: torch.mm, and the quickest kernel."""
    a, b = torch.randn(2, 1024, 1024, device=DEVICE)
    with torch.no_grad():
        seconds = [
            min(_seconds(run, 3) for _ in range(ROUNDS))
            for run in (lambda: torch.mm(a, b), lambda: times_transposed(a, b))
        ]
    return 2 * 1024**3 / seconds[0], 2 * 1024**3 / min(seconds)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("case", INFERENCE, ids=str)
def test_inference(benchmark, peak, case, order):
    f, x = case.build()
    f.requires_grad_(False)
    # nested forward mode of SiLU is not implemented under no_grad: frozen parameters give the same work
    with torch.set_grad_enabled(case.activation == "SiLU"):

        def ours():
            with torch.no_grad():
                return jet(f, x, order, packed=True)

        nested = _nested(f, order)
        ratio = _compare(ours, lambda: nested(x), rounds=ROUNDS if order < 3 else 5)
        speed = case.operations(order) / ratio.seconds
        note = f"{100 * speed / peak[0]:.0f} % of mm, {100 * speed / peak[1]:.0f} % of the quickest kernel"
        benchmark.extra_info.update(
            percent_of_mm=100 * speed / peak[0], percent_of_peak=100 * speed / peak[1]
        )
        _report(benchmark, case, "JHK"[order - 1], ratio, ours, note)


def _squared(J: Tensor) -> Tensor:
    return J.mT @ J


def _isometry(J: Tensor) -> Tensor:
    """Both sides take `gram`, so that the same loss costs neither of them more than it must."""
    return (gram(J) - torch.eye(J.shape[2], device=J.device)).square().mean()


def _gauge(J: Tensor) -> Tensor:
    """What `IsometryPenalty` gives: how far JᵀJ is from the identity up to one scale."""
    g = _squared(J)
    mean = g.diagonal(dim1=1, dim2=2).mean()
    return (g / mean - torch.eye(J.shape[2], device=J.device)).square().sum() / 2


@pytest.mark.parametrize("penalty", ["J penalty", "isometry", "H penalty"])
@pytest.mark.parametrize("case", TRAINING, ids=str)
def test_training(benchmark, case, penalty):
    f, x = case.build()

    def backward(loss: Tensor) -> None:
        f.zero_grad()
        loss.backward()

    first, second = _nested(f, 1), _nested(f, 2)
    gauge = IsometryPenalty()
    ours, theirs = {
        "J penalty": (lambda: _isometry(jet(f, x, 1, lowest=1).jacobian), lambda: _isometry(first(x))),
        "isometry": (lambda: gauge.penalize(f, x), lambda: _gauge(first(x))),
        "H penalty": (
            lambda: jet(f, x, 2, lowest=2).hessian.square().mean(),
            lambda: second(x).square().mean(),
        ),
    }[penalty]
    torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-6)
    _report(
        benchmark,
        case,
        penalty,
        _compare(lambda: backward(ours()), lambda: backward(theirs())),
        lambda: backward(ours()),
    )


@pytest.mark.parametrize("case", TRAINING[:3], ids=str)
def test_training_with_packed_rows(benchmark, case):
    f, x = case.build()
    nested = _nested(f, 2)
    times = torch.bincount(indices(case.d, DEVICE).full2).float()

    def ours() -> None:
        f.zero_grad()
        rows = jet(f, x, 2, packed=True).rows[1 + case.d :]
        (rows.square().mean((1, 2)) @ times / case.d**2).backward()

    def theirs() -> None:
        f.zero_grad()
        nested(x).square().mean().backward()

    _report(benchmark, case, "H packed", _compare(ours, theirs), ours)


@pytest.mark.parametrize("case", CONTRACTIONS, ids=str)
@pytest.mark.parametrize("name", ["JᵀH", "JᵀH[v,v]", "<λ,H>", "g"])
def test_contractions(benchmark, case, name):
    f, x = case.build()
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(x.shape, generator=generator).to(DEVICE)
    covectors = torch.randn(case.n, 1, case.p, generator=generator).to(DEVICE)
    first, second = _nested(f, 1), _nested(f, 2)

    def along() -> Tensor:
        acceleration = jvp(lambda z: jvp(f, (z,), (v,))[1], (x,), (v,))[1]
        return vjp(f, x)[1](acceleration)[0]

    def metric() -> Tensor:
        jacobian = jet(f, x, 1).jacobian
        return _squared(jacobian)

    sides = {
        "JᵀH": (lambda: metric_jet(f, x), lambda: torch.einsum("nic,niab->ncab", first(x), second(x))),
        "JᵀH[v,v]": (lambda: tangential_acceleration(f, x, v), along),
        "<λ,H>": (
            lambda: contract_hessian(f, x, covectors),
            lambda: torch.einsum("nqi,niab->nqab", covectors, second(x)),
        ),
        "g": (metric, lambda: _squared(first(x))),
    }
    with torch.no_grad():
        ours, theirs = sides[name]
        _report(benchmark, case, name, _compare(ours, theirs), ours)
