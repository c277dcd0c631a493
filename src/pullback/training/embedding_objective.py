"""The objective of parametric UMAP: cross entropy along sampled edges, and what a decoder loses."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.models.umap import UMAPModule, umap_loss_at
from pullback.training.distributed import ALONE, Reduce
from pullback.training.graph_batches import Pairs
from pullback.training.objective import Loss, Trainable
from pullback.training.partition_terms import PartitionRegularizer
from pullback.validation import check_positive

CROSS_ENTROPY = "cross_entropy"
RECONSTRUCTION = "reconstruction"


class EmbeddingObjective(Trainable):
    """Cross entropy of edges and random pairs; with a decoder, its mean squared error beside it.

    The decoder is shown codes without their gradient: it reads the embedding and does not shape it.

    Args:
        model: encoder and perhaps decoder.
        a, b: of `pullback.models.umap.curve_parameters`.
        negative_sample_rate: random pairs an edge.
        repulsion_strength: weight of the random pairs.
        partition: reserves coordinates of the codes for known quantities, which batches then hold.
    """

    def __init__(
        self,
        model: UMAPModule,
        a: float,
        b: float,
        *,
        negative_sample_rate: int = 5,
        repulsion_strength: float | int = 1.0,
        partition: PartitionRegularizer | None = None,
    ):
        super().__init__()
        check_positive("repulsion_strength", repulsion_strength, zero=True)
        self.model, self.a, self.b = model, float(a), float(b)
        self.negative_sample_rate, self.repulsion_strength = negative_sample_rate, float(repulsion_strength)
        self.partition = partition

    @property
    def noise_features(self) -> int:
        return 0

    def forward(
        self,
        x: Float[Tensor, "r p"],
        noise: Int[Tensor, " s"] | None = None,
        step: int = 0,
        reduce: Reduce = ALONE,
        *,
        quantities: Pairs | None = None,
    ) -> Loss:
        """Loss of a batch of `pullback.training.graph_batches.EdgeBatches`.

        Args:
            x: this process's rows.
            noise: places in ``x`` of the rows to decode.
            step: number of steps taken, for weights that change.
            reduce: sum over processes, with gradient.
            quantities: the pairs to score, and known quantities of the rows.
        """
        assert quantities is not None
        own = self.model.encode(x)
        codes = own if reduce.size == 1 else reduce.gather(own)
        count = quantities.places.shape[1]
        total = umap_loss_at(
            codes,
            quantities.places,
            count // (1 + self.negative_sample_rate),
            self.a,
            self.b,
            repulsion_strength=self.repulsion_strength,
            reduction="sum",
        )
        terms = {CROSS_ENTROPY: _mean(total, count, reduce)}
        if noise is not None:
            error = self.model.decode(own.detach()[noise]) - x[noise]
            terms[RECONSTRUCTION] = _mean(error.square().sum(), error.numel(), reduce)
        if self.partition is not None:
            terms |= self.partition.terms(self.model, x, own, reduce, quantities=quantities.columns)
        return Loss(total=self.combine(terms, step), terms=terms)

    def combine(self, terms: Mapping[str, Any], step: int) -> Any:
        """Sum of the terms, those of the partition with its weights."""
        return sum(self._weight(name, step) * term for name, term in terms.items())

    def _weight(self, name: str, step: int) -> float:
        weight = None if self.partition is None else self.partition.weight_of(name, step)
        return 1.0 if weight is None else weight

    def describe(self) -> dict[str, Any]:
        """What makes this objective another one, as plain values, for checkpoints."""
        state = {name: [*value.shape, str(value.dtype)] for name, value in self.model.state_dict().items()}
        names = ("a", "b", "negative_sample_rate", "repulsion_strength")
        told = {"model": repr(self.model), "tensors": state}
        if self.partition is not None:
            told["partition"] = self.partition.describe()
        return told | {name: getattr(self, name) for name in names}


def _mean(total: Tensor, count: int, reduce: Reduce) -> Tensor:
    """A sum over this process's entries as the mean over those of all."""
    if reduce.size == 1:
        return total / count
    whole = reduce(torch.stack([total, total.new_tensor(float(count))]))
    return whole[0] / whole[1]
