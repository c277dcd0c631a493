"""A partition of the latent space as terms of an objective, on one process or many."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from pullback.subspaces import PartitionLoss
from pullback.training.distributed import Reduce
from pullback.training.penalty_terms import STEPS

PREFIX = "partition/"


class PartitionRegularizer(nn.Module):
    """Terms "partition/fit", "partition/leak", "partition/free", "partition/isotropy" where that has weight.

    Beside them, without weight, stands what each quantity contributes: "fit/mass", "leak/mass" (the mean over
    all other blocks), "free/mass". Every R² is that of the batch of all processes.

    Args:
        loss: knows its targets.
        strength: factor of all its weights.
    """

    def __init__(self, loss: PartitionLoss, strength: float = 1.0):
        super().__init__()
        self.loss, self.strength = loss, float(strength)

    def terms(
        self, model: nn.Module, x: Tensor, z: Tensor, reduce: Reduce, *, quantities: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See `pullback.training.objective.Regularizer`."""
        assert quantities is not None
        codes, columns = reduce.gather(z), reduce.gather(quantities)
        self.loss.check_rows(len(codes), "batch")
        # solves in half precision would be worth nothing
        with torch.autocast(codes.device.type, enabled=False):
            wide = torch.promote_types(codes.dtype, torch.float32)
            scores = self.loss.scores(codes.to(wide), columns.to(wide), isotropy=self._spread_counts)
            found = {PREFIX + name: term for name, term in self.loss.means(scores).items()}
        with torch.no_grad():
            others = max(1, len(self.loss.names) - 1)
            parts = {"fit": scores.fit, "leak": scores.leak.sum(1) / others, "free": scores.free}
            for kind, values in parts.items():
                named = zip(self.loss.names, values.detach().unbind(), strict=True)
                found |= {f"{kind}/{name}": value for name, value in named}
        return found

    @property
    def _spread_counts(self) -> bool:
        weight = self.loss.weights["isotropy"]
        return bool(callable(weight) or weight)

    def weight_of(self, name: str, step: int) -> float | None:
        """Weight of one of these terms at a step; None for others."""
        if name.startswith(PREFIX):
            return self.strength * self.loss.weight(name.removeprefix(PREFIX), step)
        kind, slash, quantity = name.partition("/")
        own = slash and kind in ("fit", "leak", "free") and quantity in self.loss.sizes
        return 0.0 if own else None

    def describe(self) -> dict[str, Any]:
        """What makes this partition another one, as plain values."""
        digest = hashlib.sha256()
        for name in ("y_mean", "y_rate", "implied"):
            digest.update(
                getattr(self.loss, name).detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            )
        names = [name for name in self.loss.weights if name != "isotropy" or self._spread_counts]
        weights = {name: [self.weight_of(PREFIX + name, step) for step in STEPS] for name in names}
        return {
            "sizes": list(self.loss.sizes.items()),
            "ridge": self.loss.ridge,
            "weights": weights,
            "targets": digest.hexdigest(),
        }
