"""The shape alphabet and the protocols of the package.

Letters in shape annotations: ``n`` points, ``p`` data features, ``d`` latent dimensions, ``r`` rank of an
ambient factor, ``b`` rows of a batch, ``m`` pairs of points (in `pullback.jets`: rows of a jet), ``k``
classes.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

Map = Callable[[Tensor], Tensor]
"""A map between batches of points, ``(n, a) -> (n, b)``, that treats its rows independently."""

Schedule = Callable[[int], float]
"""A number that changes with the training step."""

Device = Literal["auto", "cpu", "cuda", "mps"] | str


@runtime_checkable
class Metric(Protocol):
    """A Riemannian metric on a latent space."""

    def tensor(self, z: Tensor) -> Tensor:
        """Metric tensor g(z): ``(n, d) -> (n, d, d)``."""
        ...

    def inverse(self, z: Tensor) -> Tensor:
        """Inverse metric tensor: ``(n, d) -> (n, d, d)``."""
        ...

    def logdet(self, z: Tensor) -> Tensor:
        """log det g(z): ``(n, d) -> (n,)``."""
        ...


@runtime_checkable
class Ambient(Protocol):
    """The metric W of data space, known by its action; W itself is never formed."""

    def apply(self, y: Tensor, v: Tensor) -> Tensor:
        """W(y) v for one or more vectors per point: y ``(n, p)``, v ``(n, p)`` or ``(n, p, k)``."""
        ...

    def flattening(self) -> nn.Module | None:
        """A map phi with W = (d phi)^T (d phi): phi after f is an isometric embedding. None if absent."""
        ...


@runtime_checkable
class Likelihood(Protocol):
    """A distribution of data given what a decoder returns."""

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        """log p(x | params), summed over features, every constant included: ``(b,)``."""
        ...

    def mean(self, params: Tensor) -> Tensor:
        """Expected data ``(b, p)``."""
        ...

    def ambient(self) -> Ambient:
        """The Fisher metric of the same family."""
        ...


@runtime_checkable
class Chart(Protocol):
    """Coordinates with a topology, and a basis of functions on them (`pullback.charts`).

    Attributes:
        name: what the atom is called: "circle", "sphere", ...
        d: dimensions that a point moves in; c: numbers that a point is stored in.
        M: number of basis functions, the first of them constant or their sum so.
        roughness: S (M, M) in float64, positive semi-definite; Bᵀ S B is what a wiggly atom pays.
        volume: of all coordinates, in the units of the tangents.
        step: the largest step that `retract` takes in each component.
    """

    name: str
    d: int
    c: int

    @property
    def M(self) -> int: ...

    @property
    def roughness(self) -> Tensor: ...

    @property
    def volume(self) -> float: ...

    @property
    def step(self) -> float: ...

    def jet(self, t: Tensor, order: int = 1) -> Any:
        """`Jet` of the basis at t (n, c): value (n, M), jacobian (n, M, d), hessian (n, M, d, d)."""
        ...

    def retract(self, t: Tensor, dt: Tensor) -> Tensor:
        """The point that a step dt (n, d) leads to, (n, c)."""
        ...

    def grid(self, n: int | None = None) -> Tensor:
        """Points that cover the chart, (G, c) in float64."""
        ...

    def from_embedding(self, Y: Tensor) -> Tensor:
        """First coordinates (n, c) from an embedding (n, q)."""
        ...

    def align(self, t_a: Tensor, t_b: Tensor) -> Any:
        """The isometry of the chart that takes t_a nearest to t_b: callable, with a ``score``."""
        ...


Points = Float[Tensor, "n d"]
"""Latent points, one a row."""
