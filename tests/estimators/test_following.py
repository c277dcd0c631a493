"""Callbacks of the estimators with a decoder; those of `ParametricUMAP` are tested beside it."""

import numpy as np
import pytest

import pullback as pb

X = np.random.default_rng(0).normal(size=(30, 4))
OPTIONS = {"hidden": (8,), "batch_size": 10, "max_epochs": 3, "progress": False, "random_state": 0}


class Diary:
    """A callback that wants to know when a training begins and ends."""

    def __init__(self) -> None:
        self.told: list[tuple[int, float, np.ndarray]] = []
        self.notes: list[str] = []

    def begin(self, X, y) -> None:
        self.notes.append(f"{len(X)} rows")

    def __call__(self, step, loss, estimator) -> None:
        self.told.append((step, loss, estimator.transform(X)))

    def close(self, note) -> None:
        self.notes.append(note)


@pytest.mark.parametrize("cls", [pb.Autoencoder, pb.VAE, pb.HVAE, pb.RHVAE])
def test_a_callback_sees_the_model_and_changes_nothing(cls) -> None:
    diary = Diary()
    model = cls(2, callbacks=diary, **OPTIONS).fit(X)
    assert [step for step, _, _ in diary.told] == [3, 6, 9]
    assert [loss for _, loss, _ in diary.told] == list(model.history_["loss"])
    assert diary.notes == ["30 rows", "finished"]
    codes = [codes for _, _, codes in diary.told]
    assert (codes[0] != codes[1]).any()
    np.testing.assert_array_equal(codes[model.best_epoch_ - 1], model.embedding_)
    np.testing.assert_array_equal(cls(2, **OPTIONS).fit(X).embedding_, model.embedding_)


def test_an_error_of_a_callback_ends_the_training_and_is_told() -> None:
    diary = Diary()

    def fail(step, loss, estimator) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        pb.VAE(2, callbacks=[diary, fail], **OPTIONS).fit(X)
    assert diary.notes == ["30 rows", "stopped by RuntimeError"]


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="callbacks: expected functions"):
        pb.VAE(2, callbacks=3, **OPTIONS).fit(X)
