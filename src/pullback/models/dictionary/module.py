"""A dictionary as a torch module: decoders that train beside anything else, codes that are solved for."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.charts import as_chart
from pullback.models.dictionary.codes import Codes, SparseCodes, decode
from pullback.models.dictionary.decoder_step import unit_atoms
from pullback.models.dictionary.encoding import encode, encode_softmax
from pullback.models.dictionary.gram import projected
from pullback.models.dictionary.implicit import implicit_amplitudes, implicit_softmax
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.objective import objective
from pullback.models.dictionary.row_step import step_rows
from pullback.models.dictionary.softmax_step import step_softmax
from pullback.models.dictionary.sweep_options import Gate
from pullback.typing import Chart
from pullback.validation import (
    check_choice,
    check_points,
    check_positive,
    check_shape,
    check_tensor,
    check_whole,
)

POLISH = 12
"""Further steps of rows whose codes are to carry derivatives."""


class ManifoldDictionaryModule(nn.Module):
    """z ≈ Σ_k a_k Φ_k(t_k) B_k with trainable B_k; codes are solved for, not trained.

    Joint training needs no derivative of the encoder: by the envelope theorem the gradient by B of the
    smallest F over codes is that of F with codes held. Codes that feed another loss carry their own
    derivative with ``differentiable="implicit"``.

    Args:
        charts: names or charts, one an atom.
        p: data features.
        gate: "amplitude" or "softmax".
        n_active: most atoms a row (amplitude gate).
        entropy, tau: λ_H and temperature (softmax gate).
        sigma: noise level of the rows, from which an atom's price is taken; trained nowhere.
        scale: spread of the rows, the unit of steps.
        decoders: first B, (M_tot, p); None draws them.
        generator: for decoders that are drawn.
    Raises:
        ValueError, TypeError: see the messages.
    Example:
        >>> import torch
        >>> t = torch.linspace(0, 6.2, 50)
        >>> Z = torch.stack([t.cos(), t.sin(), 0 * t], 1)
        >>> module = ManifoldDictionaryModule(["circle"], 3, n_active=1, decoders=torch.eye(5)[:, 1:4])
        >>> bool((module(Z) - Z).abs().max() < 0.05)
        True
    """

    def __init__(
        self,
        charts: Sequence[str | Chart],
        p: int,
        gate: Gate = "amplitude",
        *,
        n_active: int = 3,
        entropy: float = 0.05,
        tau: float = 1.0,
        sigma: float = 0.05,
        scale: float = 1.0,
        decoders: Float[Tensor, "k p"] | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_choice("gate", gate, ("softmax", "amplitude"))
        check_whole("p", p)
        check_whole("n_active", n_active)
        for name, value in (("tau", tau), ("scale", scale)):
            check_positive(name, value)
        for name, value in (("entropy", entropy), ("sigma", sigma)):
            check_positive(name, value, zero=True)
        self.layout = Layout(tuple(as_chart(chart, name="charts") for chart in charts))
        if gate == "softmax" and any(chart.name == "line" for chart in self.layout.charts):
            raise ValueError("charts: expected no 'line' with gate='softmax', got one; use gate='amplitude'")
        self.p, self.gate, self.n_active = int(p), gate, min(int(n_active), self.layout.K)
        self.entropy, self.tau, self.sigma, self.scale = (
            float(entropy),
            float(tau),
            float(sigma),
            float(scale),
        )
        decoders = self._drawn(generator) if decoders is None else check_tensor("decoders", decoders)
        check_shape("decoders", decoders, (self.layout.total, self.p))
        blocks = [decoders[self.layout.block(k)].detach().clone() for k in range(self.layout.K)]
        self.decoders = nn.ParameterList([nn.Parameter(block) for block in blocks])

    def _drawn(self, generator: torch.Generator | None) -> Tensor:
        drawn = torch.randn(self.layout.total, self.p, generator=generator) / self.p**0.5
        if self.gate == "softmax":
            return drawn
        rows = torch.tensor([chart.M for chart in self.layout.charts])
        return drawn / unit_atoms(self.layout, drawn).repeat_interleave(rows).unsqueeze(1)

    @property
    def B(self) -> Float[Tensor, "k p"]:
        """All decoders, (M_tot, p)."""
        return torch.cat(list(self.decoders))

    def decode(self, codes: Codes | SparseCodes) -> Float[Tensor, "n p"]:
        """ẑ of codes, differentiable in decoders, weights and coordinates.

        Args:
            codes: of n rows.
        """
        if isinstance(codes, SparseCodes):
            codes = codes.plain(self.B)
        return decode(self.layout, self.B, codes)

    def encode(self, Z: Float[Tensor, "n p"], *, differentiable: Literal[False, "implicit"] = False) -> Codes:
        """Codes of rows from nothing.

        Args:
            Z: rows, (n, p).
            differentiable: False for codes without derivatives, or "implicit" for codes that are
                differentiable in Z and the decoders (which atoms are open is held).
        Raises:
            ValueError: rows of another width, not finite, or an unknown option.
        """
        check_choice("differentiable", differentiable, (False, "implicit"))
        Z = check_points("Z", Z, self.p)
        with torch.no_grad():
            codes = self._solved(Z.detach(), polish=differentiable == "implicit")
        if not differentiable:
            return _like(codes, Z)
        rows, B = Z.double() / self.scale, self.B.double()
        if self.gate == "softmax":
            found = implicit_softmax(
                self.layout, rows, B / self.scale, codes, tau=self.tau, entropy=self.entropy
            )
            return _like(found, Z)
        inner = Codes(codes.atoms, codes.weights / self.scale, codes.coords)
        found = implicit_amplitudes(self.layout, rows, B, inner)
        return _like(Codes(found.atoms, found.weights * self.scale, found.coords), Z)

    def _solved(self, Z: Tensor, *, polish: bool) -> Codes:
        rows, B = Z.double() / self.scale, self.B.detach().double()
        steps = POLISH if polish else 0
        if self.gate == "softmax":
            tau, entropy, target = self.tau, self.entropy, projected(rows, B / self.scale)
            found = encode_softmax(self.layout, rows, B / self.scale, tau=tau, entropy=entropy)
            return step_softmax(
                self.layout, target, found.codes, found.damping, steps=steps, tau=tau, entropy=entropy
            ).codes
        cost = self.p * (self.sigma / self.scale) ** 2 / 8
        found = encode(self.layout, rows, B, self.n_active, cost)
        codes = step_rows(self.layout, rows @ B.mT, B @ B.mT, found.codes, found.damping, steps=steps).codes
        return Codes(codes.atoms, codes.weights * self.scale, codes.coords)

    def forward(self, Z: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        """ẑ of rows, their codes held: differentiable in the decoders."""
        return self.decode(self.encode(Z))

    def loss(
        self,
        Z: Float[Tensor, "n p"],
        codes: Codes | None = None,
        *,
        lam: Float[Tensor, " k"] | float = 0.0,
    ) -> Float[Tensor, ""]:
        """F over the number of rows: misfit, entropy and roughness; its gradient is exact with codes held.

        Args:
            Z: rows, (n, p).
            codes: of the rows; None to solve for them.
            lam: λ, (K,) or one for all.
        """
        codes = self.encode(Z) if codes is None else codes
        strength = torch.as_tensor(lam).to(Z).expand(self.layout.K)
        entropy = self.entropy * self.scale**2 if self.gate == "softmax" else 0.0
        value = objective(self.layout, Z, self.B, codes, lam=strength, rho=0.0, entropy=entropy, tau=self.tau)
        return value / max(1, len(Z))


def _like(codes: Codes, Z: Tensor) -> Codes:
    logits = None if codes.logits is None else codes.logits.to(Z)
    return Codes(codes.atoms, codes.weights.to(Z), codes.coords.to(Z), logits)
