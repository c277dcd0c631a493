"""Every plotting function draws on the Axes that it is given, or on a new figure, and returns the Axes."""

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from pullback import plots
from pullback.geometry import EnergyShares, energy_shares
from pullback.metrics import EuclideanMetric, PullbackMetric, from_tensor
from pullback.plots.latent import factor_text, factor_ticks, relative_limits

RNG = np.random.default_rng(0)
CODES = RNG.normal(size=(60, 2))
TURNS = np.stack([np.linspace(0, 2, 9), np.linspace(1, 3, 9)])
ARCS = np.stack([np.cos(TURNS), np.sin(TURNS)], axis=2)
SPACE = RNG.normal(size=(30, 3))
ROWS = RNG.normal(size=(12, 16))
FLAT = from_tensor(lambda z: torch.zeros(len(z), 2, 2), 2)
HISTORY = {"loss": [3.0, 2.0], "kl": [0.1, 0.2], "validation/loss": [3.5, 2.5], "seconds": "none"}


def curved(d: int = 2) -> PullbackMetric:
    """The metric of a random decoder."""
    layers = torch.nn.Linear(d, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5)
    return PullbackMetric(torch.nn.Sequential(*layers).requires_grad_(False).eval())


def kinked() -> PullbackMetric:
    """The metric of a decoder that is linear piece by piece."""
    layers = torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5)
    return PullbackMetric(torch.nn.Sequential(*layers).requires_grad_(False).eval())


def shares() -> EnergyShares:
    """The energy of two arcs over five outputs."""
    return energy_shares(curved(), torch.as_tensor(ARCS).float())


CALLS: dict[str, Callable[[Axes | None], Axes]] = {
    "indicatrices": lambda ax: plots.indicatrices(curved(), CODES, number=6, ax=ax),
    "indicatrices 3": lambda ax: plots.indicatrices(curved(3), SPACE, dims=(0, 2), ax=ax),
    "geodesic_fan": lambda ax: plots.geodesic_fan(curved(), CODES[0], codes=CODES, directions=6, ax=ax),
    "geodesic_fan 3": lambda ax: plots.geodesic_fan(curved(3), SPACE[0], radius=0.1, directions=6, ax=ax),
    "distance_balls": lambda ax: plots.distance_balls(curved(), CODES[0], codes=CODES, directions=8, ax=ax),
    "distance_balls 3": lambda ax: plots.distance_balls(curved(3), SPACE[0], radii=0.2, directions=8, ax=ax),
    "condition_map": lambda ax: plots.condition_map(curved(), CODES, resolution=12, ax=ax),
    "condition_map 3": lambda ax: plots.condition_map(curved(3), SPACE, dims=(0, 2), limit=9.0, ax=ax),
    "condition_map flat": lambda ax: plots.condition_map(FLAT, CODES, resolution=12, ax=ax),
    "curvature_map": lambda ax: plots.curvature_map(curved(), CODES, resolution=12, ax=ax),
    "curvature_map 3": lambda ax: plots.curvature_map(curved(3), SPACE, ax=ax),
    "curvature_map kinks": lambda ax: plots.curvature_map(kinked(), CODES, ax=ax),
    "geodesic_fan kinks": lambda ax: plots.geodesic_fan(kinked(), CODES[0], codes=CODES, ax=ax),
    "distance_balls kinks": lambda ax: plots.distance_balls(kinked(), CODES[0], codes=CODES, ax=ax),
    "path_attribution": lambda ax: plots.path_attribution(shares(), n_features=3, ax=ax),
    "path_attribution picture": lambda ax: plots.path_attribution(shares(), 1, image_shape=(1, 5, 1), ax=ax),
    "latent_map": lambda ax: plots.latent_map(CODES, ax=ax),
    "latent_map categories": lambda ax: plots.latent_map(CODES, CODES[:, 0] > 0, ax=ax),
    "latent_map numbers": lambda ax: plots.latent_map(CODES, CODES[:, 0], metric=curved(), ax=ax),
    "latent_map 1": lambda ax: plots.latent_map(CODES[:, :1], ax=ax),
    "latent_map 5": lambda ax: plots.latent_map(RNG.normal(size=(30, 5)), ax=ax),
    "magnification_map": lambda ax: plots.magnification_map(curved(), CODES, resolution=12, ax=ax),
    "magnification_map 1": lambda ax: plots.magnification_map(curved(1), CODES[:, :1], ax=ax),
    "magnification_map 3": lambda ax: plots.magnification_map(EuclideanMetric(3), SPACE, ax=ax),
    "geodesic_paths": lambda ax: plots.geodesic_paths(ARCS, ax=ax),
    "geodesic_paths metric": lambda ax: plots.geodesic_paths(ARCS, CODES, metric=curved(), ax=ax),
    "geodesic_paths 1": lambda ax: plots.geodesic_paths(ARCS[:, :, :1], CODES[:, :1], ax=ax),
    "decoded_strip pictures": lambda ax: plots.decoded_strip(ROWS, image_shape=(4, 4), ax=ax),
    "decoded_strip table": lambda ax: plots.decoded_strip(ROWS, n_features=5, ax=ax),
    "loss_curves": lambda ax: plots.loss_curves(HISTORY, ax=ax),
    "reconstructions pictures": lambda ax: plots.reconstructions(ROWS, ROWS, image_shape=(1, 4, 4), ax=ax),
    "reconstructions table": lambda ax: plots.reconstructions(ROWS, 0.9 * ROWS, ax=ax),
}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("name", CALLS)
def test_draws_on_the_axes_given(name: str) -> None:
    figure, ax = plt.subplots()
    before = plt.get_fignums()
    assert CALLS[name](ax) is ax
    assert plt.get_fignums() == before
    assert ax.has_data() or ax.texts
    figure.canvas.draw()


@pytest.mark.parametrize("name", CALLS)
def test_makes_a_figure_where_none_is_given(name: str) -> None:
    ax = CALLS[name](None)
    assert isinstance(ax, Axes)
    assert len(plt.get_fignums()) == 1
    assert ax.get_title(loc="left")


def test_latent_map_says_that_it_samples() -> None:
    ax = plots.latent_map(np.zeros((50, 2)) + np.arange(50)[:, None], max_points=20)
    assert ax.get_title(loc="left") == "Latent map (20 of 50 points, sampled)"
    assert len(ax.collections[0].get_offsets()) == 20


def test_latent_map_names_its_labels() -> None:
    ax = plots.latent_map(CODES, np.where(CODES[:, 0] > 0, "right", "left"), label_name="side")
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["left", "right"]
    assert legend.get_title().get_text() == "side"


def test_geodesic_paths_draws_both_ways() -> None:
    ax = plots.geodesic_paths(torch.as_tensor(ARCS))
    solid = [line for line in ax.lines if line.get_linestyle() == "-"]
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(solid) == len(dashed) == 2
    np.testing.assert_allclose(solid[0].get_xydata(), ARCS[0])
    np.testing.assert_allclose(dashed[1].get_xydata(), ARCS[1][[0, -1]])
    assert len(plots.geodesic_paths(ARCS, straight=False).lines) == 2


def test_decoded_strip_standardises_by_the_data() -> None:
    rows = np.array([[0.0, 10.0, 1.0], [2.0, 10.0, 1.5]])
    ax = plots.decoded_strip(
        rows,
        feature_names=["a", "b", "c"],
        scale=np.array([1.0, 1.0, 0.1]),
        centre=np.array([1.0, 10.0, 1.0]),
        n_features=2,
    )
    assert [text.get_text() for text in ax.get_yticklabels()] == ["c", "a"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.0, 5.0], [-1.0, 1.0]], atol=1e-12)


def test_loss_curves_choose_terms() -> None:
    assert [line.get_label() for line in plots.loss_curves(HISTORY).lines] == ["loss", "loss, validation"]
    assert [line.get_label() for line in plots.loss_curves(HISTORY, terms=["kl"]).lines] == ["kl"]


@pytest.mark.parametrize(
    ("ends", "texts"),
    [
        ((-2.1, 1.1), ["×0.01", "×0.1", "×1", "×10"]),
        ((-0.5, 0.5), ["×0.5", "×1", "×2"]),
        ((-0.25, 0.25), ["×0.7", "×1", "×1.5"]),
    ],
)
def test_ticks_are_round_factors(ends: tuple[float, float], texts: list[str]) -> None:
    assert [factor_text(tick) for tick in factor_ticks(*ends)] == texts


def test_a_narrow_scale_has_ticks_too() -> None:
    ticks = factor_ticks(-0.09, 0.09)
    assert 3 <= len(ticks) <= 8
    assert 0.0 in ticks


def test_limits_of_the_scale_leave_out_what_is_off_the_data() -> None:
    relative = np.concatenate([np.linspace(-1, 1, 101), [9.0, -np.inf]])
    low, high = relative_limits(relative, relative > 5)
    assert low == pytest.approx(-0.98)
    assert high == pytest.approx(0.98)
    assert relative_limits(np.zeros(4), np.zeros(4, dtype=bool)) == (-0.25, 0.25)
    assert relative_limits(np.full(3, np.nan), np.zeros(3, dtype=bool)) == (-0.25, 0.25)


BAD: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("flat codes", lambda: plots.latent_map(np.zeros(5)), ValueError, r"expected numbers of shape \(n"),
    ("NaN", lambda: plots.latent_map([[0.0, np.nan]]), ValueError, "finite numbers, got nan at row 0"),
    ("labels", lambda: plots.latent_map(CODES, [1, 2]), ValueError, "one label for each of the 60 rows"),
    ("no rows", lambda: plots.latent_map(np.zeros((0, 2))), ValueError, "at least one number"),
    ("flat paths", lambda: plots.geodesic_paths(CODES), ValueError, r"paths: .* shape \(pairs, nodes, d\)"),
    ("widths", lambda: plots.geodesic_paths(ARCS, SPACE), ValueError, r"codes: expected \(n, 2\)"),
    ("image", lambda: plots.decoded_strip(ROWS, image_shape=(5, 5)), ValueError, "with product 16"),
    ("history", lambda: plots.loss_curves([1.0]), TypeError, "a fitted model or a mapping"),
    ("no curves", lambda: plots.loss_curves({}), ValueError, "at least one term"),
    ("term", lambda: plots.loss_curves(HISTORY, terms=["k"]), ValueError, "some of loss, kl, got 'k'"),
    ("names", lambda: plots.geodesic_paths(ARCS, names=["a"]), ValueError, "each of the 2 paths, got 1"),
    ("one dimension", lambda: plots.indicatrices(curved(1), CODES[:, :1]), ValueError, "at least 2 latent"),
    ("limit", lambda: plots.condition_map(curved(), CODES, limit=1.0), ValueError, "limit: .* above 1, got"),
    ("no limit", lambda: plots.condition_map(curved(), CODES, limit=np.nan), ValueError, "limit: expected"),
    ("one condition", lambda: plots.condition_map(curved(1), CODES[:, :1]), ValueError, "at least 2 latent"),
    ("no metric", lambda: plots.condition_map(3, CODES), TypeError, "metric: expected an object with tensor"),
    ("dims", lambda: plots.curvature_map(curved(3), SPACE, dims=(0, 3)), ValueError, "dims: .* from 0 to 2"),
    ("same dims", lambda: plots.indicatrices(curved(3), SPACE, dims=(1, 1)), ValueError, "two different"),
    ("number", lambda: plots.indicatrices(curved(), CODES, number=0), ValueError, "number: expected"),
    ("step", lambda: plots.indicatrices(curved(), CODES, radius=-1.0), ValueError, "radius: expected"),
    ("places", lambda: plots.indicatrices(curved(), CODES, at=SPACE), ValueError, r"at: expected \(k, 2\)"),
    ("metric", lambda: plots.curvature_map(3, CODES), TypeError, "metric: expected an object with tensor"),
    ("point", lambda: plots.geodesic_fan(curved(), CODES), ValueError, r"point: .* shape \(d,\)"),
    ("point width", lambda: plots.geodesic_fan(curved(), CODES[0], codes=SPACE), ValueError, "like point"),
    ("one point", lambda: plots.geodesic_fan(curved(1), [0.0]), ValueError, "point: expected at least 2"),
    ("no length", lambda: plots.geodesic_fan(curved(), CODES[0]), ValueError, "radius: expected a length"),
    ("no radii", lambda: plots.distance_balls(curved(), CODES[0]), ValueError, "radii: expected a length"),
    ("radii", lambda: plots.distance_balls(curved(), CODES[0], radii=[1, -2]), ValueError, "positive"),
    ("flat", lambda: plots.geodesic_fan(FLAT, [0.0, 0.0], radius=1.0), ValueError, "point: .* degenerate"),
    ("shares", lambda: plots.path_attribution(ARCS), TypeError, "shares: expected EnergyShares"),
    ("path", lambda: plots.path_attribution(shares(), 2), ValueError, "path: expected a number below 2"),
    ("features", lambda: plots.path_attribution(shares(), feature_names="ab"), ValueError, "5 names, got 2"),
    ("pixels", lambda: plots.path_attribution(shares(), image_shape=(2, 2)), ValueError, "with product 5"),
    ("shapes", lambda: plots.reconstructions(ROWS, ROWS[:3]), ValueError, r"expected shape \(12, 16\)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
@pytest.mark.usefixtures("as_users_run")
def test_bad_input(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_strip_shows_the_features_that_are_asked_for():
    rows = np.linspace(0, 1, 5)[:, None] * np.array([1.0, 100.0, 0.01])
    ax = plots.decoded_strip(rows, feature_names=["a", "b", "c"], features=[2, 0])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c", "a"]
    largest = plots.decoded_strip(rows, feature_names=["a", "b", "c"], n_features=1)
    assert [label.get_text() for label in largest.get_yticklabels()] == ["b"]
    with pytest.raises(ValueError, match="features: expected numbers from 0 to 2"):
        plots.decoded_strip(rows, features=[3])
