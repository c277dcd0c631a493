"""How many atoms rows hold, counted before anything is fitted."""

import pytest
import torch

import pullback as pb
from planted import Golden, planted
from pullback.models.dictionary.counting import count_atoms


@pytest.mark.parametrize(
    ("n", "mixing", "kinds"),
    [
        (600, "single", ("circle", "circle", "interval", "sphere")),
        (600, "additive", ("circle", "circle")),
        (600, "single", ("circle",)),
    ],
)
def test_planted_atoms_are_counted(n, mixing, kinds) -> None:
    assert count_atoms(planted(n, mixing, kinds=kinds, seed=3).Z) == len(kinds)


@pytest.mark.slow
def test_sums_of_many() -> None:
    """Six are counted; of ten one may be missed, and a fit then takes one more."""
    six = ("circle",) * 3 + ("interval",) * 2 + ("sphere",)
    ten = ("circle",) * 4 + ("interval",) * 3 + ("sphere",) * 3
    assert [count_atoms(planted(2500, "additive", kinds=six, seed=seed).Z) for seed in range(3)] == [6] * 3
    assert all(9 <= count_atoms(planted(4000, "additive", kinds=ten, seed=seed).Z) <= 10 for seed in range(3))


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_a_fit_may_count(seed) -> None:
    """In the first of these few rows one circle shows in two pieces."""
    rows = planted(200, "single", kinds=("circle", "circle"), p=32, seed=seed).Z
    model = pb.ManifoldDictionary(
        "auto", "circle", gate="softmax", max_sweeps=2, n_restarts=1, random_state=0
    ).fit(rows)
    assert len(model.atoms_) == 2
    assert model.get_params()["n_atoms"] == "auto"


def test_what_cannot_be_counted(as_users_run) -> None:
    rows = planted(40, "single", kinds=("circle",), p=8).Z
    with pytest.raises(ValueError, match="n_atoms: expected one of 'auto', got 'many'"):
        pb.ManifoldDictionary("many").fit(rows)
    with pytest.raises(ValueError, match="charts: expected one kind or 'auto' for n_atoms='auto'"):
        pb.ManifoldDictionary("auto", ["circle", "circle"]).fit(rows)


def test_rows_whose_noise_is_not_known() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 6, generator=g, dtype=torch.float64) * torch.logspace(0, -12, 6)
    with pytest.raises(ValueError, match="n_atoms: expected a number, since the spectrum"):
        count_atoms(rows)


def test_signal_that_fills_the_space() -> None:
    with pytest.raises(ValueError, match="n_atoms: expected a number, since signal fills 9 of 16 dim"):
        count_atoms(planted(400, "single", kinds=("circle", "circle"), p=16, seed=1).Z)


def test_golden_sums() -> None:
    assert count_atoms(Golden()["add_train_Z"]) == 6
