"""A trained partition keeps its promise: quantities in their blocks, not in others, not in the rest."""

import numpy as np
import pytest
import torch

import pullback as pb
from known_fields import Fields, blobs, digits
from pullback.subspaces import SubspaceTable, evaluate_subspaces

pytestmark = pytest.mark.slow
ASKED = {
    "digits": (digits, (0.99, 0.99, 0.69), 0.02, (0.05, 0.05, 0.06), 1.45),
    "blobs": (blobs, (0.98, 0.98, 0.74), 0.03, (0.05, 0.06, 0.07), 1.4),
}
"""Own R², excess, R² of the free dimensions, reconstruction error over that of a plain autoencoder."""


def trained(fields: Fields, partition: pb.SubspacePartition | None) -> pb.Autoencoder:
    return pb.Autoencoder(
        fields.latent_dim,
        hidden=(128, 128),
        activation="gelu",
        partition=partition,
        max_epochs=60,
        patience=None,
        validation_fraction=0.0,
        progress=False,
        random_state=0,
    ).fit(flat(fields.train))


def flat(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)


def option(fields: Fields) -> pb.SubspacePartition:
    side = fields.train.shape[-1]
    shaped = {q: (lambda rows, f=f: f(rows.reshape(-1, 1, side, side))) for q, f in fields.functions.items()}
    return pb.SubspacePartition(shaped, sizes=fields.sizes)


def error(model: pb.Autoencoder, images: torch.Tensor) -> float:
    rows = flat(images)
    return float(np.square(model.inverse_transform(model.transform(rows)) - rows.numpy()).mean())


def table(model: pb.Autoencoder, fields: Fields) -> SubspaceTable:
    assert model.partition_ is not None
    return evaluate_subspaces(
        model.partition_.loss,
        Z_train=torch.from_numpy(model.transform(flat(fields.train))),
        Y_train=fields.quantities(fields.train),
        Z_test=torch.from_numpy(model.transform(flat(fields.test))),
        Y_test=fields.quantities(fields.test),
    )


@pytest.fixture(scope="module")
def fitted() -> dict[str, tuple[Fields, pb.Autoencoder]]:
    found = {name: asked[0](0) for name, asked in ASKED.items()}
    return {name: (fields, trained(fields, option(fields))) for name, fields in found.items()}


@pytest.mark.parametrize("name", ASKED)
def test_end_to_end(name: str, fitted: dict[str, tuple[Fields, pb.Autoencoder]]) -> None:
    _, own, excess, free, ratio = ASKED[name]
    fields, model = fitted[name]
    plain = trained(fields, None)
    found = table(model, fields)
    for q, least, most in zip(fields.sizes, own, free, strict=True):
        assert found.own[q].value >= least
        assert found.free[q].value <= most
    assert found.largest_excess <= excess
    assert max(found.overlap.values()) == 0
    assert not any(found.automatic.values())
    assert error(model, fields.test) <= ratio * error(plain, fields.test)


def test_an_edit_changes_what_it_names_and_keeps_the_rest(
    fitted: dict[str, tuple[Fields, pb.Autoencoder]],
) -> None:
    """Measured on the decoded images, not on the decoders: mass goes where it is sent, the centre stays."""
    fields, model = fitted["digits"]
    rows, side = flat(fields.test), fields.test.shape[-1]
    before = fields.quantities(
        torch.from_numpy(model.inverse_transform(model.transform(rows))).reshape(-1, 1, side, side)
    )
    wanted = before["mass"][:, 0].mean()
    edited = model.edit(rows, mass=float(wanted))
    after = fields.quantities(torch.from_numpy(edited.x).reshape(-1, 1, side, side))
    spread = before["mass"].std()
    assert (after["mass"] - wanted).square().mean().sqrt() < 0.35 * spread
    moved = (after["centre"] - before["centre"]).square().mean().sqrt()
    assert moved < 0.5 * before["centre"].std()
