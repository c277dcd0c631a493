"""The objective: a model's loss terms, regularisers and their weights, summed to one number.

Every term is a mean over the batch of all processes. Each process computes the same total, from sums that
carry gradients between processes (`pullback.training.distributed`); averaging the gradients of the
processes, as DDP does, then gives the gradient of one process with the whole batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pullback.training.distributed import ALONE, Reduce
from pullback.training.partition_terms import PartitionRegularizer
from pullback.training.penalty_terms import Penalty, Scored, name_of, named_terms
from pullback.typing import Schedule
from pullback.validation import check_positive

Weight = float | int | Schedule
FREE_BITS = "free_bits"
TOTAL = "loss"

__all__ = ["LinearWarmup", "Loss", "Objective", "Penalty", "Regularizer", "Trainable", "global_means"]


@dataclass(frozen=True)
class Loss:
    """Total of a batch and its terms, each a mean over the rows of all processes and without its weight."""

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class LinearWarmup:
    """A weight that rises linearly from 0 to ``final`` over the first ``steps`` steps.

    Example:
        >>> warmup = LinearWarmup(10, final=0.5)
        >>> warmup(0), warmup(5), warmup(100)
        (0.0, 0.25, 0.5)
    """

    steps: int
    final: float = 1.0

    def __call__(self, step: int) -> float:
        return self.final if step >= self.steps else self.final * step / self.steps


@runtime_checkable
class Regularizer(Protocol):
    """Something that adds named terms to the objective of a model."""

    def terms(
        self, model: nn.Module, x: Tensor, z: Tensor, reduce: Reduce, *, quantities: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Named terms (scalars) for the batch of all processes.

        Args:
            model: the model.
            x: this process's rows of data ``(b, p)``.
            z: their codes ``(b, d)``, with gradient.
            reduce: ``reduce(tensor)`` sums over processes, ``reduce.gather(rows)`` collects rows; both with
                gradient.
            quantities: known quantities of the rows ``(b, m)``, where the data come with them.
        """
        ...


def global_means(terms: Mapping[str, Tensor], reduce: Reduce = ALONE) -> dict[str, Tensor]:
    """Mean of each term ``(b,)`` or ``(b, k)`` over the rows of all processes: scalars or ``(k,)``.

    One sum over the processes serves all terms and the number of rows.
    """
    if reduce.size == 1:
        return {name: term.mean(0) for name, term in terms.items()}
    flat = [term.unsqueeze(-1).flatten(1).sum(0) for term in terms.values()]
    rows = torch.full((1,), float(next(iter(terms.values())).shape[0])).to(flat[0])
    total = reduce(torch.cat([*flat, rows]))
    parts = total[:-1].split([part.numel() for part in flat])
    shapes = [term.shape[1:] for term in terms.values()]
    return {
        name: (part / total[-1]).reshape(shape)
        for name, part, shape in zip(terms, parts, shapes, strict=True)
    }


class Trainable(nn.Module, ABC):
    """What the loop trains: a model and the loss of a batch, which says what it is made of."""

    model: Any

    @property
    @abstractmethod
    def noise_features(self) -> int:
        """Standard normal numbers that a row needs."""

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        noise: Tensor | None = None,
        step: int = 0,
        reduce: Reduce = ALONE,
        *,
        quantities: Any = None,
    ) -> Loss:
        """Loss of a batch; the same on all processes."""

    @abstractmethod
    def combine(self, terms: Mapping[str, Any], step: int) -> Any:
        """The total of terms at a step."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What makes this objective another one, as plain values, for checkpoints."""


class Objective(Trainable):
    """total = Σ_k weight_k · term_k over the model's own terms and those of regularisers.

    With free bits λ the term "free_bits" = Σ_j max(0, λ - KL_j), KL_j the batch mean of dimension j, joins
    the KL under the same weight: kl + free_bits = Σ_j max(λ, KL_j) (Kingma et al. 2016).

    Args:
        model: a module with ``evaluate(x, noise) -> Evaluation``, ``noise_features``, ``decoder``. If it has
            a method ``after_step()``, the loop calls it after each step of the optimiser. If it has
            ``refuses(loss, largest)``, the loop asks it before each step and evaluates the batch again, with
            the same noise, where it does; what ``remark()`` returns joins the message of the result.
        weights: weight of a term by name, a number or a function of the step; 1 where nothing is said.
        free_bits: λ in nats a latent dimension.
        penalties: objects of `pullback.penalties`, or with ``penalize(decoder, z)``; where each is scored:
            `pullback.training.penalty_terms`. Their own weights and schedules count where ``weights`` says
            nothing.
        partition: an object with ``terms(...)``; see `Regularizer`. It sees the codes.
        library: total that counts are decoded to for a penalty, where each row has its own.
        seed: of the latent points that penalties draw.

    Example:
        >>> import torch
        >>> from pullback.models import MLP, VAE, Bernoulli
        >>> objective = Objective(VAE(MLP(5, 4), MLP(2, 5), Bernoulli()), weights={"kl": 0.5})
        >>> loss = objective(torch.ones(3, 5), torch.zeros(3, 2))
        >>> sorted(loss.terms)
        ['kl', 'reconstruction']
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weights: Mapping[str, Weight] | None = None,
        free_bits: float = 0.0,
        penalties: Sequence[Any] = (),
        partition: Any = None,
        library: float | None = None,
        seed: int = 0,
    ):
        super().__init__()
        check_positive("free_bits", free_bits, zero=True)
        if partition is not None and not isinstance(partition, Regularizer):
            raise TypeError(
                "partition: expected pullback.SubspacePartition(...) or an object with terms(...), got "
                f"{partition!r}"
            )
        for name, weight in (weights or {}).items():
            if not callable(weight) and not isinstance(weight, float | int):
                raise TypeError(
                    f"weights: expected a number or a function of the step for {name!r}, got {weight!r}"
                )
        self.model = model
        self.weights = dict(weights or {})
        self.free_bits = float(free_bits)
        self.penalties = named_terms(penalties)
        self.partition = partition
        self.library, self.seed = library, seed
        # regularisers that are modules move, train and are saved with the model
        owners = [*(entry.penalty for entry in self.penalties), partition]
        self.regularizer_modules = nn.ModuleList(owner for owner in owners if isinstance(owner, nn.Module))

    @property
    def noise_features(self) -> int:
        """Standard normal numbers that a row needs."""
        return self.model.noise_features

    def weight(self, name: str, step: int) -> float:
        """Weight of a term at a step."""
        weight = self.weights.get("kl" if name == FREE_BITS else name)
        if weight is None:
            weight = next((entry.weight(step) for entry in self.penalties if entry.name == name), None)
        if weight is None and isinstance(self.partition, PartitionRegularizer):
            weight = self.partition.weight_of(name, step)
        if weight is None:
            return 1.0
        return float(weight(step) if callable(weight) else weight)

    def combine(self, terms: Mapping[str, Any], step: int) -> Any:
        """Σ_k weight_k(step) · term_k of scalars or of 0-dimensional tensors."""
        total = None
        for name, term in terms.items():
            weight = self.weight(name, step)
            part = term if weight == 1.0 else weight * term
            total = part if total is None else total + part
        return total

    def forward(
        self,
        x: Tensor,
        noise: Tensor | None = None,
        step: int = 0,
        reduce: Reduce = ALONE,
        *,
        quantities: Tensor | None = None,
    ) -> Loss:
        """Loss of a batch.

        Args:
            x: this process's rows ``(b, p)``.
            noise: standard normal ``(b, noise_features)``.
            step: number of steps taken, for weights that change.
            reduce: sum over processes, with gradient.
            quantities: known quantities of the rows ``(b, m)``.
        Raises:
            ValueError: a weight for a term that does not exist, or free bits without a "kl" term.
        """
        output = self.model.evaluate(x, noise)
        means = global_means(output.terms, reduce)
        terms = {name: mean.sum() if mean.ndim else mean for name, mean in means.items()}
        if self.free_bits:
            if "kl" not in means:
                raise ValueError("free_bits: expected 0 for a model without a 'kl' term")
            terms[FREE_BITS] = (self.free_bits - means["kl"]).clamp_min(0).sum()
        seen = Scored(self.model, output.z, output.codes, self.library)
        for entry in self.penalties:
            terms[entry.name] = entry.value(seen, step, reduce, self.seed)
        if self.partition is not None:
            terms |= self.partition.terms(self.model, x, output.codes, reduce, quantities=quantities)
        unknown = set(self.weights) - set(terms)
        if unknown:
            raise ValueError(f"weights: expected names among {sorted(terms)}, got {sorted(unknown)}")
        return Loss(total=self.combine(terms, step), terms=terms)

    def describe(self) -> dict[str, Any]:
        """What makes this objective another one, as plain values, for checkpoints."""
        steps = (0, 1, 10, 100, 1000, 10**4, 10**5, 10**6)
        state = {name: [*value.shape, str(value.dtype)] for name, value in self.model.state_dict().items()}
        return {
            "model": repr(self.model),
            "tensors": state,
            "free_bits": self.free_bits,
            "weights": {
                name: [float(w(s)) for s in steps] if callable(w) else float(w)
                for name, w in self.weights.items()
            },
            "penalties": [entry.describe() for entry in self.penalties],
            "partition": _described(self.partition),
        }


def _described(partition: Any) -> Any:
    if isinstance(partition, PartitionRegularizer):
        return partition.describe()
    return None if partition is None else name_of(partition)
