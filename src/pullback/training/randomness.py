"""The random stream of layers that draw for themselves, such as dropout: seeded for a run, then put back.

Those layers read PyTorch's default generators. During a run the default generators hold a stream that
belongs to the seed and the process; afterwards they stand where they stood before.
"""

from types import TracebackType
from typing import Any

import torch
from torch import Tensor


class LayerRandomness:
    """While this is open, the default generators of the CPU and of ``device`` hold the run's own stream.

    Args:
        seed: seed of the run.
        device: where the model is.
        rank: number of the process; each draws its own masks.
    """

    def __init__(self, seed: int, device: torch.device, rank: int = 0):
        self.seed, self.device, self.rank = seed, device, rank
        self._before: dict[str, Tensor] = {}

    def _device_module(self) -> Any:
        return None if self.device.type == "cpu" else torch.get_device_module(self.device)

    def _which(self) -> tuple[torch.device, ...]:
        """The argument that tells CUDA's devices apart; other kinds have one device and take none."""
        return (self.device,) if self.device.type == "cuda" else ()

    def state(self) -> dict[str, Tensor]:
        """States of the default generators."""
        states = {"cpu": torch.get_rng_state()}
        module = self._device_module()
        if module is not None:
            states["device"] = module.get_rng_state(*self._which())
        return states

    def restore(self, states: dict[str, Tensor]) -> None:
        """Set the default generators to earlier states."""
        torch.set_rng_state(states["cpu"])
        module = self._device_module()
        if module is not None and "device" in states:
            module.set_rng_state(states["device"], *self._which())

    def _seeded(self) -> dict[str, Tensor]:
        base = torch.Generator().manual_seed(self.seed)
        seeds = torch.randint(2**62, (self.rank + 1,), generator=base)
        own = int(seeds[self.rank])
        states = {"cpu": torch.Generator().manual_seed(own).get_state()}
        if self._device_module() is not None:
            states["device"] = torch.Generator(self.device).manual_seed(own).get_state()
        return states

    def __enter__(self) -> "LayerRandomness":
        self._before = self.state()
        self.restore(self._seeded())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore(self._before)
