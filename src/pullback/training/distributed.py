"""One process or many: sums over processes that carry gradients, and the Fabric engine that runs a step.

A run is distributed exactly where ``torchrun`` started it. Otherwise nothing of this costs anything: the
sum over processes is the identity, no process group exists.
"""

import atexit
import os
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy
from torch import Tensor

from pullback.training.options import Precision, TrainingOptions


@runtime_checkable
class Reduce(Protocol):
    """Sum and collection over processes, with gradient."""

    size: int
    rank: int

    def __call__(self, tensor: Tensor) -> Tensor:
        """Σ over processes of a tensor of one shape."""
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes, in the order of the processes."""
        ...


class Alone:
    """One process: every sum is its own."""

    size = 1
    rank = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, rows: Tensor) -> Tensor:
        return rows


class Together:
    """All processes of the process group."""

    def __init__(self) -> None:
        self.size, self.rank = dist.get_world_size(), dist.get_rank()

    def __call__(self, tensor: Tensor) -> Tensor:
        return _Sum.apply(tensor)  # type: ignore[return-value]

    def gather(self, rows: Tensor) -> Tensor:
        return _Gather.apply(rows, self.size, self.rank)  # type: ignore[return-value]


ALONE = Alone()


class _Sum(torch.autograd.Function):
    """Σ over processes; the gradient of Σ_r L_r by a summand is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """Rows of all processes; numbers of rows may differ and may be 0."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, size: int, rank: int) -> Tensor:
        own = torch.tensor([rows.shape[0]], device=rows.device)
        counts = [torch.empty_like(own) for _ in range(size)]
        dist.all_gather(counts, own)
        sizes = [int(count) for count in counts]
        ctx.bounds = (sum(sizes[:rank]), sum(sizes[: rank + 1]))
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in range(size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.bounds[0] : ctx.bounds[1]], None, None


def started_by_torchrun() -> bool:
    """Whether this process is one of several that ``torchrun`` started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def resolve_device(name: str) -> torch.device:
    """The device behind an option; "auto" takes CUDA, else Apple's GPU, else the CPU.

    Raises:
        ValueError: an unknown name, or a device that this machine lacks.
    """
    if name == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device: expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps', got {name!r}"
        ) from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise ValueError(f"device: {name!r} is not available here; use 'auto' or 'cpu'")
    return device


@dataclass(frozen=True)
class Engine:
    """What runs a step: Fabric with its device and precision, and the sum over processes."""

    fabric: Fabric
    reduce: Reduce
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.reduce.rank == 0

    @property
    def is_plain(self) -> bool:
        """Whether a step needs neither casts nor other processes."""
        return self.reduce.size == 1 and self.fabric.strategy.precision.precision == "32-true"

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process; every process must ask."""
        if self.reduce.size == 1:
            return flag
        tensor = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return bool(tensor.item())

    def largest(self, value: float) -> float:
        """The largest value of all processes; every process must ask."""
        if self.reduce.size == 1:
            return value
        tensor = torch.tensor([value], device=self.device, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return float(tensor.item())

    def stacked(self, tensor: Tensor) -> Tensor:
        """The tensor of every process, ``(processes, ...)``, on the CPU; every process must ask."""
        if self.reduce.size == 1:
            return tensor.cpu().unsqueeze(0)
        own = tensor.to(self.device)
        parts = [torch.empty_like(own) for _ in range(self.reduce.size)]
        dist.all_gather(parts, own)
        return torch.stack(parts).cpu()


def make_engine(options: TrainingOptions, dtype: torch.dtype, *, unused: bool = False) -> Engine:
    """The engine for a model of that dtype; under ``torchrun`` it joins the process group.

    Args:
        options: device and precision.
        dtype: of the model's parameters; sets the precision where the options do not.
        unused: whether some parameters take no part in the loss, which DDP must know.
    """
    precision: Precision = options.precision or ("64-true" if dtype == torch.float64 else "32-true")
    device = resolve_device(options.device)
    if not started_by_torchrun():
        devices = 1 if device.type == "cpu" or device.index is None else [device.index]
        fabric = Fabric(
            accelerator=device.type, devices=devices, precision=precision, plugins=[LightningEnvironment()]
        )
        return Engine(fabric, ALONE, fabric.device)
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = Fabric(
        accelerator=device.type,
        devices=local,
        num_nodes=int(os.environ["WORLD_SIZE"]) // local,
        strategy=DDPStrategy(find_unused_parameters=unused),
        precision=precision,
        plugins=[TorchElasticEnvironment()],
    )
    theirs = dist.is_initialized()
    fabric.launch()
    if not theirs:
        atexit.register(_leave_process_group)
    return Engine(fabric, Together(), fabric.device)


def _leave_process_group() -> None:
    """End the process group while Python is whole.

    Its threads may still hold tensors; freed while the interpreter is torn down, those abort the process.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
