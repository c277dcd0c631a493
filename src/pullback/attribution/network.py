"""A network taken apart for attribution: what stands in front of it, its affine stem, and the rest.

Everything nonlinear happens behind the stem, the leading affine layers. A straight line in x is a straight
line behind the stem, so paths are followed there, and the stem is pulled back once for a whole path.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.attribution.preprocessing import Preprocessing
from pullback.jets.affine import is_flat
from pullback.jets.checks import check_dtype, check_mode, check_output
from pullback.jets.rules import MAX_POOLS, Affine, Piecewise
from pullback.jets.sweep import NORMS
from pullback.jets.taylor import Layer, layers_of, survey

CHUNK_BYTES = 16 * 2**20
"""Size of a chunk: large enough for quick products, small beside what is explained."""


@dataclass(frozen=True, eq=False)
class Network:
    """f = net ∘ preprocessing, with its layers.

    Attributes:
        net: the module, in eval mode.
        preprocessing: what stands in front of it, or None.
        layers: its steps.
        stem: how many of the first ones are affine.
    """

    net: nn.Module
    preprocessing: Preprocessing | None
    layers: list[Layer]
    stem: int

    @property
    def steps(self) -> list[Layer]:
        """All steps, those inside of branches included."""
        return list(survey(self.layers))

    @property
    def flat(self) -> bool:
        """Whether it is linear piece by piece, norms aside."""
        return all(is_flat(step) for step in self.steps)

    @property
    def normed(self) -> bool:
        """Whether a norm's scale depends on the point."""
        return any(type(step.module) in NORMS for step in self.steps)

    @property
    def piecewise_linear(self) -> bool:
        """Whether it is linear piece by piece."""
        return self.flat and not self.normed

    @property
    def smooth(self) -> bool:
        """Whether all steps are known and none has a kink."""
        return not any(
            step.rule is None or isinstance(step.rule, Piecewise) or type(step.module) in MAX_POOLS
            for step in self.steps
        )

    def enter(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n k"]:
        """What the net sees of raw rows."""
        return x if self.preprocessing is None else self.preprocessing.apply(x)

    def __call__(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
        """f(x) by the network's own forward pass."""
        value = self.net(self.enter(x))
        check_output(value, x)
        return value

    def is_its_layers(self, x: Float[Tensor, "n p"]) -> bool:
        """Whether the layers' own forward passes, one after the other, give what the network gives.

        Containers are opened, and one of one's own may not do what it says; on rows where it does, the
        network need not run a second time beside its layers.
        """
        if not len(x):
            return True
        e = self.enter(x)
        layered = e.clone()
        for layer in self.layers:
            layered = layer.module(layered)
        return bool(torch.allclose(layered, self.net(e), rtol=1e-5, atol=1e-7 * float(layered.abs().max())))

    def through_stem(self, e: Tensor) -> Tensor:
        """What stands behind the stem."""
        for layer in self.layers[: self.stem]:
            assert isinstance(layer.rule, Affine)
            assert isinstance(layer.module, nn.Module)
            e = layer.rule.value(layer.module, e)
        return e

    @property
    def tail(self) -> list[Layer]:
        """The steps behind the stem."""
        return self.layers[self.stem :]

    def double(self, x: Float[Tensor, "n p"]) -> "Network":
        """The same network in float64, or itself where a copy cannot be made or does not run."""
        if x.dtype == torch.float64:
            return self
        try:
            net = copy.deepcopy(self.net).double()
            front = None if self.preprocessing is None else self.preprocessing.to(x[:0].double())
            network = take_apart(net, front)
            network(x[:1].double())
        except (RuntimeError, TypeError, NotImplementedError):
            return self
        return network


def take_apart(net: nn.Module, preprocessing: Preprocessing | None) -> Network:
    """The network and its layers."""
    layers = layers_of(net)
    stem = 0
    while stem < len(layers) and isinstance(layers[stem].rule, Affine):
        stem += 1
    return Network(net, preprocessing, layers, stem)


def read_network(net: Any, x: Tensor, preprocessing: Preprocessing | None) -> Network:
    """The network, checked to take rows like ``x``.

    Raises:
        TypeError: no module, or of another precision.
        ValueError: a layer couples or randomises rows in train mode.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net: expected an nn.Module, got {type(net).__name__}")
    check_mode(net, "net.eval()")
    check_dtype(net, x)
    return take_apart(net, None if preprocessing is None else preprocessing.to(x))


def rows_at_once(width: int, itemsize: int) -> int:
    """Rows of ``width`` numbers that fit a chunk, between 16 and 4096."""
    return min(max(CHUNK_BYTES // (itemsize * max(width, 1)), 16), 4096)


def first_curved(network: Network) -> Layer | None:
    """The first step that is not linear piece by piece."""
    return next((step for step in network.steps if not is_flat(step)), None)


@contextmanager
def quiet(x: Tensor) -> Iterator[None]:
    """No gradients and no automatic precision."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        yield
