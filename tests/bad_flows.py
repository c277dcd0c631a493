"""Rows of the table of bad input: models with a flow, their metric, and the dynamics under them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import pullback as pb
from pullback import dynamics, models
from pullback.models import select_centroids, training_step

NAN = float("nan")
POINTS = torch.zeros(4, 2)
WIDE = torch.zeros(4, 3)
TABLE = torch.arange(60.0).reshape(12, 5).numpy()
NET = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
METRIC = pb.PullbackMetric(NET)
LEARNED = pb.CentroidMetric(POINTS, torch.zeros(4, 2, 2), temperature=1.0, regularization=0.1)
ROWS = torch.ones(4, 5)
slope = models.potential_energy_gradient


def hvae(**options: Any) -> models.HVAE:
    return models.HVAE(small(), **options)


def energy(z: Any = POINTS, rho: Any = POINTS, metric: Any = METRIC, potential: Any = None) -> Any:
    return dynamics.hamiltonian(z, rho, metric, potential=potential or parabola)


def small() -> models.VAE:
    return models.VAE(nn.Linear(5, 4), nn.Linear(2, 5), models.Bernoulli())


def flat() -> models.HVAE:
    return models.HVAE(small())


def learned(*, vae: Any = None, network: Any = None, data: Any = ROWS, **options: Any) -> models.RHVAE:
    network = models.MetricNetwork(5, 2) if network is None else network
    return models.RHVAE(small() if vae is None else vae, network, data, **options)


def wrong_lower() -> models.MetricNetwork:
    network = models.MetricNetwork(5, 5)
    network.lower = nn.Linear(128, 15)
    return network


def flat_bound(**options: Any) -> Any:
    return models.hamiltonian_elbo(flat(), ROWS, **options)


def bound(**options: Any) -> Any:
    return models.riemannian_hamiltonian_elbo(learned(), ROWS, **options)


def warm(beta0: Any, k: int, n_steps: int) -> Any:
    return 1.0


def cold(beta0: Any, k: int, n_steps: int) -> Any:
    return beta0 - k


def force(**options: Any) -> Any:
    return dynamics.hamiltonian_gradient(POINTS, POINTS, METRIC, potential=parabola, **options)


def step(function: Callable[..., Any], *metric: Any, **options: Any) -> Any:
    return function(POINTS, POINTS, *metric, **({"potential": parabola, "step_size": 0.1} | options))


def other_place() -> Any:
    return dynamics.leapfrog(POINTS, POINTS, potential=parabola, step_size=0.1).carry


def curved_step(z: Any = POINTS, rho: Any = POINTS, **options: Any) -> Any:
    settings = {"potential": parabola, "step_size": 0.1} | options
    return dynamics.generalized_leapfrog(z, rho, LEARNED, **settings)


def flow(**options: Any) -> Any:
    return dynamics.tempered_flow(POINTS, METRIC, **({"potential": parabola, "step_size": 0.1} | options))


def model_potential(decoder: Any = None) -> Any:
    return dynamics.ModelPotential(decoder or nn.Linear(2, 5), models.Bernoulli(), ROWS)


def parabola(z: torch.Tensor) -> torch.Tensor:
    return z.square().sum(1) / 2


def spoiled(value: float) -> torch.Tensor:
    points = POINTS.clone()
    points[1, 0] = value
    return points


def fit(cls: Any, **options: Any) -> Any:
    known = {"hidden": (8,), "max_epochs": 1, "progress": False, "random_state": 0}
    return cls(**(known | options)).fit(TABLE)


FLOW_CASES: list[tuple[str, Callable[..., Any], type[Exception], str]] = [
    # models
    ("HVAE module: vae", lambda: models.HVAE(NET), TypeError, "vae: expected a pullback.models.VAE"),
    ("HVAE module: n_steps", lambda: hvae(n_steps=0), ValueError, "n_steps: expected a whole"),
    ("HVAE module: step_size", lambda: hvae(step_size=-1.0), ValueError, "step_size: expected"),
    ("HVAE module: beta0", lambda: hvae(beta0=1.5), ValueError, "in (0, 1], got 1.5"),
    ("HVAE module: tempering", lambda: hvae(tempering=warm), ValueError, "tempering: expected sch"),
    ("HVAE module: cold", lambda: hvae(tempering=cold), ValueError, "tempering: expected positive"),
    ("HVAE module: kind", lambda: hvae(tempering="null"), TypeError, "tempering: expected a func"),
    ("FlowModel: gradient", lambda: hvae(gradient="exact"), ValueError, "'autograd', 'finite'"),
    ("FlowModel: backprop", lambda: hvae(backprop="none"), ValueError, "'exact', 'truncated'"),
    ("FlowModel: fixed points", lambda: hvae(fixed_point_steps=0), ValueError, "fixed_point_steps"),
    ("FlowModel: tolerance", lambda: hvae(tolerance=-1.0), ValueError, "tolerance: expected"),
    ("FlowModel: log_likelihood",
     lambda: flat().log_likelihood(ROWS, method="exact", flow=True), ValueError, "'importance', 'quadr"),
    ("FlowOutput: noise", lambda: flat()(ROWS, torch.zeros(4, 2)), ValueError, "noise: expected (4, 4)"),
    ("RHVAE module: vae", lambda: learned(vae=NET), TypeError, "vae: expected a pullback.models.VAE"),
    ("RHVAE module: network", lambda: learned(network=3), TypeError, "metric_network: expected"),
    ("RHVAE module: width",
     lambda: learned(network=nn.Linear(5, 4)), ValueError, "metric_network: expected (n, 2, 2)"),
    ("RHVAE module: lower",
     lambda: wrong_lower()(torch.zeros(2, 5)), ValueError, "lower: expected d(d-1)/2 = 10"),
    ("RHVAE module: data",
     lambda: learned(data=ROWS[:0]), ValueError, "centroids_data: expected at least one"),
    ("RHVAE module: no tensor",
     lambda: learned(data=[[0.0] * 5]), TypeError, "centroids_data: expected a torch"),
    ("RHVAE module: NaN", lambda: learned(data=ROWS * NAN), ValueError, "centroids_data: expected finite"),
    ("RHVAE module: temperature", lambda: learned(temperature=0.0), ValueError, "temperature: expected"),
    ("RHVAE module: regularization",
     lambda: learned(regularization=0.0), ValueError, "regularization: expected"),
    ("RHVAE module: reduction", lambda: learned(reduction="max"), ValueError, "'mean', 'sum'"),
    ("MetricNetwork: activation",
     lambda: models.MetricNetwork(5, 2, (3, 3), ["relu"]), ValueError, "each of 2"),
    ("MetricNetwork: latent_dim",
     lambda: models.MetricNetwork(5, 0), ValueError, "latent_dim: expected a whole"),
    ("MetricNetwork: limit",
     lambda: models.MetricNetwork(5, 2, max_log_diagonal=0), ValueError, "max_log_diag"),
    ("MetricParts: trunk", lambda: wrong_lower().parts(torch.zeros(2, 5)), ValueError, "lower: expected"),
    ("select_centroids: many", lambda: select_centroids(POINTS, 5), ValueError, "at most 4 centroids"),
    ("select_centroids: method", lambda: select_centroids(POINTS, 2, "mode"), ValueError, "'kmedoids'"),
    ("select_centroids: n", lambda: select_centroids(POINTS, 0), ValueError, "n: expected a whole"),
    ("select_centroids: NaN", lambda: select_centroids(spoiled(NAN), 2), ValueError, "x: expected finite"),
    ("select_centroids: kind", lambda: select_centroids([[0.0]], 1), TypeError, "x: expected a torch"),
    ("hamiltonian_elbo: weights",
     lambda: flat_bound(logp_weights=(1, 1)), ValueError, "(likelihood, position, mom"),
    ("hamiltonian_elbo: x_out",
     lambda: flat_bound(x_out=ROWS[:3]), ValueError, "x_out: expected 4 rows like x, got 3"),
    ("hamiltonian_elbo: n_steps", lambda: flat_bound(n_steps=0), ValueError, "n_steps: expected"),
    ("hamiltonian_elbo: option", lambda: flat_bound(steps=3), TypeError, "steps"),
    ("riemannian_hamiltonian_elbo",
     lambda: bound(logq_weights=(1,)), ValueError, "(posterior, initial_momentum, t"),
    ("riemannian_hamiltonian_elbo: beta0",
     lambda: bound(beta0=0.0), ValueError, "beta0: expected an inverse"),
    ("riemannian_hamiltonian_elbo: metric",
     lambda: bound(metric=NET), TypeError, "wrap a decoder in PullbackMetric"),
    ("riemannian_hamiltonian_elbo: step_size",
     lambda: bound(step_size=torch.ones(3)), ValueError, "step_size: exp"),
    ("Elbo: rows", lambda: bound(x_out=ROWS[:1]), ValueError, "x_out: expected 4 rows"),
    ("training_step: model", lambda: training_step(NET, ROWS, None), TypeError, "model: expected"),
    ("TrainingStep: optimizer", lambda: training_step(learned(), ROWS, 3), TypeError, "optimizer: expected"),
    ("update_metric: model", lambda: models.update_metric(small()), TypeError, "model: expected"),
    ("potential_energy: rows",
     lambda: models.potential_energy(small(), ROWS, POINTS[:3]), ValueError, "z: exp"),
    ("potential_energy: width",
     lambda: models.potential_energy(small(), ROWS, WIDE), ValueError, "z: expected (n, 2)"),
    ("potential_energy_gradient",
     lambda: slope(small(), ROWS, POINTS, method="closest"), ValueError, "'finite'"),
    ("potential_energy_gradient: rows",
     lambda: slope(small(), ROWS, POINTS[:3]), ValueError, "z: expected 4 rows"),
    # dynamics: energies and integrators
    ("hamiltonian: shapes", lambda: energy(rho=WIDE), ValueError, "rho"),
    ("hamiltonian: NaN", lambda: energy(spoiled(NAN)), ValueError, "z: exp"),
    ("hamiltonian: metric", lambda: energy(metric=NET), TypeError, "PullbackMetric"),
    ("hamiltonian: potential", lambda: energy(potential=3), TypeError, "potential: "),
    ("hamiltonian_gradient: wrt", lambda: force(wrt="time"), ValueError, "'position', 'momentum'"),
    ("hamiltonian_gradient: method",
     lambda: force(method="forward"), ValueError, "'closed', 'autograd', 'finite'"),
    ("hamiltonian_gradient: scheme", lambda: force(scheme="back"), ValueError, "'central', 'forward'"),
    ("hamiltonian_gradient: step", lambda: force(method="finite", step=0.0), ValueError, "step: expected"),
    ("leapfrog: step", lambda: step(dynamics.leapfrog, step_size=0.0), ValueError, "step_size: expected"),
    ("leapfrog: shape",
     lambda: step(dynamics.leapfrog, step_size=torch.ones(3)), ValueError, "(2,) or (4, 1)"),
    ("leapfrog: kind",
     lambda: dynamics.leapfrog([0.0], [0.0], potential=parabola, step_size=0.1), TypeError, "z: "),
    ("LeapfrogStep: carry",
     lambda: step(dynamics.leapfrog, carry=other_place()), ValueError, "carry: expected"),
    ("generalized_leapfrog: iterations",
     lambda: curved_step(max_iterations=0), ValueError, "max_iterations: expected"),
    ("generalized_leapfrog: tolerance",
     lambda: curved_step(tolerance=0.0), ValueError, "tolerance: expected"),
    ("generalized_leapfrog: backprop",
     lambda: curved_step(backprop="no"), ValueError, "'exact', 'truncated'"),
    ("generalized_leapfrog: width", lambda: curved_step(z=WIDE, rho=WIDE), ValueError, "z: expected (n, 2)"),
    ("generalized_leapfrog: potential",
     lambda: curved_step(potential=lambda z: z), ValueError, "potential: expected (4,)"),
    ("implicit_momentum_step",
     lambda: step(dynamics.implicit_momentum_step, METRIC, max_iterations=0), ValueError, "max_it"),
    ("implicit_position_step",
     lambda: dynamics.implicit_position_step(POINTS, WIDE, METRIC, step_size=0.1), ValueError, "rho"),
    ("explicit_momentum_step",
     lambda: step(dynamics.explicit_momentum_step, METRIC, gradient="x"), ValueError, "'closed'"),
    ("tempered_flow: beta0",
     lambda: flow(beta0=2.0), ValueError, "beta0: expected an inverse temperature in (0, 1]"),
    ("tempered_flow: n_steps", lambda: flow(n_steps=0), ValueError, "n_steps: expected"),
    ("tempered_flow: fixed points",
     lambda: flow(fixed_point_steps=0), ValueError, "fixed_point_steps: expected"),
    ("tempered_flow: tempering", lambda: flow(tempering=warm), ValueError, "schedule(beta0, 0, K) = beta0"),
    ("tempered_flow: cold", lambda: flow(tempering=cold), ValueError, "positive inverse temperatures"),
    ("tempered_flow: kind", lambda: flow(tempering="null"), TypeError, "tempering: expected a function"),
    ("tempered_flow: noise", lambda: flow(noise=WIDE), ValueError, "noise: expected (4, 2)"),
    ("Flow: step_size", lambda: flow(step_size=-0.1), ValueError, "step_size: expected"),
    ("quadratic_tempering: beta0",
     lambda: dynamics.quadratic_tempering(0.0, 1, 3), ValueError, "beta0: expected"),
    ("quadratic_tempering: k", lambda: dynamics.quadratic_tempering(0.3, 4, 3), ValueError, "k: expected"),
    ("null_tempering: beta0", lambda: dynamics.null_tempering(-1.0, 1, 3), ValueError, "beta0: expected"),
    ("riemannian_logprior",
     lambda: dynamics.riemannian_logprior(POINTS, WIDE, POINTS), ValueError, "inverse, logdet: exp"),
    ("spherical_logprior: kind",
     lambda: dynamics.spherical_logprior([0.0]), TypeError, "z: expected a torch.Tensor"),
    ("ModelPotential: rows", lambda: model_potential()(POINTS[:3]), ValueError, "z: expected 4 rows"),
    ("ModelPotential: decoder", lambda: model_potential(decoder=3), TypeError, "decoder: expected"),
    ("as_potential: kind", lambda: dynamics.as_potential(3), TypeError, "potential: expected a function"),
    ("Potential: shape", lambda: dynamics.as_potential(NET)(POINTS), ValueError, "potential: expected (4,)"),
    # estimators
    ("HVAE: tempering", lambda: fit(pb.HVAE, tempering="cubic"), ValueError, "'quadratic', 'null'"),
    ("HVAE: beta0", lambda: fit(pb.HVAE, beta0=0), ValueError, "beta0: expected an inverse temperature"),
    ("HVAE: n_steps", lambda: fit(pb.HVAE, n_steps=0), ValueError, "n_steps: expected a whole number >= 1"),
    ("HVAE: sample", lambda: fit(pb.HVAE).sample(2, method="volume"), ValueError, "'prior', 'posterior'"),
    ("HVAE: not fitted", lambda: pb.HVAE().sample(2), ValueError, "not fitted"),
    ("RHVAE: n_centroids", lambda: fit(pb.RHVAE, n_centroids=13), ValueError, "expected at most 12"),
    ("RHVAE: centroids",
     lambda: fit(pb.RHVAE, centroids="best"), ValueError, "'kmedoids', 'kmeans', 'random'"),
    ("RHVAE: own centroids",
     lambda: fit(pb.RHVAE, centroids=TABLE[:, :3]), ValueError, "expected 5 features"),
    ("RHVAE: NaN centroids", lambda: fit(pb.RHVAE, centroids=TABLE * NAN), ValueError, "NaN"),
    ("RHVAE: temperature", lambda: fit(pb.RHVAE, temperature=-1.0), ValueError, "temperature: expected"),
    ("RHVAE: regularization",
     lambda: fit(pb.RHVAE, regularization=0), ValueError, "regularization: expected"),
    ("RHVAE: reduction", lambda: fit(pb.RHVAE, reduction="max"), ValueError, "'mean', 'sum'"),
    ("RHVAE: metric_hidden",
     lambda: fit(pb.RHVAE, metric_hidden=8), TypeError, "metric_hidden: expected the w"),
    ("RHVAE: precision", lambda: fit(pb.RHVAE, precision="bf16-mixed"), ValueError, "precision: exp"),
    ("RHVAE: backprop", lambda: fit(pb.RHVAE, backprop="fast"), ValueError, "'exact', 'truncated'"),
    ("RHVAE: fixed points", lambda: fit(pb.RHVAE, fixed_point_steps=0), ValueError, "fixed_point_steps: exp"),
    ("RHVAE: step_size", lambda: fit(pb.RHVAE, step_size=0.0), ValueError, "step_size: expected a finite"),
    ("RHVAE: data", lambda: fit(pb.RHVAE).sample(2, method="posterior"), ValueError, "X: expected the data"),
    ("RHVAE: option",
     lambda: fit(pb.RHVAE).sample(2, options={"n": 1}), ValueError, "options: expected none"),
    ("RHVAE: metric", lambda: fit(pb.RHVAE).metric("flat"), ValueError, "'learned', 'pullback', 'euclidean'"),
]  # fmt: skip
