"""One table over every public function: bad input gives an error that names the argument, and writes nothing.

The rooms' own tests go deeper; `test_every_public_function_is_in_the_table` keeps this one complete.
"""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pullback as pb
from bad_attribution import ATTRIBUTION_CASES
from bad_charts import CHART_CASES
from bad_dictionary import DICTIONARY_CASES
from bad_dictionary_parts import DICTIONARY_PART_CASES
from bad_flows import FLOW_CASES
from bad_plots import PLOT_CASES
from bad_rooms import ROOM_CASES, ROOMS, WITHOUT_ARGUMENTS
from bad_subspaces import SUBSPACE_CASES
from bad_umap import UMAP_CASES

NAN, INF = float("nan"), float("inf")
POINTS = torch.zeros(4, 2)
NET = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
METRIC = pb.PullbackMetric(NET)
COUNTED = pb.ambient.LearnedNegativeBinomial()
KINKED = pb.PullbackMetric(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)))
DROPOUT = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
WIDE = torch.zeros(4, 3)
ACCELERATION = pb.tangential_acceleration
CARRY = pb.parallel_transport
BOX = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
JET = pb.Jet(None, torch.ones(4, 3, 2))
JET2 = pb.Jet(None, torch.ones(4, 3, 2), torch.ones(4, 3, 2, 2))
INFINITE = pb.Jet(None, torch.full((4, 3, 2), INF))
FLAT = pb.Jet(None, torch.zeros(4, 3, 2))
LOW_RANK = pb.IsometryPenalty(ambient=pb.ambient.LowRank(torch.ones(5, 2)))
SOFTMAX = pb.SoftmaxAssignmentSparsityPenalty(k_atoms=2)
SLOPE = SOFTMAX.row_dense_hessian_logit_derivative
RAMP = pb.ScalarWeightSchedule(0.0, 1.0, "linear", steps=3)
PRIOR = pb.UnnormalisedPriorError
DEFAULT = pb.Autoencoder("two", progress=False)
TABLE = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
COUNTS = np.random.default_rng(0).poisson(3.0, size=(40, 5)).astype(np.float32)


def spoiled(value: float, row: int = 1, column: int = 0) -> torch.Tensor:
    points = POINTS.clone()
    points[row, column] = value
    return points


def trained(model: Any, width: int, latent_dim: int) -> Any:
    """The model as if it were of other sizes."""
    other = copy.copy(model)
    other.n_features_in_ = width
    other.transform = lambda X: np.zeros((len(X), latent_dim))
    return other


def spoiled_table(value: float) -> np.ndarray:
    table = TABLE.copy()
    table[3, 2] = value
    return table


def centroid(**options: Any) -> pb.CentroidMetric:
    good = {"centroids": POINTS, "factors": torch.zeros(4, 2, 2), "temperature": 1.0, "regularization": 0.1}
    return pb.CentroidMetric(**(good | options))


def vae(**options: Any) -> pb.VAE:
    return pb.VAE(**({"hidden": (8,), "max_epochs": 1, "progress": False, "random_state": 0} | options))


@pytest.fixture(scope="module")
def fitted() -> pb.VAE:
    return vae().fit(TABLE)


RUN: dict[str, Any] = {"n_steps": 2, "step_size": 0.1}


def parabola(z: torch.Tensor) -> torch.Tensor:
    return z.square().sum(1) / 2


def sampled(**options: Any) -> Any:
    return pb.dynamics.sample_hmc(parabola, POINTS, **(RUN | options))


def curved(metric: Any, **options: Any) -> Any:
    return pb.dynamics.sample_rhmc(parabola, metric, POINTS, **(RUN | options))


def volume_of(**options: Any) -> Any:
    return pb.dynamics.volume_sampler(centroid(), 3, **options)


Case = tuple[str, Callable[..., Any], type[Exception], str]

CASES: list[Case] = [
    # jets
    ("jet: order", lambda: pb.jet(NET, POINTS, order=4), ValueError, "order: expected 0, 1, 2 or 3, got 4"),
    ("jet: rank", lambda: pb.jet(NET, torch.zeros(5)), ValueError, "x: expected"),
    ("jet: whole numbers", lambda: pb.jet(NET, torch.zeros(5, 2).long()), ValueError, "x: expected"),
    ("jet: precision", lambda: pb.jet(NET, POINTS.double()), TypeError, "float64"),
    ("jet: list", lambda: pb.jet(NET, [[0.0, 1.0]]), TypeError, "x: expected"),
    ("jet: train mode", lambda: pb.jet(nn.Sequential(nn.Dropout()), POINTS), ValueError, "eval"),
    ("jet: option", lambda: pb.jet(NET, POINTS, fallback="maybe"), ValueError, "fallback"),
    ("reference_jet: order", lambda: pb.reference_jet(NET, POINTS, order=-1), ValueError, "order"),
    ("directional_jet: shape", lambda: pb.directional_jet(NET, POINTS, torch.zeros(4, 3)), ValueError, "v: "),
    ("directional_jet: order", lambda: pb.directional_jet(NET, POINTS, POINTS, order=9), ValueError, "order"),
    ("contract_hessian: shape", lambda: pb.contract_hessian(NET, POINTS, POINTS), ValueError, "covectors"),
    ("contract_third: shape", lambda: pb.contract_third(NET, POINTS, POINTS), ValueError, "covectors"),
    ("metric_jet: ambient", lambda: pb.metric_jet(NET, POINTS, pb.ambient.Poisson()), TypeError, "ambient"),
    ("tangential_acceleration: shape", lambda: ACCELERATION(NET, POINTS, WIDE), ValueError, "v"),
    ("register_jet_rule: type", lambda: pb.register_jet_rule("Linear", print), TypeError, "module_type"),
    ("local_affine: smooth", lambda: pb.local_affine(NET, POINTS, map="local_linear"), ValueError, "Tanh"),
    ("local_affine: rank", lambda: pb.local_affine(NET, torch.zeros(5)), ValueError, "x: expected"),
    # ambient metrics
    ("ambient.Diagonal", lambda: pb.ambient.Diagonal(torch.tensor([1.0, -1.0])), ValueError, "weight"),
    ("ambient.LowRank", lambda: pb.ambient.LowRank(torch.zeros(3)), ValueError, "factor"),
    ("ambient.Gaussian", lambda: pb.ambient.Gaussian(0.0), ValueError, "sigma"),
    ("ambient.NegativeBinomial", lambda: pb.ambient.NegativeBinomial(-1.0), ValueError, "dispersion"),
    ("ambient.Categorical", lambda: pb.ambient.Categorical(count=0), ValueError, "count"),
    # metrics
    ("EuclideanMetric: dim", lambda: pb.EuclideanMetric(0), ValueError, "dim"),
    ("PullbackMetric: decoder", lambda: pb.PullbackMetric(3), TypeError, "decoder"),
    ("PullbackMetric: train", lambda: pb.PullbackMetric(DROPOUT).tensor(POINTS), ValueError, "eval"),
    ("SumMetric: empty", lambda: pb.SumMetric([]), ValueError, "metrics"),
    ("SumMetric: weight", lambda: -1 * METRIC, ValueError, "weights: expected a finite number > 0"),
    ("SumMetric: kind", lambda: METRIC + NET, TypeError, "wrap a decoder in PullbackMetric"),
    ("SumMetric: dims", lambda: METRIC + pb.EuclideanMetric(3), ValueError, "one latent dimension"),
    ("EnsembleMetric: empty", lambda: pb.EnsembleMetric([]), ValueError, "decoders"),
    ("EnsembleMetric: kind", lambda: pb.EnsembleMetric([NET, 3]), TypeError, "decoders"),
    ("ExpectedPullbackMetric: kind", lambda: pb.ExpectedPullbackMetric(NET, 1.0), TypeError, "scale"),
    ("ConformalMetric: base", lambda: pb.ConformalMetric(NET, torch.sum), TypeError, "metric: expected"),
    ("ConformalMetric: shape", lambda: pb.ConformalMetric(METRIC, NET).tensor(POINTS), ValueError, "factor"),
    ("CentroidMetric: shapes", lambda: centroid(factors=WIDE), ValueError, "factors: expected (4, 2, 2)"),
    ("CentroidMetric: NaN", lambda: centroid(centroids=spoiled(NAN)), ValueError, "centroids"),
    ("CentroidMetric: temperature", lambda: centroid(temperature=0), ValueError, "temperature"),
    ("CentroidMetric: regularization", lambda: centroid(regularization=0), ValueError, "regularization"),
    ("CentroidMetric: reduction", lambda: centroid(reduction="max"), ValueError, "'mean', 'sum'"),
    ("PullbackMetric: pairs", lambda: pb.PullbackMetric(NET, COUNTED).tensor(POINTS), ValueError, "even"),
    ("PullbackMetric: width", lambda: pb.magnification(METRIC, WIDE), ValueError, "expected"),
    # geometry
    ("geodesic: NaN", lambda: pb.geodesic(METRIC, POINTS, spoiled(NAN)), ValueError, "end: "),
    ("geodesic: inf", lambda: pb.geodesic(METRIC, spoiled(INF), POINTS), ValueError, "start: "),
    ("geodesic: lengths", lambda: pb.geodesic(METRIC, POINTS, POINTS[:3]), ValueError, "end: expected"),
    ("geodesic: width", lambda: pb.geodesic(METRIC, WIDE, WIDE), ValueError, "expected"),
    ("geodesic: nodes", lambda: pb.geodesic(METRIC, POINTS, POINTS, nodes=6), ValueError, "nodes"),
    ("geodesic: starts", lambda: pb.geodesic(METRIC, POINTS, POINTS, starts=("walk",)), ValueError, "'line'"),
    ("geodesic: metric", lambda: pb.geodesic(NET, POINTS, POINTS), TypeError, "wrap a decoder"),
    ("geodesic: strings", lambda: pb.geodesic(METRIC, "a", "b"), TypeError, "start: expected"),
    ("distance: lengths", lambda: pb.distance(METRIC, POINTS, POINTS[:3]), ValueError, "expected"),
    ("certify: nodes", lambda: pb.certify(METRIC, POINTS), ValueError, "path: expected at least 5 nodes"),
    ("certify: width", lambda: pb.certify(METRIC, torch.zeros(2, 9, 3)), ValueError, "path: expected"),
    ("certify: metric", lambda: pb.certify(NET, torch.zeros(2, 9, 2)), TypeError, "metric: expected"),
    ("certify: gap_tol", lambda: pb.certify(METRIC, torch.zeros(2, 9, 2), gap_tol=0), ValueError, "gap_tol"),
    ("curvature: NaN", lambda: pb.curvature(METRIC, spoiled(NAN)), ValueError, "z: expected finite"),
    ("curvature: width", lambda: pb.curvature(METRIC, WIDE), ValueError, "z: expected (n, 2)"),
    ("curvature: metric", lambda: pb.curvature(NET, POINTS), TypeError, "metric: expected"),
    ("curvature: kinks", lambda: pb.curvature(KINKED, POINTS, strict=True), ValueError, "ReLU at layer 1"),
    ("christoffel: inf", lambda: pb.christoffel(METRIC, spoiled(INF)), ValueError, "z: expected finite"),
    ("christoffel: rank", lambda: pb.christoffel(METRIC, torch.zeros(2)), ValueError, "z: expected"),
    ("christoffel: metric", lambda: pb.christoffel(NET, POINTS), TypeError, "metric: expected"),
    ("curve_length: rank", lambda: pb.curve_length(METRIC, POINTS[0]), ValueError, "points"),
    ("curve_energy: one node", lambda: pb.curve_energy(METRIC, torch.zeros(1, 1, 2)), ValueError, "points"),
    ("magnification: NaN", lambda: pb.magnification(METRIC, spoiled(NAN)), ValueError, "z: expected finite"),
    ("magnification: metric", lambda: pb.magnification(NET, POINTS), TypeError, "metric: expected"),
    ("flatness: rank", lambda: pb.flatness(METRIC, torch.zeros(2)), ValueError, "z: expected"),
    ("volume: box", lambda: pb.volume(METRIC, torch.zeros(2, 3)), ValueError, "box"),
    ("volume: method", lambda: pb.volume(METRIC, BOX, method="dice"), ValueError, "'grid'"),
    # distances and shares
    ("distance_matrix: NaN", lambda: pb.distance_matrix(METRIC, spoiled(NAN)), ValueError, "z: expected"),
    ("distance_matrix: width", lambda: pb.distance_matrix(METRIC, POINTS, WIDE), ValueError, "other: "),
    ("distance_matrix: way", lambda: pb.distance_matrix(METRIC, POINTS, method="rod"), ValueError, "'graph'"),
    ("distance_matrix: metric", lambda: pb.distance_matrix(NET, POINTS), TypeError, "wrap a decoder"),
    ("distance_matrix: bar", lambda: pb.distance_matrix(METRIC, POINTS, progress=3), TypeError, "progress"),
    ("distance_matrix: known", lambda: pb.distance_matrix(METRIC, POINTS, known=POINTS), TypeError, "known"),
    ("nearest_neighbours: k", lambda: pb.nearest_neighbours(METRIC, POINTS, k=4), ValueError, "the 3"),
    ("nearest_neighbours: list", lambda: pb.nearest_neighbours(METRIC, [[0.0]]), TypeError, "z: expected"),
    ("energy_shares: one node", lambda: pb.energy_shares(METRIC, POINTS[:1]), ValueError, "path: "),
    ("energy_shares: by", lambda: pb.energy_shares(METRIC, POINTS, by="gene"), ValueError, "'factor'"),
    ("energy_shares: factor", lambda: pb.energy_shares(METRIC, POINTS, by="factor"), ValueError, "LowRank"),
    (
        "energy_shares: names",
        lambda: pb.energy_shares(METRIC, POINTS, feature_names=["a"]),
        ValueError,
        "feature_names: expected 3 names",
    ),
    (
        "shares_of_difference: paths",
        lambda: pb.shares_of_difference(METRIC, POINTS, POINTS.expand(2, 4, 2)),
        ValueError,
        "path_b: expected 1 paths",
    ),
    ("geodesic_stress: row", lambda: pb.geodesic_stress(METRIC, POINTS, [(0, 1), (0, 9)]), ValueError, "row"),
    ("frechet_mean: weights", lambda: pb.frechet_mean(METRIC, POINTS, POINTS[:, 0] - 1), ValueError, "weigh"),
    ("frechet_mean: none", lambda: pb.frechet_mean(METRIC, POINTS, POINTS[:, 0]), ValueError, "weights: "),
    ("frechet_mean: NaN", lambda: pb.frechet_mean(METRIC, spoiled(NAN)), ValueError, "z: expected finite"),
    ("geodesic_kmeans: k", lambda: pb.geodesic_kmeans(METRIC, POINTS, 0), ValueError, "n_clusters: expected"),
    ("geodesic_kmeans: many", lambda: pb.geodesic_kmeans(METRIC, BOX, 3), ValueError, "n_clusters: expected"),
    ("tangent_pca: width", lambda: pb.tangent_pca(METRIC, WIDE), ValueError, "z: expected"),
    ("tangent_pca: count", lambda: pb.tangent_pca(METRIC, BOX, n_components=3), ValueError, "n_components"),
    ("geodesic_stress: one", lambda: pb.geodesic_stress(METRIC, POINTS, [(0, 1)]), ValueError, "two"),
    (
        "distance_stability: one",
        lambda: pb.distance_stability([METRIC], [POINTS], [POINTS]),
        ValueError,
        "metrics: expected at least two",
    ),
    (
        "distance_stability: ends",
        lambda: pb.distance_stability([METRIC, METRIC], [POINTS, POINTS], [POINTS]),
        ValueError,
        "ends: expected codes for each of 2",
    ),
    # penalties
    ("IsometryPenalty: jet", lambda: pb.IsometryPenalty().value(POINTS), pb.MissingJetError, "decoder="),
    ("IsometryPenalty: factor", lambda: LOW_RANK.value(JET), ValueError, "pass a factor U, not W"),
    ("IsometryPenalty: flat", lambda: pb.IsometryPenalty().value(FLAT), pb.DegenerateMetricError, "vanish"),
    ("IsometryPenalty: inf", lambda: pb.IsometryPenalty().value(INFINITE), ValueError, "jacobian: expected"),
    ("IsometryPenalty: rho", lambda: pb.IsometryPenalty().value(JET, 999.0), ValueError, "rho: expected"),
    ("IsometryPenalty: latents", lambda: pb.IsometryPenalty(latents="all"), ValueError, "policy: expected"),
    ("IsometryPenalty: GN", lambda: pb.IsometryPenalty(-1.0).curvature(JET2), ValueError, "'loewner'"),
    ("IsometryPenalty: prior", lambda: pb.IsometryPenalty().log_normalizer(0, 3), PRIOR, "schedule"),
    ("IsometryPenalty: target", lambda: pb.IsometryPenalty().value([[0.0]]), TypeError, "target: expected"),
    ("IsometryPenalty: source", lambda: pb.IsometryPenalty(source=3), TypeError, "source: expected"),
    ("Softmax: rows", lambda: SOFTMAX.evaluate([[0.0, 1.0]]), TypeError, "target: expected"),
    ("Softmax: temperature", lambda: pb.SoftmaxAssignmentSparsityPenalty(0.0), ValueError, "temperature"),
    ("Softmax: NaN", lambda: SOFTMAX.value(spoiled(NAN)), ValueError, "NaN or +inf in row 1"),
    ("Softmax: +inf", lambda: SOFTMAX.value(spoiled(INF)), ValueError, "NaN or +inf in row 1"),
    ("Softmax: -inf", lambda: SOFTMAX.value(POINTS - INF), ValueError, "-inf only in row 0"),
    ("Softmax: atoms", lambda: pb.SoftmaxAssignmentSparsityPenalty(k_atoms=0), ValueError, "k_atoms"),
    ("Softmax: width", lambda: SOFTMAX.value(WIDE), ValueError, "expected (n, 2)"),
    ("Softmax: atom", lambda: SLOPE(POINTS, 1.0, 2), IndexError, "0 .. 1"),
    ("Softmax: scale", lambda: SOFTMAX.row_dense_hessian(POINTS, INF), ValueError, "scale: expected"),
    ("ScalarWeightSchedule: kind", lambda: pb.ScalarWeightSchedule(0, 1, "cubic"), ValueError, "'linear'"),
    ("ScalarWeightSchedule: step", lambda: RAMP(-1), ValueError, "it: expected"),
    ("DuchonRadialSource: rows", lambda: pb.DuchonRadialSource(POINTS, WIDE[:3]), ValueError, "row a centre"),
    ("LatentSampling: rows", lambda: pb.LatentSampling(rows=2.0), ValueError, "at most 1.0"),
    ("ARDPenalty: weight", lambda: pb.ARDPenalty(2, -1.0), ValueError, "weight: expected"),
    ("NuclearNormPenalty: rank", lambda: pb.NuclearNormPenalty(max_rank=0), ValueError, "max_rank: "),
    ("DecoderIncoherence: none", lambda: pb.DecoderIncoherencePenalty([]), ValueError, "block_sizes: "),
    ("SumPenalty: members", lambda: pb.SumPenalty([3]), TypeError, "members: expected penalties"),
    ("VAE: penalties", lambda: vae(penalties=[3]).fit(TABLE), TypeError, "penalties: expected objects"),
    ("exponential_map: shape", lambda: pb.exponential_map(METRIC, POINTS, WIDE), ValueError, "v: expected"),
    ("exponential_map: NaN", lambda: pb.exponential_map(METRIC, POINTS, spoiled(NAN)), ValueError, "row 1"),
    ("exponential_map: tol", lambda: pb.exponential_map(METRIC, POINTS, POINTS, tol=0), ValueError, "tol: "),
    ("exponential_map: metric", lambda: pb.exponential_map(NET, POINTS, POINTS), TypeError, "wrap a decoder"),
    ("logarithm_map: lengths", lambda: pb.logarithm_map(METRIC, POINTS, POINTS[:3]), ValueError, "b: expec"),
    ("logarithm_map: inf", lambda: pb.logarithm_map(METRIC, spoiled(INF), POINTS), ValueError, "a: expected"),
    ("logarithm_map: nodes", lambda: pb.logarithm_map(METRIC, POINTS, POINTS, nodes=6), ValueError, "nodes"),
    ("parallel_transport: node", lambda: CARRY(METRIC, BOX[:1], BOX[0]), ValueError, "path: "),
    ("parallel_transport: shape", lambda: CARRY(METRIC, BOX, WIDE[0]), ValueError, "v: expec"),
    ("parallel_transport: NaN", lambda: CARRY(METRIC, BOX, BOX[0] * NAN), ValueError, "v: exp"),
    (
        "parallel_transport: method",
        lambda: CARRY(METRIC, BOX, BOX[0], method="glue"),
        ValueError,
        "'pole_ladder'",
    ),
    (
        "parallel_transport: ladder",
        lambda: CARRY(METRIC, BOX, BOX[0], method="pole_ladder"),
        ValueError,
        "expected a Geodesic",
    ),
    # dynamics
    ("sample_hmc: start", lambda: pb.dynamics.sample_hmc(parabola, spoiled(NAN), **RUN), ValueError, "row 1"),
    ("sample_hmc: potential", lambda: pb.dynamics.sample_hmc(3, POINTS, **RUN), TypeError, "potential: "),
    ("sample_hmc: n_steps", lambda: sampled(n_steps=0), ValueError, "n_steps: expected a whole number >= 1"),
    ("sample_hmc: step_size", lambda: sampled(step_size=INF), ValueError, "step_size: expected a finite"),
    ("sample_rhmc: metric", lambda: curved(NET), TypeError, "wrap a decoder in PullbackMetric"),
    ("sample_rhmc: tolerance", lambda: curved(METRIC, tolerance=-1.0), ValueError, "tolerance: expected"),
    ("volume_sampler: n", lambda: pb.dynamics.volume_sampler(centroid(), 0), ValueError, "n: expected"),
    ("volume_sampler: support", lambda: volume_of(support="ball"), ValueError, "'balls', 'box', 'prior'"),
    ("volume_sampler: density", lambda: volume_of(density="mass"), ValueError, "'inverse_volume', 'volume'"),
    ("volume_sampler: radius", lambda: volume_of(radius=-1.0), ValueError, "radius: expected"),
    ("volume_sampler: scale", lambda: pb.dynamics.volume_sampler(METRIC, 3), ValueError, "scale: expected"),
    ("effective_sample_size", lambda: pb.dynamics.effective_sample_size(POINTS), ValueError, "draws: exp"),
    ("split_r_hat: few", lambda: pb.dynamics.split_r_hat(torch.zeros(3, 2, 2)), ValueError, "4 steps, got 3"),
    # estimators
    ("VAE: NaN", lambda: vae().fit(spoiled_table(NAN)), ValueError, "NaN"),
    ("VAE: inf", lambda: vae().fit(spoiled_table(INF)), ValueError, "infinity"),
    ("VAE: empty", lambda: vae().fit(np.zeros((0, 5))), ValueError, "0 sample"),
    ("VAE: one row", lambda: vae().fit(TABLE[:1]), ValueError, "minimum of 2"),
    ("VAE: strings", lambda: vae().fit([["a", "b"], ["c", "d"]]), ValueError, "expected numbers, got text"),
    ("VAE: rank", lambda: vae().fit(TABLE[0]), ValueError, "2D"),
    ("VAE: negative counts", lambda: vae(likelihood="poisson").fit(-COUNTS), ValueError, "counts"),
    ("VAE: fractions", lambda: vae(likelihood="negative_binomial").fit(COUNTS + 0.5), ValueError, "counts"),
    ("VAE: grey pixels", lambda: vae(likelihood="bernoulli").fit(COUNTS / 30), ValueError, "binarise"),
    ("VAE: likelihood", lambda: vae(likelihood="gausian").fit(TABLE), ValueError, "'gaussian'"),
    ("VAE: scale", lambda: vae(scale="unit").fit(TABLE), ValueError, "'standard'"),
    ("VAE: latent_dim", lambda: vae(latent_dim=0).fit(TABLE), ValueError, "latent_dim"),
    ("VAE: max_epochs", lambda: vae(max_epochs=0).fit(TABLE), ValueError, "max_epochs"),
    ("VAE: lr", lambda: vae(lr=-1.0).fit(TABLE), ValueError, "lr"),
    ("VAE: batch_size", lambda: vae(batch_size=0).fit(TABLE), ValueError, "batch_size"),
    ("VAE: activation", lambda: vae(activation="swoosh").fit(TABLE), ValueError, "activation"),
    ("VAE: encoder", lambda: vae(encoder=nn.Linear(5, 3)).fit(TABLE), ValueError, "encoder"),
    ("VAE: decoder", lambda: vae(decoder=nn.Linear(2, 4)).fit(TABLE), ValueError, "decoder"),
    ("VAE: validation", lambda: vae(validation_fraction=1.0).fit(TABLE), ValueError, "validation_fraction"),
    ("Autoencoder: NaN", lambda: pb.Autoencoder(progress=False).fit(spoiled_table(NAN)), ValueError, "NaN"),
    ("Autoencoder: latent_dim", lambda: DEFAULT.fit(TABLE), TypeError, "latent_dim"),
    ("VAE: not fitted", lambda: vae().transform(TABLE), ValueError, "not fitted"),
    ("load: absent", lambda: pb.load("no/such/folder"), FileNotFoundError, "config.json"),
    ("register_module: class", lambda: pb.register_module("mine", 3), TypeError, "expected"),
    # data
    ("data.load: name", lambda: pb.data.load("digit"), ValueError, "did you mean 'digits'"),
    ("data.load: option", lambda: pb.data.load("digits", layer="x"), TypeError, "layer"),
    ("data.resolve: absent", lambda: pb.data.resolve("no/such.csv"), FileNotFoundError, "no such file"),
    ("data.read_table: suffix", lambda: pb.data.read_table("table.xyz"), ValueError, ".csv"),
    ("data.install_line: name", lambda: pb.data.install_line("nothing"), ValueError, "'digits'"),
]  # fmt: skip

ON_FITTED: list[Case] = [
    ("transform: width", lambda m: m.transform(TABLE[:, :3]), ValueError, "3 features"),
    ("transform: NaN", lambda m: m.transform(spoiled_table(NAN)), ValueError, "NaN"),
    ("inverse_transform: width", lambda m: m.inverse_transform(TABLE), ValueError, "expected (n, 2)"),
    ("score: width", lambda m: m.score(TABLE[:, :3]), ValueError, "3 features"),
    ("sample: number", lambda m: m.sample(0), ValueError, "n_samples"),
    ("sample: method", lambda m: m.sample(3, method="dream"), ValueError, "'prior'"),
    ("sample: observe", lambda m: m.sample(3, observe="both"), ValueError, "'mean'"),
    ("metric: kind", lambda m: m.metric("learned"), ValueError, "'pullback'"),
    ("diagnose: width", lambda m: pb.diagnose(m, TABLE[:, :3]), ValueError, "features"),
    ("diagnose: labels", lambda m: pb.diagnose(m, TABLE, labels=[1, 2]), ValueError, "labels"),
    ("diagnose: others", lambda m: pb.diagnose(m, TABLE, others=m), TypeError, "others: expected a list"),
    ("diagnose: model", lambda m: pb.diagnose(NET, TABLE), TypeError, "model"),
    ("report: folder", lambda m: pb.report(m, TABLE, "no/such/page.html"), FileNotFoundError, "folder"),
    ("report: before", lambda m: pb.report(m, TABLE, "page.html", before=NET), TypeError, "before: expected"),
    (
        "report: width before",
        lambda m: pb.report(m, TABLE, "page.html", before=trained(m, 4, 2)),
        ValueError,
        "before: expected a model of the same 5 features, got one of 4",
    ),
    (
        "report: latents before",
        lambda m: pb.report(m, TABLE, "page.html", before=trained(m, 5, 3)),
        ValueError,
        "before: expected 2 latent dimensions as in model, got 3",
    ),
    ("report: NaN", lambda m: pb.report(m, spoiled_table(NAN), "page.html"), ValueError, "NaN"),
]


CASES += FLOW_CASES
CASES += ATTRIBUTION_CASES
CASES += UMAP_CASES
CASES += CHART_CASES
CASES += DICTIONARY_CASES
CASES += DICTIONARY_PART_CASES
CASES += PLOT_CASES
CASES += ROOM_CASES
CASES += SUBSPACE_CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
@pytest.mark.usefixtures("as_users_run")
def test_bad_input(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(case[2]) as caught:
        case[1]()
    assert case[3] in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", ON_FITTED, ids=lambda case: case[0])
@pytest.mark.usefixtures("as_users_run")
def test_bad_input_of_a_fitted_model(
    case: Case, fitted: pb.VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(case[2]) as caught:
        case[1](fitted)
    assert case[3] in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_every_public_function_is_in_the_table() -> None:
    named = {case[0].split(":")[0] for case in CASES + ON_FITTED}
    functions = {name for name in pb.__all__ if inspect.isfunction(getattr(pb, name))}
    bare = {name.split(".")[-1] for name in named}
    for room in (*ROOMS, pb.subspaces):
        functions |= {name for name in room.__all__ if inspect.isfunction(getattr(room, name))}
    assert functions - bare <= WITHOUT_ARGUMENTS
    assert {"FlowModel", "FlowOutput", "MetricNetwork", "MetricParts", "TrainingStep", "Elbo"} <= named
    assert {"Flow", "LeapfrogStep", "ModelPotential", "Potential"} <= named
