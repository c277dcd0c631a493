"""The loop: it learns, stops honestly, survives failure and interruption, and touches nothing global."""

import math
import os
import pickle
import signal
import threading

import pytest
import torch
from torch import nn

from pullback.models import MLP, VAE, Autoencoder, Gaussian
from pullback.training import LinearWarmup, Objective, TrainingOptions, fit
from training.scenarios import rows, vae

QUIET = {"progress": False, "batch_size": 32}


def linear_autoencoder(dtype=torch.float32, p=6):
    generator = torch.Generator().manual_seed(2)
    return Autoencoder(
        MLP(p, 2, hidden=(), generator=generator), MLP(2, p, hidden=(), generator=generator), Gaussian()
    ).to(dtype)


def plane(n, dtype=torch.float32, p=6):
    """Points on a plane through the origin with noise 0.1."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 2, generator=generator) @ torch.randn(2, p, generator=generator)
    return (x + 0.1 * torch.randn(n, p, generator=generator)).to(dtype)


def test_a_linear_autoencoder_finds_the_principal_plane(dtype):
    x = plane(400, dtype)
    model = linear_autoencoder(dtype)
    options = TrainingOptions(max_epochs=150, lr=0.02, lr_schedule="cosine", **QUIET)
    result = fit(Objective(model), x, options, generator_seed=0)
    centred = x - x.mean(0)
    lost = torch.linalg.svdvals(centred)[2:].square().sum() / len(x)
    error = (model.reconstruct(x) - x).square().sum(1).mean()
    assert model.reconstruct(x).dtype == dtype
    assert error.item() <= 1.02 * lost.item()
    assert result.converged
    assert result.history["loss"][-1] < result.history["loss"][0]


def test_early_stopping_restores_the_best_weights():
    model = vae()
    seen = {}

    def remember(summary):
        if summary.best:
            seen["best"] = {name: value.clone() for name, value in model.state_dict().items()}

    options = TrainingOptions(max_epochs=500, lr=0.02, patience=5, **QUIET)
    result = fit(
        Objective(model),
        rows(60),
        options,
        validation=rows(300)[200:],
        generator_seed=0,
        callbacks=[remember],
    )
    losses = result.history["validation/loss"]
    assert result.converged
    assert len(losses) < 500
    assert result.message == (
        f"stopped early at epoch {len(losses)}; no better loss since epoch {result.best_epoch}, "
        "whose weights are kept"
    )
    assert result.best_loss == min(losses) == losses[result.best_epoch - 1]
    assert len(losses) - result.best_epoch == 5
    for name, value in model.state_dict().items():
        assert torch.equal(value, seen["best"][name])
    assert not model.training


def test_warm_up_does_not_make_an_early_epoch_the_best():
    """Losses that decide are taken with the weights that the schedule ends with."""
    objective = Objective(vae(), weights={"kl": LinearWarmup(40)})
    result = fit(objective, rows(120), TrainingOptions(max_epochs=30, lr=3e-3, **QUIET), generator_seed=0)
    history = result.history
    for total, reconstruction, kl in zip(
        history["loss"], history["reconstruction"], history["kl"], strict=True
    ):
        assert total == pytest.approx(reconstruction + kl, rel=1e-6)
    assert result.best_epoch > 10


def test_a_run_depends_on_its_seed_alone_and_changes_no_global_state():
    def train(seed):
        generator = torch.Generator().manual_seed(0)
        net = MLP(12, 4, hidden=(8,), dropout=0.3, generator=generator)
        model = VAE(net, MLP(2, 12, hidden=(8,), generator=generator), vae().likelihood)
        fit(Objective(model), rows(80), TrainingOptions(max_epochs=3, **QUIET), generator_seed=seed)
        return torch.cat([value.flatten() for value in model.state_dict().values()])

    before = torch.get_rng_state()
    first = train(0)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, train(0))
    assert not torch.equal(first, train(1))
    assert torch.get_default_dtype() == torch.float32


class Explodes(nn.Module):
    """A decoder whose output turns into NaN after some calls in training."""

    def __init__(self, calls):
        super().__init__()
        self.in_features, self.left = 2, calls
        self.net = MLP(2, 6, hidden=())

    def forward(self, z):
        if self.training:
            self.left -= 1
        return self.net(z) * (math.nan if self.left < 0 else 1.0)


@pytest.mark.parametrize(("calls", "best"), [(30, 3), (2, 0)])
def test_nan_ends_with_the_best_weights_and_advice(calls, best):
    model = Autoencoder(MLP(6, 2, hidden=()), Explodes(calls), Gaussian())
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    kept = {}

    def remember(summary):
        kept[summary.epoch] = {name: value.clone() for name, value in model.state_dict().items()}

    result = fit(
        Objective(model),
        plane(256),
        TrainingOptions(max_epochs=10, **QUIET),
        generator_seed=0,
        callbacks=[remember],
    )
    assert not result.converged
    assert result.best_epoch == best
    assert "Try a lower lr (now 0.001), gradient_clip=1.0, or data scaled to unit variance" in result.message
    expected = kept[best] if best else initial
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_a_diverging_loss_is_caught_while_it_is_finite():
    model = linear_autoencoder()
    options = TrainingOptions(max_epochs=60, lr=30.0, **QUIET)
    result = fit(Objective(model), plane(128), options, generator_seed=0)
    assert not result.converged
    assert "loss rose to" in result.message
    assert "Try a lower lr (now 30)" in result.message
    assert len(result.history["loss"]) < 60
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_signals_end_a_run_with_the_best_so_far(number, name):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    model = vae()

    def interrupt(summary):
        if summary.epoch == 4:
            os.kill(os.getpid(), number)

    result = fit(
        Objective(model),
        rows(64),
        TrainingOptions(max_epochs=1000, **QUIET),
        generator_seed=0,
        callbacks=[interrupt],
    )
    assert not result.converged
    assert result.message.startswith(f"interrupted by {name}")
    assert len(result.history["loss"]) == 4
    assert result.best_epoch == 4
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_a_keyboard_interrupt_from_anywhere_returns_the_best_so_far():
    def interrupt(summary):
        if summary.epoch == 2:
            raise KeyboardInterrupt

    result = fit(
        Objective(vae()),
        rows(64),
        TrainingOptions(max_epochs=50, **QUIET),
        generator_seed=0,
        callbacks=[interrupt],
    )
    assert not result.converged
    assert "the weights are those of epoch 2" in result.message


def test_training_works_outside_the_main_thread():
    results = []

    def work():
        options = TrainingOptions(max_epochs=2, **QUIET)
        results.append(fit(Objective(vae()), rows(40), options, generator_seed=0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert len(results[0].history["loss"]) == 2


def test_other_errors_are_not_swallowed_and_leave_the_random_state_alone():
    def fail(summary):
        raise RuntimeError("from a callback")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="from a callback"):
        fit(
            Objective(vae()),
            rows(40),
            TrainingOptions(max_epochs=2, **QUIET),
            generator_seed=0,
            callbacks=[fail],
        )
    assert torch.equal(before, torch.get_rng_state())


def test_gradients_are_clipped():
    def largest_step(clip):
        model = linear_autoencoder()
        before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        norms = []

        class Watch(Objective):
            pass

        objective = Watch(model)
        objective.model.after_step = lambda: norms.append(
            torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
        )
        options = TrainingOptions(max_epochs=1, gradient_clip=clip, **QUIET)
        fit(objective, plane(64) * 50, options, generator_seed=0)
        assert before.shape
        return max(norms)

    assert largest_step(None) > 10
    assert largest_step(0.5) == pytest.approx(0.5, rel=1e-3)


def test_weight_decay_pulls_towards_zero():
    def size(decay):
        model = linear_autoencoder()
        options = TrainingOptions(max_epochs=20, lr=0.01, weight_decay=decay, **QUIET)
        fit(Objective(model), plane(64), options, generator_seed=0)
        return sum(parameter.square().sum().item() for parameter in model.parameters())

    assert size(5.0) < 0.8 * size(0.0)


def test_a_fitted_model_carries_nothing_of_the_loop():
    model = vae()
    options = TrainingOptions(max_epochs=2, **QUIET)
    for seed in (0, 1):
        fit(Objective(model), rows(64), options, generator_seed=seed)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    copy = pickle.loads(pickle.dumps(model))
    assert torch.equal(copy.encode(rows(3)), model.encode(rows(3)))


def test_half_precision_trains_on_the_cpu():
    model = linear_autoencoder()
    options = TrainingOptions(max_epochs=15, lr=0.02, precision="bf16-mixed", **QUIET)
    result = fit(Objective(model), plane(200), options, generator_seed=0)
    assert result.history["loss"][-1] < result.history["loss"][0]
    assert next(model.parameters()).dtype == torch.float32


def test_batch_normalisation_never_meets_a_single_row():
    model = VAE(MLP(12, 4, normalization="batch"), MLP(2, 12, normalization="batch"), vae().likelihood)
    result = fit(Objective(model), rows(33), TrainingOptions(max_epochs=2, **QUIET), generator_seed=0)
    assert result.steps == 4


def test_a_models_own_hook_runs_after_each_step():
    model = vae()
    calls = []
    model.after_step = lambda: calls.append(1)
    result = fit(Objective(model), rows(64), TrainingOptions(max_epochs=3, **QUIET), generator_seed=0)
    assert len(calls) == result.steps == 6


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_epochs": 0}, ValueError, "max_epochs: expected a whole number >= 1, got 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size: expected a whole number"),
        ({"lr": -1.0}, ValueError, "lr: expected a finite number > 0"),
        ({"lr_schedule": "step"}, ValueError, "lr_schedule: expected one of 'constant', 'cosine'"),
        ({"precision": "8-true"}, ValueError, "precision: expected one of '32-true'"),
        ({"gradient_clip": 0.0}, ValueError, "gradient_clip: expected a finite number > 0"),
        ({"patience": 0}, ValueError, "patience: expected a whole number >= 1"),
        ({"resume": True}, ValueError, "resume: expected a checkpoint_dir"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_options_say_what_is_expected(options, error, message):
    with pytest.raises(error, match=message):
        TrainingOptions(**options)


def test_training_that_never_helps_has_not_converged():
    x = plane(64)
    model = linear_autoencoder()
    result = fit(
        Objective(model),
        x,
        TrainingOptions(max_epochs=12, **QUIET),
        validation=x @ torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0] * 9,
        generator_seed=0,
    )
    assert not result.converged
    assert "is not below" in result.message


@pytest.mark.slow
def test_importance_agrees_with_quadrature_on_handwritten_digits():
    from numpy.random import RandomState
    from sklearn.datasets import load_digits

    from pullback.models import Bernoulli

    order = RandomState(0).permutation(1797)
    x = torch.tensor((load_digits().data / 16 > 0.5)[order], dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    options = {"hidden": (128,), "activation": "relu", "generator": generator}
    model = VAE(MLP(64, 4, **options), MLP(2, 64, **options), Bernoulli())
    fit(
        Objective(model),
        x[:1200],
        TrainingOptions(max_epochs=60, batch_size=100, progress=False),
        generator_seed=0,
    )
    test = x[1200:1300]
    exact = model.log_likelihood(test, method="quadrature")
    sampled = model.log_likelihood(test, 1000, generator=generator)
    assert (exact.value.mean() - sampled.value.mean()).abs().item() <= 0.03
    deviations = (exact.value - sampled.value).abs() / sampled.standard_error
    assert deviations.max().item() < 5
    assert sampled.standard_error.mean().item() < 0.03
    assert -21.3 < exact.value.mean().item() < -20.0
    finer = model.log_likelihood(test[:20], method="quadrature", nodes=401, radius=8.0)
    assert (finer.value - exact.value[:20]).abs().max().item() <= 5e-4
