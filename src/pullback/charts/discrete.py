"""Charts without a coordinate to move along: one direction, and a set of points."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from sklearn.cluster import KMeans
from torch import Tensor

from pullback.charts.coordinates import check_coordinates, check_embedding
from pullback.charts.isometries import ChartIsometry, Relabelling, align_labels, identity
from pullback.jets import Jet
from pullback.validation import check_whole


@dataclass(frozen=True)
class Line:
    """One constant: an atom is a single direction, as in a sparse autoencoder; see `line`."""

    name = "line"
    d = c = 0
    M = 1
    volume = 1.0
    step = 0.0

    @cached_property
    def roughness(self) -> Float[Tensor, "k k"]:
        """0."""
        return torch.zeros(1, 1, dtype=torch.float64)

    def jet(self, t: Float[Tensor, "n 0"], order: int = 1) -> Jet:
        """The constant 1."""
        check_coordinates(t, 0, order)
        return _flat(t.new_ones(len(t), 1), order)

    def retract(self, t: Float[Tensor, "n 0"], dt: Float[Tensor, "n 0"]) -> Float[Tensor, "n 0"]:
        """Nothing moves."""
        return t

    def grid(self, n: int | None = None) -> Float[Tensor, "g 0"]:
        """The only point."""
        return torch.zeros(1, 0, dtype=torch.float64)

    def from_embedding(self, Y: Float[Tensor, "n q"]) -> Float[Tensor, "n 0"]:
        """No coordinates."""
        return Y[:, :0]

    def align(self, t_a: Float[Tensor, "n 0"], t_b: Float[Tensor, "n 0"]) -> ChartIsometry:
        """The identity."""
        return identity(t_a)


@dataclass(frozen=True)
class Points:
    """Labels 0 .. n - 1, stored as one number, with a basis function each; see `points`."""

    n: int
    name = "points"
    d = 0
    c = 1
    step = 0.0

    @property
    def M(self) -> int:
        """Number of basis functions, n."""
        return self.n

    @property
    def volume(self) -> float:
        """n."""
        return float(self.n)

    @cached_property
    def roughness(self) -> Float[Tensor, "k k"]:
        """0."""
        return torch.zeros(self.n, self.n, dtype=torch.float64)

    def jet(self, t: Float[Tensor, "n 1"], order: int = 1) -> Jet:
        """One-hot labels."""
        check_coordinates(t, 1, order)
        one_hot = torch.zeros(len(t), self.n, dtype=t.dtype, device=t.device)
        return _flat(one_hot.scatter_(1, t.detach().round().long(), 1.0), order)

    def retract(self, t: Float[Tensor, "n 1"], dt: Float[Tensor, "n 0"]) -> Float[Tensor, "n 1"]:
        """Labels do not move; encoding chooses them anew."""
        return t

    def grid(self, n: int | None = None) -> Float[Tensor, "g 1"]:
        """All labels."""
        return torch.arange(self.n, dtype=torch.float64).unsqueeze(1)

    def from_embedding(self, Y: Float[Tensor, "n q"]) -> Float[Tensor, "n 1"]:
        """k-means, the best of ten starts."""
        Y = check_embedding(Y, 1, minimum=self.n)
        rows = Y.detach().cpu().double().numpy()
        labels = KMeans(self.n, n_init=10, random_state=0).fit_predict(rows)  # type: ignore[arg-type]
        return torch.as_tensor(labels, device=Y.device).to(Y).unsqueeze(1)

    def align(self, t_a: Float[Tensor, "n 1"], t_b: Float[Tensor, "n 1"]) -> Relabelling:
        """The relabelling that takes most of t_a to t_b."""
        return align_labels(t_a, t_b, self.n)


def _flat(value: Tensor, order: int) -> Jet:
    n, M = value.shape
    J = value.new_zeros(n, M, 0) if order > 0 else None
    return Jet(value, J, value.new_zeros(n, M, 0, 0) if order > 1 else None)


def line() -> Line:
    """A single direction, the latent of an ordinary sparse autoencoder (amplitude gate only).

    Example:
        >>> line().M, line().d
        (1, 0)
    """
    return Line()


def points(n: int) -> Points:
    """n separate points: what a curve is tested against.

    Args:
        n: number of points.
    Raises:
        ValueError: n < 1. TypeError: not a whole number.
    Example:
        >>> import torch
        >>> points(3).jet(torch.tensor([[2.0]]), 0).value
        tensor([[0., 0., 1.]])
    """
    check_whole("n", n)
    return Points(int(n))
