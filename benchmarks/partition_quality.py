"""What quantities a latent space holds where: ours, spacelearn 0.1.0 by its README, and plain autoencoders.

    .venv-peers/bin/python benchmarks/partition_quality.py SET [SEEDS [METHOD ...]]

SET is digits or blobs (tests/known_fields.py). All methods share one network (two hidden layers of 128,
GELU), images standardised by one mean and one sd, the mean squared error, Adam at 2e-3, batches of 128, 60
epochs; "blocks" has fixed blocks and no term but the fit; "estimator" is `pullback.Autoencoder` with its own
loss, which learns the noise. Subspaces of "plain",
"alignment" and "spacelearn" are solved by spacelearn after training. A line a seed and method, then means:
reconstruction error on test rows; own R² of mass, centre, gradient; largest excess of one block over what its
quantity implies of another; R² of the three from the free dimensions; largest cosine between blocks; seconds.
"""

import contextlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pullback as pb
from pullback.models import MLP
from pullback.subspaces import PartitionLoss, SubspaceTable, evaluate_subspaces

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from known_fields import Fields, blobs, digits, gradient

EPOCHS, BATCH, RATE = 60, 128, 2e-3
INITIAL, EVERY, MAX_BINS, BINS_SHARE, K_SHARE, FREE = 100, 2, 10, 0.80, 0.90, 0.10
"""Of the README of spacelearn."""
ALIGNED = {"leak": 0, "free": 0}
Term = Callable[[int, Tensor, Tensor], Tensor]


class Standard:
    """Flattened images by one mean and one sd, and back."""

    def __init__(self, images: Tensor):
        self.shape, self.mean, self.sd = images.shape[1:], images.mean(), images.std()

    def apply(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.sd).flatten(1)

    def images(self, rows: Tensor) -> Tensor:
        return (rows * self.sd + self.mean).reshape(-1, *self.shape)


def networks(p: int, latent_dim: int, seed: int) -> tuple[nn.Module, nn.Module]:
    g = torch.Generator().manual_seed(seed)
    shape = {"hidden": (128, 128), "activation": "gelu", "generator": g}
    return MLP(p, latent_dim, **shape), MLP(latent_dim, p, **shape)


def trained(x: Tensor, latent_dim: int, seed: int, term: Term | None, start: Any = None) -> tuple[Any, Any]:
    """Encoder and decoder after all epochs; ``start(epoch, encoder)`` is called before each."""
    encoder, decoder = networks(x.shape[1], latent_dim, seed)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=RATE)
    g = torch.Generator().manual_seed(seed + 1)
    for epoch in range(EPOCHS):
        if start is not None:
            start(epoch, encoder)
        for rows in torch.randperm(len(x), generator=g).tensor_split(-(-len(x) // BATCH)):
            z = encoder(x[rows])
            loss = (decoder(z) - x[rows]).square().mean()
            if term is not None:
                loss = loss + term(epoch, z, rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder.eval().requires_grad_(False), decoder.eval().requires_grad_(False)


def partitioned(fields: Fields, x: Tensor, seed: int, weights: dict | None) -> tuple[Any, Any, Any]:
    loss = PartitionLoss(fields.latent_dim, fields.sizes, weights=weights)
    Y = fields.quantities(fields.train)
    loss.fit_targets(Y)
    encoder, decoder = trained(
        x, fields.latent_dim, seed, lambda _, z, rows: loss(z, {q: y[rows] for q, y in Y.items()}).total
    )
    return encoder, decoder, loss


def by_readme(fields: Fields, x: Tensor, seed: int, losses: str) -> tuple[Any, Any, Any]:
    """Subspaces solved anew every other epoch from the first 100 rows."""
    import spacelearn
    from spacelearn.loss import alignment_loss
    from spacelearn.optim import minimal_latent_dim

    first = fields.train[:INITIAL]
    Y = fields.quantities(fields.train)
    sizes, latent_dim = fields.sizes, fields.latent_dim
    if losses == "all":
        raw = {q: Y[q][:INITIAL] for q in ("mass", "centre")} | {"gradient": gradient(first).unsqueeze(1)}
        dims = spacelearn.solve_dims(raw, MAX_BINS, BINS_SHARE, K_SHARE, k_per_quantity=True)
        bins = next(iter(dims.values()))[0]
        sizes = {q: k for q, (_, k) in dims.items()}
        latent_dim = minimal_latent_dim(sizes, free_frac=FREE)
        Y = Y | {"gradient": gradient(fields.train, bins).flatten(1)}
    known: dict[str, Any] = {"previous": None}

    def solve(z: Tensor) -> Any:
        return spacelearn.solve_subspaces(z, {q: y[: len(z)] for q, y in Y.items()}, k=sizes)

    def start(epoch: int, encoder: nn.Module) -> None:
        known["previous"] = known["space"].W if epoch else None
        if epoch % EVERY == 0:
            with torch.no_grad():
                known["space"] = solve(encoder(x[:INITIAL]))
        if known["previous"] is None:
            known["previous"] = known["space"].W

    def term(epoch: int, z: Tensor, rows: Tensor) -> Tensor:
        W, A = known["space"].W, known["space"].A
        y = {q: value[rows] for q, value in Y.items()}
        if losses == "alignment":
            return alignment_loss(z, W, A, y)
        return spacelearn.combined_loss(z, W, A, y, known["previous"])

    encoder, decoder = trained(x, latent_dim, seed, term, start)
    return encoder, decoder, solve(encoder(x)).W


def plain(fields: Fields, x: Tensor, seed: int) -> tuple[Any, Any, Any]:
    import spacelearn

    encoder, decoder = trained(x, fields.latent_dim, seed, None)
    return (
        encoder,
        decoder,
        spacelearn.solve_subspaces(encoder(x), fields.quantities(fields.train), k=fields.sizes).W,
    )


def estimator(
    fields: Fields, x: Tensor, seed: int, standard: Standard, weights: dict | None = None
) -> tuple[Any, Any, Any]:
    option = pb.SubspacePartition(
        {q: (lambda rows, f=f: f(standard.images(rows))) for q, f in fields.functions.items()},
        sizes=fields.sizes,
        weights=weights,
    )
    model = pb.Autoencoder(
        fields.latent_dim,
        activation="gelu",
        scale="none",
        partition=option,
        max_epochs=EPOCHS,
        patience=None,
        validation_fraction=0.0,
        progress=False,
        random_state=seed,
    ).fit(x)
    return (
        lambda rows: torch.from_numpy(model.transform(rows)),
        lambda z: torch.from_numpy(model.inverse_transform(z)),
        model.partition_.loss,
    )


METHODS: dict[str, Callable[..., tuple[Any, Any, Any]]] = {
    "plain": lambda f, x, seed, s: plain(f, x, seed),
    "spacelearn": lambda f, x, seed, s: by_readme(f, x, seed, "all"),
    "alignment": lambda f, x, seed, s: by_readme(f, x, seed, "alignment"),
    "blocks": lambda f, x, seed, s: partitioned(f, x, seed, ALIGNED),
    "partition": lambda f, x, seed, s: partitioned(f, x, seed, None),
    "estimator": estimator,
    "est. blocks": lambda f, x, seed, s: estimator(f, x, seed, s, ALIGNED),
}


def measured(fields: Fields, method: str, seed: int) -> tuple[list[float], SubspaceTable]:
    """Numbers of a line, and the table behind them."""
    standard = Standard(fields.train)
    x, fresh = standard.apply(fields.train), standard.apply(fields.test)
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        encode, decode, where = METHODS[method](fields, x, seed, standard)
    seconds = time.process_time() - began
    table = evaluate_subspaces(
        where,
        Z_train=encode(x),
        Y_train=fields.quantities(fields.train),
        Z_test=encode(fresh),
        Y_test=fields.quantities(fields.test),
        bootstraps=0,
    )
    error = float((decode(encode(fresh)) - fresh).square().mean())
    own, free = ([part[q].value for q in fields.sizes] for part in (table.own, table.free))
    return [error, *own, table.largest_excess, *free, max(table.overlap.values()), seconds], table


def worded(label: str, numbers: list[float]) -> str:
    error, *own, excess, a, b, c, cosine, seconds = numbers
    owns, frees = (" ".join(f"{value:6.3f}" for value in part) for part in (own, (a, b, c)))
    return f"{label:14s} {error:.4f}  {owns}  {excess:6.3f}  {frees}  {cosine:.3f}  {seconds:5.1f}"


def main(name: str, seeds: int = 3, *methods: str) -> None:
    torch.set_num_threads(1)
    print(f"{name:14s} error   own: mass, centre, grad   excess  free: the same       cosine  seconds")
    means = {}
    for method in methods or METHODS:
        found = []
        for seed in range(seeds):
            fields = {"digits": digits, "blobs": blobs}[name](seed)
            numbers, _ = measured(fields, method, seed)
            found.append(numbers)
            print(worded(f"{method} {seed}", numbers), flush=True)
        means[method] = torch.tensor(found).mean(0).tolist()
    print("mean")
    for method, numbers in means.items():
        print(worded(method, numbers))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]), *sys.argv[3:])
