"""Which features of the data make a path long: its energy, split exactly."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.ambient import LowRank
from pullback.geometry.curve import check_curves
from pullback.geometry.energy import Curves
from pullback.geometry.geodesics import Geodesic
from pullback.jets import directional_jet
from pullback.metrics import (
    BaseMetric,
    EnsembleMetric,
    ExpectedPullbackMetric,
    PullbackMetric,
    SumMetric,
    as_metric,
)
from pullback.typing import Map
from pullback.validation import check_choice

By = Literal["feature", "factor", "latent"]
# Numbers of one batch of decoded nodes.
SHARE_BUDGET = 2**24

Parts = tuple[Float[Tensor, "m q"], Float[Tensor, "m q"], Float[Tensor, "m q"]]


@dataclass(frozen=True)
class EnergyShares:
    """The energy of m paths, split over q features (or factors, or latent coordinates).

    Attributes:
        values: share of each feature, (m, q); the sum over features is the discrete energy of the path.
        fraction: ``values`` over ``energy``; zero for a path without energy.
        signed: change from start to end, f_i(b) - f_i(a).
        total_variation: Σ_k |Δf_i|, the way that the feature goes. ``signed / total_variation`` is near 1 or
            -1 for a feature that only rises or falls, near 0 for one that goes and comes back.
        energy: (m,), in the units of the metric.
        by: what the columns are.
        feature_names: q names, or None.
        groups: after `mean`: what the rows are.
    """

    values: Float[Tensor, "m q"]
    fraction: Float[Tensor, "m q"]
    signed: Float[Tensor, "m q"]
    total_variation: Float[Tensor, "m q"]
    energy: Float[Tensor, " m"]
    by: By
    feature_names: tuple[str, ...] | None = None
    groups: tuple[Any, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def mean(self, groups: Iterable[Any] | None = None) -> "EnergyShares":
        """Means over groups of paths, one row a group in the order of their names; None is one group of all.

        ``fraction`` is the mean share over the mean energy, so it still sums to one.

        Args:
            groups: one label a path, such as the cell types that it joins.
        Raises:
            ValueError: another number of labels than paths, or no paths.
        """
        labels = ["all"] * len(self) if groups is None else _labels(groups)
        if len(labels) != len(self) or len(self) == 0:
            raise ValueError(f"groups: expected one label for each of {len(self)} paths, got {len(labels)}")
        names = sorted(set(labels), key=lambda name: (str(type(name)), name))
        place = torch.tensor([names.index(label) for label in labels], device=self.values.device)
        count = torch.bincount(place, minlength=len(names)).to(self.values)

        def averaged(part: Tensor) -> Tensor:
            total = part.new_zeros(len(names), *part.shape[1:]).index_add_(0, place, part)
            return total / count.reshape(-1, *(1,) * (part.ndim - 1))

        values, signed, total_variation, energy = (
            averaged(part) for part in (self.values, self.signed, self.total_variation, self.energy)
        )
        return replace(
            self,
            values=values,
            fraction=_fraction(values, energy),
            signed=signed,
            total_variation=total_variation,
            energy=energy,
            groups=tuple(names),
        )


def energy_shares(
    metric: Any,
    path: Geodesic | Tensor,
    *,
    by: By = "feature",
    feature_names: Sequence[str] | None = None,
) -> EnergyShares:
    """Split the energy of paths over the features of the data, without a remainder.

    With the flattening map φ of the ambient metric the discrete energy is a sum over features,

        E = n Σ_k |φ(f(z_{k+1})) - φ(f(z_k))|² = Σ_i share_i,
        share_i = n Σ_k (φ_i(f(z_{k+1})) - φ_i(f(z_k)))² ≈ ∫ w_i (J_i ż)² dt.

    Where the ambient has no flattening, share_i = n Σ_k v_i (W v)_i at the mid-points of the segments, with
    v = J(z_{k+1} - z_k): the energy of the tensor path. Of an `EnsembleMetric` the fields are means over the
    members; of an `ExpectedPullbackMetric` the shares of mean and scale are added, and ``signed`` and
    ``total_variation`` are those of the mean. Of another sum, the columns are the outputs of its embedding.

    Args:
        metric: any object with ``tensor``; features need a decoder or an embedding.
        path: a `Geodesic`, or nodes at equal steps, (m, N, d) or (N, d).
        by: "feature": outputs of the decoder. "factor": the r columns of a `pullback.ambient.LowRank` factor.
            "latent": latent coordinates, share_a = n Σ_k δ_a (g δ)_a with g at the mid-points.
        feature_names: names of the columns.

    Returns: `EnergyShares`, detached. Shares may be negative where the metric couples columns: by feature
        with a `LowRank` ambient, and by latent coordinate.

    Raises:
        TypeError, ValueError: a path of another dimension or with one node, a metric without features, or
            names that do not fit.

    Example:
        >>> import torch
        >>> from pullback.metrics import PullbackMetric
        >>> metric = PullbackMetric(lambda z: torch.cat([2 * z, z[:, :1] ** 2], dim=1))
        >>> line = torch.linspace(0, 1, 3)[:, None] * torch.tensor([[1.0, 1.0]])
        >>> shares = energy_shares(metric, line, feature_names=["a", "b", "c"])
        >>> shares.values, shares.energy
        (tensor([[4.0000, 4.0000, 1.2500]]), tensor([9.2500]))
    """
    known = as_metric(metric)
    check_choice("by", by, ("feature", "factor", "latent"))
    curves = _curves("path", known, path)
    with torch.no_grad():
        split, width = _SPLITS[by](known, curves[:, 0])
        size = max(1, SHARE_BUDGET // (curves.shape[1] * max(width, 1)))
        parts = [split(part) for part in curves.split(size)]
        values, signed, total_variation = (torch.cat(column) for column in zip(*parts, strict=True))
        energy = values.sum(1)
    names = _names(feature_names, values.shape[1])
    return EnergyShares(values, _fraction(values, energy), signed, total_variation, energy, by, names)


def shares_of_difference(
    metric: Any,
    path_a: Geodesic | Tensor,
    path_b: Geodesic | Tensor,
    *,
    by: By = "feature",
    feature_names: Sequence[str] | None = None,
) -> EnergyShares:
    """Feature by feature, the energy of one path less that of another: what a detour saves.

    With the straight line as ``path_a`` and the geodesic as ``path_b``, ``values`` says in which features the
    line spends the energy that the geodesic does not; a negative one is a feature in which the geodesic
    spends more. Every field is a difference, and ``fraction`` is relative to the difference of the energies.

    Args:
        metric, by, feature_names: as for `energy_shares`.
        path_a, path_b: as many paths each.
    Returns: `EnergyShares`.
    Raises:
        ValueError: another number of paths.
    Example:
        >>> import torch
        >>> from pullback.geometry.geodesics import geodesic
        >>> from pullback.geometry.reference import Sphere
        >>> from pullback.metrics import PullbackMetric
        >>> metric = PullbackMetric(Sphere().embedding)
        >>> ends = torch.tensor([[0.5, 0.0]]).double(), torch.tensor([[0.0, 0.5]]).double()
        >>> line = torch.lerp(*ends, torch.linspace(0, 1, 65).double()[:, None])
        >>> saved = shares_of_difference(metric, line, geodesic(metric, *ends))
        >>> bool(saved.energy > 0), saved.values.shape
        (True, torch.Size([1, 3]))
    """
    first = energy_shares(metric, path_a, by=by, feature_names=feature_names)
    second = energy_shares(metric, path_b, by=by, feature_names=feature_names)
    if len(first) != len(second):
        raise ValueError(f"path_b: expected {len(first)} paths like path_a, got {len(second)}")
    values, energy = first.values - second.values, first.energy - second.energy
    return replace(
        first,
        values=values,
        fraction=_fraction(values, energy),
        signed=first.signed - second.signed,
        total_variation=first.total_variation - second.total_variation,
        energy=energy,
    )


def _labels(groups: Iterable[Any]) -> list[Any]:
    groups = groups.detach().cpu().numpy() if isinstance(groups, Tensor) else groups
    return np.asarray(groups).tolist() if isinstance(groups, np.ndarray) else list(groups)


def _curves(name: str, metric: BaseMetric, path: Any) -> Curves:
    points = path.points if isinstance(path, Geodesic) else path
    return check_curves(name, points, metric.dim).detach()


def _fraction(values: Float[Tensor, "m q"], energy: Float[Tensor, " m"]) -> Float[Tensor, "m q"]:
    whole = energy.unsqueeze(1)
    return torch.where(whole == 0, 0, values / torch.where(whole == 0, 1, whole))


def _names(names: Any, width: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"feature_names: expected a sequence of names, got {type(names).__name__}")
    found = tuple(str(name) for name in names)
    if len(found) != width:
        raise ValueError(f"feature_names: expected {width} names, one a column, got {len(found)}")
    return found


Split = Callable[[Curves], Parts]
Splitter = Callable[[BaseMetric, Tensor], tuple[Split, int]]


def _images(f: Map, curves: Curves) -> Float[Tensor, "m N q"]:
    return f(curves.flatten(0, 1)).flatten(1).unflatten(0, curves.shape[:2])


def _middle(curves: Curves) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d"]]:
    """Mid-points and differences of all segments."""
    return ((curves[:, 1:] + curves[:, :-1]) / 2).flatten(0, 1), curves.diff(dim=1).flatten(0, 1)


def _summed(product: Tensor, steps: Tensor) -> Parts:
    """Shares from the products of each segment, and what the steps add up to."""
    return steps.shape[1] * product.sum(1), steps.sum(1), steps.abs().sum(1)


def _mixed(part: Splitter, metric: SumMetric, z: Float[Tensor, "m d"]) -> tuple[Split, int]:
    """Split the energy of every member and add up what has the same name."""
    splits, widths = zip(*(part(member, z) for member in metric.members), strict=True)
    # The scale of a noise does not rise or fall with the feature that it blurs.
    weights = (1.0, 0.0) if isinstance(metric, ExpectedPullbackMetric) else metric.weights
    mean = torch.tensor(weights, dtype=torch.float64) / sum(weights)

    def split(curves: Curves) -> Parts:
        values, signed, total_variation = zip(*(one(curves) for one in splits), strict=True)
        share = torch.tensor(metric.weights, dtype=torch.float64).to(values[0])
        return (
            torch.einsum("k,kmq->mq", share, torch.stack(values)),
            torch.einsum("k,kmq->mq", mean.to(share), torch.stack(signed)),
            torch.einsum("k,kmq->mq", mean.to(share), torch.stack(total_variation)),
        )

    return split, sum(widths)


def _adds_up(metric: BaseMetric) -> TypeGuard[SumMetric]:
    """Whether the members of a sum have the same features."""
    if isinstance(metric, EnsembleMetric | ExpectedPullbackMetric):
        return True
    return isinstance(metric, SumMetric) and len(metric.members) == 1


def _features(metric: BaseMetric, z: Float[Tensor, "m d"]) -> tuple[Split, int]:
    """Split by the outputs of the decoder, or of the embedding where there is no decoder."""
    if _adds_up(metric):
        return _mixed(_features, metric, z)
    ambient = metric.ambient if isinstance(metric, PullbackMetric) else None
    decoder = metric.decoder if isinstance(metric, PullbackMetric) else metric.embedding
    embedding = metric.embedding
    if decoder is None:
        raise ValueError(f"by: expected 'latent' for a metric without features, got 'feature' for {metric!r}")

    def split(curves: Curves) -> Parts:
        y = _images(decoder, curves)
        steps = y.diff(dim=1)
        if isinstance(ambient, LowRank) and isinstance(ambient.factor, Tensor):
            flat = steps.flatten(0, 1)
            product = steps * ambient.apply(flat, flat).unflatten(0, steps.shape[:2])
        elif embedding is not None:
            images = y if embedding is decoder else _images(embedding, curves)
            product = images.diff(dim=1).square()
        else:
            value, v, here = _pushed(metric, curves)
            product = (v * here.apply(value, v)).unflatten(0, steps.shape[:2])
        values, _, total_variation = _summed(product, steps)
        return values, y[:, -1] - y[:, 0], total_variation

    return split, decoder(z[:1]).numel() if len(z) else 1


def _pushed(metric: BaseMetric, curves: Curves) -> tuple[Tensor, Tensor, Any]:
    """Decoded mid-points, segments pushed forward by the Jacobian there, and the ambient at those points."""
    assert isinstance(metric, PullbackMetric)
    middle, delta = _middle(curves)
    decoder = metric.decoder
    if decoder(middle[:1]).ndim > 2:
        decoder = nn.Sequential(decoder, nn.Flatten(1)) if isinstance(decoder, nn.Module) else _rows(decoder)
    along = directional_jet(decoder, middle, delta, order=1)
    ambient = metric.ambient
    return along.value, along.first, ambient.at(middle) if isinstance(ambient, LowRank) else ambient


def _rows(decoder: Map) -> Map:
    return lambda z: decoder(z).flatten(1)


def _factors(metric: BaseMetric, z: Float[Tensor, "m d"]) -> tuple[Split, int]:
    """Split by the columns of a low-rank factor."""
    if _adds_up(metric):
        return _mixed(_factors, metric, z)
    if not isinstance(metric, PullbackMetric) or not isinstance(metric.ambient, LowRank):
        raise ValueError(
            f"by: expected 'feature' or 'latent' without a LowRank ambient, got 'factor' for {metric!r}"
        )
    ambient = metric.ambient

    def split(curves: Curves) -> Parts:
        if isinstance(ambient.factor, Tensor):
            flat = _images(metric.decoder, curves).diff(dim=1).flatten(0, 1)
            steps = ambient.whiten(flat)
        else:
            _, v, here = _pushed(metric, curves)
            steps = here.whiten(v)
        steps = steps.unflatten(0, (len(curves), curves.shape[1] - 1))
        return _summed(steps.square(), steps)

    return split, metric.decoder(z[:1]).numel() if len(z) else 1


def _coordinates(metric: BaseMetric, z: Float[Tensor, "m d"]) -> tuple[Split, int]:
    """Split by latent coordinates."""

    def split(curves: Curves) -> Parts:
        middle, delta = _middle(curves)
        product = delta * (metric.tensor(middle) @ delta.unsqueeze(-1)).squeeze(-1)
        steps = curves.diff(dim=1)
        return _summed(product.unflatten(0, steps.shape[:2]), steps)

    return split, z.shape[1] ** 2


_SPLITS: dict[str, Splitter] = {
    "feature": _features,
    "factor": _factors,
    "latent": _coordinates,
}
