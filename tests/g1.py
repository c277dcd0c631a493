"""The standard decoder of the geodesic tests and benchmarks: an autoencoder of the handwritten digits.

64-64-64-d and d-64-64-64 with tanh, trained for 400 epochs with noise on the code; its latents are
standardised by absorbing mean and scale into the decoder. Pairs come half from below the lower and half from
above the upper quartile of latent distances. The reference length of a pair is the least of a shortest path
on a dense grid and the straight line, each refined at 401 nodes.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from math import gcd

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pullback.geometry import Geodesic, geodesic
from pullback.metrics import PullbackMetric


@dataclass(frozen=True)
class TrainedDecoder:
    """A frozen decoder, the codes of its data and pairs of them to join."""

    decoder: nn.Sequential
    codes: Tensor
    start: Tensor
    end: Tensor

    def double(self) -> "TrainedDecoder":
        """The same numbers in float64."""
        decoder = _mlp(tuple([self.decoder[0].in_features] + [m.out_features for m in self.decoder[::2]]))
        decoder.load_state_dict(self.decoder.state_dict())
        decoder.double().requires_grad_(False)
        return TrainedDecoder(decoder, self.codes.double(), self.start.double(), self.end.double())

    def metric(self) -> PullbackMetric:
        """Its pullback metric."""
        return PullbackMetric(self.decoder)


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _train(x: Tensor, dim: int, seed: int, epochs: int) -> tuple[nn.Sequential, nn.Sequential]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder, decoder = _mlp((64, 64, 64, dim)), _mlp((dim, 64, 64, 64))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(256):
            batch = x[rows]
            z = encoder(batch)
            noisy = z + 0.02 * torch.randn(z.shape, generator=generator)
            loss = (decoder(noisy) - batch).square().sum(1).mean() + 1e-3 * z.square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder, decoder


@lru_cache(maxsize=4)
def digits_decoder(dim: int = 2, seed: int = 0, pairs: int = 50, epochs: int = 400) -> TrainedDecoder:
    """The trained decoder (float32), the standardised codes of all digits and the pairs."""
    x = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    encoder, decoder = _train(x, dim, seed, epochs)
    with torch.no_grad():
        codes = encoder(x)
        mean, scale = codes.mean(0), codes.std(0)
        first = decoder[0]
        first.bias += first.weight @ mean
        first.weight *= scale
        codes = (codes - mean) / scale
    generator = torch.Generator().manual_seed(seed + 1)
    candidates = torch.randint(len(x), (80 * pairs, 2), generator=generator)
    candidates = candidates[candidates[:, 0] != candidates[:, 1]]
    distance = (codes[candidates[:, 0]] - codes[candidates[:, 1]]).norm(dim=1)
    low, high = torch.quantile(distance, torch.tensor([0.25, 0.75]))
    near, far = candidates[distance < low], candidates[distance > high]
    chosen = torch.cat([near[: pairs // 2], far[: pairs - pairs // 2]])
    decoder.requires_grad_(False)
    return TrainedDecoder(decoder, codes, codes[chosen[:, 0]], codes[chosen[:, 1]])


def _grid_paths(model: TrainedDecoder, grid: int, most: int) -> list[Tensor]:
    """Shortest paths of all pairs on a grid with offsets up to ``most``, nodes in latent coordinates."""
    box = torch.cat([model.codes, model.start, model.end])
    low, high = box.amin(0) - 0.25, box.amax(0) + 0.25
    axes = [torch.linspace(0, 1, grid, dtype=box.dtype) * (high[i] - low[i]) + low[i] for i in range(2)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    image = model.decoder(points.flatten(0, 1)).unflatten(0, (grid, grid))
    number = np.arange(grid * grid).reshape(grid, grid)
    rows, columns, lengths = [], [], []
    for dx, dy in product(range(most + 1), range(-most, most + 1)):
        if (dx, dy) <= (0, 0) or gcd(dx, abs(dy)) != 1:
            continue
        tail = np.s_[: grid - dx, max(0, -dy) : grid - max(0, dy)]
        head = np.s_[dx:, max(0, dy) : grid - max(0, -dy)]
        middle = model.decoder(((points[tail] + points[head]) / 2).flatten(0, 1))
        a, b = image[tail].flatten(0, 1), image[head].flatten(0, 1)
        lengths.append(((middle - a).norm(dim=1) + (b - middle).norm(dim=1)).double().numpy())
        rows.append(number[tail].reshape(-1))
        columns.append(number[head].reshape(-1))
    graph = csr_matrix(
        (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns))), shape=(grid**2,) * 2
    )
    known = points.flatten(0, 1)
    tree = KDTree(known.numpy())
    paths = []
    for start, end in zip(model.start, model.end, strict=True):
        source, node = int(tree.query(start)[1]), int(tree.query(end)[1])
        before = dijkstra(graph, directed=False, indices=source, return_predecessors=True)[1]
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = before[node]
        paths.append(torch.cat([start[None], known[nodes[::-1]][1:-1], end[None]]))
    return paths


def _equal_steps(path: Tensor, decoder: nn.Module, nodes: int) -> Tensor:
    """A polygon resampled to equal decoded steps."""
    fine = torch.cat([path[:-1].lerp(path[1:], k / 4) for k in range(4)], dim=1).reshape(-1, path.shape[1])
    fine = torch.cat([fine, path[-1:]])
    steps = decoder(fine).diff(dim=0).norm(dim=1).double().numpy()
    arc = np.concatenate([[0], steps.cumsum()])
    t = np.linspace(0, arc[-1], nodes)
    return torch.from_numpy(
        np.stack([np.interp(t, arc, column) for column in fine.double().numpy().T], axis=1)
    )


def dense_reference(model: TrainedDecoder, *, grid: int = 400, nodes: int = 401) -> Geodesic:
    """The geodesics that others are compared with (two latent dimensions)."""
    with torch.no_grad():
        paths = _grid_paths(model, grid, 3)
        curves = torch.stack([_equal_steps(path, model.decoder, nodes) for path in paths])
    exact = model.double()
    options = {"nodes": nodes, "max_nodes": nodes, "tol": 1e-8, "max_iter": 200, "beam": 1.0}
    return geodesic(exact.metric(), exact.start, exact.end, starts=["line", curves], **options)
