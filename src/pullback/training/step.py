"""What a step needs: the objective as a module of tensors, its optimiser, a look at unused parameters."""

from typing import Any

import torch
from torch import Tensor, nn

from pullback.training.batches import Placement, as_batches, seeded_streams
from pullback.training.distributed import ALONE, Reduce
from pullback.training.objective import Trainable
from pullback.training.options import TrainingOptions


class Step(nn.Module):
    """The objective as DDP and Fabric want it: tensors in, tensors out."""

    def __init__(self, objective: Trainable, reduce: Reduce):
        super().__init__()
        self.objective, self.reduce = objective, reduce
        self.names: list[str] = []

    def forward(self, x: Tensor, noise: Tensor | None, quantities: Any, step: int) -> tuple:
        loss = self.objective(x, noise, step, self.reduce, quantities=quantities)
        self.names = list(loss.terms)
        return loss.total, torch.stack([term.detach().to(loss.total.dtype) for term in loss.terms.values()])


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Parameters that are trained."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def dtype_of(module: nn.Module) -> torch.dtype:
    """Precision of the first floating-point parameter."""
    floating = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    return next(floating, torch.get_default_dtype())


def make_optimizer(
    objective: Trainable, options: TrainingOptions, device: torch.device
) -> torch.optim.Optimizer:
    """Adam, with decoupled weight decay where that is asked."""
    kind = torch.optim.AdamW if options.weight_decay else torch.optim.Adam
    fused = device.type in ("cpu", "cuda")
    return kind(trainable(objective), lr=options.lr, weight_decay=options.weight_decay, fused=fused or None)


def has_unused_parameters(objective: Trainable, data: Any, options: TrainingOptions) -> bool:
    """Whether a parameter takes no part in the loss of a batch; DDP has to know before it starts."""
    device = next(objective.parameters()).device
    placement = Placement(device, dtype_of(objective), objective.noise_features)
    batch = next(as_batches(data, options.batch_size, placement, shuffle=False).epoch(seeded_streams(0)))
    mode = objective.training
    objective.eval()
    loss = objective(batch.x, batch.noise, 0, ALONE, quantities=batch.quantities)
    objective.train(mode)
    gradients = torch.autograd.grad(loss.total, trainable(objective), allow_unused=True)
    return any(gradient is None for gradient in gradients)
