"""An encoder network for dictionaries: a warm start of rows, trained beside the decoders."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from pullback.charts import as_chart
from pullback.models.blocks import MLP
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.parametrization import coords_of, raw_width
from pullback.models.dictionary.sweep_options import Gate
from pullback.typing import Chart
from pullback.validation import check_choice, check_points, check_whole


class AmortisedEncoder(nn.Module):
    """Rows to gate scores, amplitudes and an embedding of every chart, mapped to its coordinates.

    Args:
        p: data features.
        hidden: widths of hidden layers.
        charts: names or charts, one an atom.
        gate: "amplitude" opens the n_active largest scores; "softmax" takes scores as logits.
        n_active: atoms a row.
        generator: source of the initial weights.
    Raises:
        ValueError, TypeError: see the messages.
    Example:
        >>> import torch
        >>> encoder = AmortisedEncoder(8, (16,), ["circle", "sphere"], n_active=1)
        >>> encoder(torch.zeros(5, 8)).coords.shape
        torch.Size([5, 1, 3])
    """

    def __init__(
        self,
        p: int,
        hidden: Sequence[int],
        charts: Sequence[str | Chart],
        gate: Gate = "amplitude",
        *,
        n_active: int = 3,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_choice("gate", gate, ("softmax", "amplitude"))
        check_whole("n_active", n_active)
        self.layout = Layout(tuple(as_chart(chart, name="charts") for chart in charts))
        self.gate, self.n_active = gate, min(int(n_active), self.layout.K)
        self.widths = [raw_width(chart) for chart in self.layout.charts]
        self.body = MLP(p, 2 * self.layout.K + sum(self.widths), hidden=tuple(hidden), generator=generator)

    def forward(self, Z: Float[Tensor, "n p"]) -> Codes:
        """Codes of rows, differentiable in the network; of discrete atoms label 0.

        Args:
            Z: rows, (n, p).
        """
        K = self.layout.K
        scores, sizes, raw = self.body(check_points("Z", Z)).split([K, K, sum(self.widths)], 1)
        coords = Z.new_zeros(len(Z), K, self.layout.widths[2])
        for k, (chart, part) in enumerate(zip(self.layout.charts, raw.split(self.widths, 1), strict=True)):
            if chart.d > 0:
                coords[:, k, : chart.c] = coords_of(chart, part)
        if self.gate == "softmax":
            return Codes.softmax(scores, coords)
        atoms = scores.topk(self.n_active, 1).indices
        weights = softplus(sizes.gather(1, atoms))
        place = atoms.unsqueeze(2).expand(-1, -1, coords.shape[2])
        return Codes(atoms, weights, coords.gather(1, place))

    def match(self, Z: Float[Tensor, "n p"], codes: Codes) -> Float[Tensor, ""]:
        """How far the network is from codes that were solved for: gates by cross entropy, coordinates in the
        embedding of their chart, weights by squares.

        Args:
            Z: rows, (n, p).
            codes: of the rows, held.
        """
        K = self.layout.K
        scores, sizes, raw = self.body(Z).split([K, K, sum(self.widths)], 1)
        place = torch.where(codes.atoms < 0, K, codes.atoms)
        weights = Z.new_zeros(len(Z), K + 1).scatter(1, place, codes.weights.detach().to(Z))[:, :K]
        if self.gate == "softmax":
            gates = -(weights * scores.log_softmax(1)).sum(1).mean()
            total = gates
        else:
            open_ = (weights > 0).to(Z)
            gates = nn.functional.binary_cross_entropy_with_logits(scores, open_)
            total = gates + (open_ * (softplus(sizes) - weights).square()).mean()
        for k, (chart, part) in enumerate(zip(self.layout.charts, raw.split(self.widths, 1), strict=True)):
            row, slot = ((codes.atoms == k) & (codes.weights > 0.05)).nonzero(as_tuple=True)
            if chart.d > 0 and len(row):
                wanted = chart.jet(codes.coords[row, slot, : chart.c].detach().to(Z), 0).value
                found = chart.jet(coords_of(chart, part[row]), 0).value
                total = total + (found - wanted).square().mean()
        return total
