"""Atoms whose coordinates are known for some rows: decoders by regression on the labels, coordinates held."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.charts.isometries import TURN
from pullback.models.dictionary.alone import ChartFit, fit_chart
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.layout import Layout
from pullback.typing import Chart

LABELLED = ("circle", "interval", "points")
"""Charts that one number a row can be a coordinate of."""


def label_coordinates(chart: Chart, values: Float[Tensor, " n"]) -> Float[Tensor, "n 1"]:
    """Coordinates of labels.

    On a circle whole numbers from low to high are equispaced, 2π (v - low)/(high - low + 1), and others
    are angles; on an interval ranks are spread over [-.98, .98], ties share theirs; points take their number.

    Args:
        chart: circle, interval or points.
        values: labels, (n,), all known.
    Raises:
        ValueError: another chart, or a label that points do not have.
    Example:
        >>> import torch
        >>> from pullback import charts
        >>> label_coordinates(charts.interval(), torch.tensor([3.0, 9.0])).flatten()
        tensor([-0.4900,  0.4900])
    """
    v = values.flatten()
    if chart.name == "circle":
        whole = bool((v == v.round()).all())
        angle = (v - v.min()) / (v.max() - v.min() + 1) * TURN if whole else v.remainder(TURN)
        return angle.unsqueeze(1)
    if chart.name == "interval":
        ordered = v.sort().values
        low, high = torch.searchsorted(ordered, v), torch.searchsorted(ordered, v, right=True)
        return (0.98 * ((low + high).to(v) / len(v) - 1)).unsqueeze(1)
    if chart.name == "points":
        if bool(((v < 0) | (v >= chart.M) | (v != v.round())).any()):
            raise ValueError(f"labels: expected whole numbers 0 .. {chart.M - 1} for points, got others")
        return v.unsqueeze(1)
    raise ValueError(
        f"labels: expected an atom of {', '.join(LABELLED)}, got a {chart.name}; drop its labels"
    )


def known(values: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Which rows are labelled: those that are not NaN."""
    return ~torch.isnan(values)


def fit_labelled(chart: Chart, Z: Float[Tensor, "n p"], values: Float[Tensor, " n"]) -> ChartFit:
    """Decoder of an atom from its labelled rows: ridge and Fellner-Schall, coordinates held.

    Args:
        chart: of the atom.
        Z: rows, (n, p).
        values: labels, (n,), NaN where unknown.
    """
    rows = known(values)
    t = label_coordinates(chart, values[rows].double())
    return fit_chart(chart, Z[rows], t, steps=0, reencode=())


@dataclass(frozen=True, eq=False)
class KnownCoordinates:
    """Where labelled rows are on some atoms; whether they use them is not said.

    Attributes:
        of_atom: coordinates by atom, (n,), NaN where unknown.
    """

    of_atom: Mapping[int, Float[Tensor, " n"]]

    @staticmethod
    def of(layout: Layout, labels: Mapping[int, Float[Tensor, " n"]]) -> "KnownCoordinates":
        """Coordinates of labels.

        Args:
            layout: of the atoms.
            labels: by atom, (n,), NaN where unknown.
        """
        found = {}
        for k, values in labels.items():
            rows = known(values)
            t = values.double().clone()
            t[rows] = label_coordinates(layout.charts[k], t[rows]).flatten()
            found[k] = t
        return KnownCoordinates(found)

    def rows(self, at: slice) -> "KnownCoordinates":
        """Of some of the rows."""
        return KnownCoordinates({k: t[at] for k, t in self.of_atom.items()})

    def held(self, codes: Codes) -> Bool[Tensor, "n m"]:
        """Which slots of codes hold an atom whose coordinate is known."""
        mask = torch.zeros_like(codes.atoms, dtype=torch.bool)
        for k, t in self.of_atom.items():
            mask |= (codes.atoms == k) & known(t).unsqueeze(1)
        return mask

    def put(self, codes: Codes) -> Codes:
        """Codes with the known coordinates in their places."""
        coords = codes.coords.clone()
        for k, t in self.of_atom.items():
            row, slot = ((codes.atoms == k) & known(t).unsqueeze(1)).nonzero(as_tuple=True)
            coords[row, slot, 0] = t[row].to(coords)
        return replace(codes, coords=coords)
