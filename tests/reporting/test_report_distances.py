"""Distances of a diagnosis: which pairs, how the ruler does, and how stable they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.geometry import distance_matrix, flatness
from pullback.metrics import EuclideanMetric, from_tensor
from pullback.reporting import diagnose
from pullback.reporting import distances as module
from pullback.reporting.distances import flatness_measures, random_pairs, ruler_measures, stability_measures
from pullback.reporting.evidence import gather

Make = Callable[..., Any]


def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("n", "count"), [(0, 5), (1, 5), (2, 5), (4, 6), (9, 20), (500, 100), (100_000, 300)]
)
def test_pairs_are_different_and_ordered(n: int, count: int) -> None:
    pairs = random_pairs(n, count, random())
    assert len(pairs) == min(count, n * (n - 1) // 2)
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(pairs) == 0 or (pairs.min() >= 0 and pairs.max() < n)


def test_every_pair_can_be_drawn() -> None:
    drawn = {tuple(pair) for k in range(60) for pair in random_pairs(7, 8, np.random.default_rng(k)).tolist()}
    assert drawn == {(i, j) for i in range(7) for j in range(i + 1, 7)}


def test_the_ruler_is_right_on_a_flat_map() -> None:
    z = random().normal(size=(30, 2))
    seen = ruler_measures(EuclideanMetric(2), z, random())
    assert seen["stress"] == pytest.approx(0, abs=1e-6)
    assert seen["pearson"] == pytest.approx(1)
    assert seen["spearman"] == pytest.approx(1)
    assert seen["stress_pairs"] == seen["stress_certified"] == module.STRESS_PAIRS


def test_a_metric_without_an_embedding_is_measured_on_fewer_pairs() -> None:
    metric = from_tensor(lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2), 2)
    seen = ruler_measures(metric, random().normal(size=(30, 2)), random())
    assert seen["stress_pairs"] == module.STRESS_PAIRS // module.FEWER
    assert seen["stress"] == pytest.approx(0, abs=1e-6)


def test_many_dimensions_are_measured_on_fewer_pairs() -> None:
    seen = ruler_measures(EuclideanMetric(16), random().normal(size=(30, 16)), random())
    assert seen["stress_pairs"] == seen["stress_certified"] == module.STRESS_PAIRS // 2
    assert seen["stress"] == pytest.approx(0, abs=1e-6)


def walled(z: torch.Tensor) -> torch.Tensor:
    """The plane without the strip 1 < x < 2."""
    inside = (z[:, 0] > 1) & (z[:, 0] < 2)
    return torch.where(inside[:, None, None], torch.nan, torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2))


def test_pairs_that_nothing_joins_are_left_out_of_the_stress() -> None:
    z = random().normal(size=(12, 2)) * 0.3
    z[6:, 0] += 3
    seen = ruler_measures(from_tensor(walled, 2), z, random())
    assert 0 < seen["stress_certified"] < seen["stress_pairs"]
    assert seen["stress"] == pytest.approx(0, abs=1e-6)
    apart = ruler_measures(from_tensor(walled, 2), np.array([[0.5, 0.0], [2.5, 0.0], [0.5, 0.0]]), random())
    assert apart["stress"] is None


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_codes_that_do_not_differ_are_not_measured(n: int) -> None:
    seen = ruler_measures(EuclideanMetric(2), np.ones((n, 2)), random())
    assert seen == {
        "stress": None,
        "pearson": None,
        "spearman": None,
        "stress_pairs": 0,
        "stress_certified": 0,
    }


def test_flatness_is_that_of_geometry() -> None:
    z = random().normal(size=(20, 2))
    metric = pb.PullbackMetric(lambda w: torch.cat([w, w[:, :1] ** 2], dim=1))
    seen, expected = flatness_measures(metric, z), flatness(metric, torch.from_numpy(z))
    assert seen["metric_variance"] == expected.variance
    assert seen["metric_distortion"] == expected.distortion
    assert seen["logdet_variance"] == expected.logdet_variance
    assert set(flatness_measures(metric, z[:0]).values()) == {None}


def test_a_model_agrees_with_itself_and_not_with_another(bent: Make) -> None:
    model = bent()
    X = model.data(40)
    evidence = gather(model, X)
    same = stability_measures(evidence, [model], X, random())
    counts = {"trainings": 2, "stability_pairs": 50, "stability_certified": 50}
    assert same == {"stability": pytest.approx(0, abs=1e-9), **counts}
    other = bent()
    other.module_[2].weight.data *= 2
    twice = stability_measures(evidence, [model, other], X, random())
    # Distances 1, 1 and 2, near enough: the codes of the other are those of the first.
    assert twice["stability"] == pytest.approx(np.std([1, 1, 2], ddof=1) / (4 / 3), rel=1e-3)
    assert twice["trainings"] == 3


def test_a_decoder_that_ignores_its_code_leaves_no_pairs(bent: Make) -> None:
    model, dead = bent(), bent()
    dead.module_[0].weight.data.zero_()
    X = model.data(30)
    seen = stability_measures(gather(model, X), [dead], X, random())
    assert seen == {"stability": None, "trainings": 2, "stability_pairs": 0, "stability_certified": 0}
    diagnosis = diagnose(dead, X)
    assert diagnosis["ruler"].value is None
    assert diagnosis.measures.metric_distortion is None


def test_a_diagnosis_takes_other_trainings(bent: Make) -> None:
    model = bent()
    diagnosis = diagnose(model, model.data(60), n_geodesics=2, others=[bent()])
    assert diagnosis["stability"].verdict == "pass"
    assert diagnosis.measures.trainings == 2
    z = torch.from_numpy(model.transform(model.data(60)).astype(np.float64))
    d = distance_matrix(model.metric(dtype=torch.float64), z)[np.triu_indices(60, 1)]
    ruler = torch.pdist(z)
    pearson = float(torch.corrcoef(torch.stack([d, ruler]))[0, 1])
    assert diagnosis.measures.pearson == pytest.approx(pearson, abs=0.05)


def test_others_are_checked_before_anything_is_computed(bent: Make) -> None:
    model = bent()
    with pytest.raises(TypeError, match=r"others\[0\]: expected a fitted model"):
        diagnose(model, model.data(20), others=[3])
