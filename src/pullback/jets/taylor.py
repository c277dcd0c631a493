"""Propagation of a jet through the layers of a network: who has a rule, and which rule.

The rule is found by exact type: a subclass may override ``forward``. A parametrised layer counts as the type
before parametrisation and its weight is read through the attribute. A layer with forward hooks, or of an
unknown type, goes through `pullback.jets.fallback`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from pullback.jets.elementwise import add, concatenate, multiply, scaled
from pullback.jets.fallback import nested
from pullback.jets.modules import Product, Residual, Stack, check_branch
from pullback.jets.rules import LEAVES, MAX_POOLS, SKIPPED, Affine, Elementwise, Piecewise, Rule
from pullback.jets.state import JetState
from pullback.typing import Map

CPU_BUDGET = 64 * 2**20
GPU_BUDGET = 2**30


@dataclass(frozen=True)
class Layer:
    """One step of a network: its path for messages, the module and its rule (None: unknown)."""

    path: str
    module: Map
    rule: Rule | None

    def step(self, state: JetState) -> JetState:
        """The state behind this layer."""
        if self.rule is None:
            return nested(self.module, state)
        assert isinstance(self.module, nn.Module)
        return self.rule(self.module, state)


def _residual(module: Any, state: JetState) -> JetState:
    branch = propagate(layers_of(module.block), state.shared())
    check_branch(state.value, branch.value)
    return add(state, branch)


def _product(module: Any, state: JetState) -> JetState:
    left = propagate(layers_of(module.left), state.shared())
    right = propagate(layers_of(module.right), state.shared())
    return multiply(left, right)


def _stack(module: Any, state: JetState) -> JetState:
    return stacked(module, [propagate(layers_of(branch), state.shared()) for branch in module.branches])


def stacked(module: Stack, outputs: list[JetState]) -> JetState:
    """The state behind a `Stack` from those behind its branches."""
    times = [
        state if s == 1 else scaled(state, state.value.new_tensor(s), None)
        for s, state in zip(module.scales, outputs, strict=True)
    ]
    return concatenate(times)


_RULES: dict[type[nn.Module], Rule] = {
    **LEAVES,
    Residual: _residual,
    Product: _product,
    Stack: _stack,
}


def branches_of(layer: Layer) -> list[tuple[str, Map]]:
    """The maps inside of a step that applies several, with their paths."""
    module: Any = layer.module
    if layer.rule is None:
        return []
    if type(module) is Residual:
        named = [("block", module.block)]
    elif type(module) is Product:
        named = [("left", module.left), ("right", module.right)]
    elif type(module) is Stack:
        named = [(str(k), branch) for k, branch in enumerate(module.branches)]
    else:
        return []
    return [(f"{layer.path}.{name}".lstrip("."), branch) for name, branch in named]


def register_jet_rule(module_type: type[nn.Module], rule: Rule) -> None:
    """Teach jets a layer type.

    Args:
        module_type: the exact class; subclasses are not covered.
        rule: maps (module, state) to the `JetState` behind the module, and leaves the state's
            tensors as they are.
    Raises:
        TypeError: ``module_type`` is not a module class or ``rule`` is not callable.
    Example:
        >>> from torch import nn
        >>> class Double(nn.Module):
        ...     def forward(self, x):
        ...         return 2 * x
        >>> from dataclasses import replace
        >>> def rule(module, state):
        ...     return replace(state, value=2 * state.value, rows=2 * state.rows)
        >>> register_jet_rule(Double, rule)
    """
    if not (isinstance(module_type, type) and issubclass(module_type, nn.Module)):
        raise TypeError(f"module_type: expected a subclass of nn.Module, got {module_type!r}")
    if not callable(rule):
        raise TypeError(f"rule: expected a function of (module, state), got {rule!r}")
    _RULES[module_type] = rule


def supported() -> list[str]:
    """Names of the layer types that have a rule."""
    return sorted(kind.__name__ for kind in _RULES)


def _changed(module: Any) -> bool:
    """Whether hooks or a replaced ``forward`` make the module differ from its class."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def _contents(module: Any) -> list[tuple[str, nn.Module]] | None:
    """Layers that a container applies in order, or None if it is not such a container."""
    if _changed(module):
        return None
    if "jet_layers" in module.__dict__ or hasattr(type(module), "jet_layers"):
        names = {id(layer): name for name, layer in module.named_modules()}
        listed = module.jet_layers()  # type: ignore[operator]
        return [(names.get(id(layer), str(k)), layer) for k, layer in enumerate(listed)]
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        # not named_children, which passes over a layer that occurs a second time
        return list(module._modules.items())  # type: ignore[arg-type]
    return None


def layers_of(f: Map, path: str = "") -> list[Layer]:
    """The steps of ``f`` in order, containers opened."""
    if not isinstance(f, nn.Module):
        return [Layer(path, f, None)]
    contents = _contents(f)
    if contents is None:
        if _changed(f):
            return [Layer(path, f, None)]
        kind = type(f)
        if "parametrizations" in f._modules:
            kind = cast(type[nn.Module], type_before_parametrizations(f))
        return [] if kind in SKIPPED else [Layer(path, f, _RULES.get(kind))]
    prefix = f"{path}." if path else ""
    return [layer for name, child in contents for layer in layers_of(child, prefix + name)]


def steps_of(module: nn.Module) -> list[nn.Module] | None:
    """The modules of `layers_of`, in less time; None where one is not what its class says, or random now."""
    if _changed(module):
        return None
    kind = type(module)
    if "jet_layers" in module.__dict__ or hasattr(kind, "jet_layers"):
        inner = module.jet_layers()  # type: ignore[operator]
    elif isinstance(module, nn.Sequential) and kind.forward is nn.Sequential.forward:
        inner = module._modules.values()
    elif kind in SKIPPED:
        return None if module.training and kind is not nn.Identity else []
    else:
        return [module]
    steps: list[nn.Module] = []
    for part in inner:
        found = steps_of(part)
        if found is None:
            return None
        steps += found
    return steps


def survey(layers: list[Layer]) -> Iterator[Layer]:
    """All steps, and those inside of branches after the step that holds them."""
    for layer in layers:
        yield layer
        for path, branch in branches_of(layer):
            yield from survey(layers_of(branch, path))


def propagate(layers: list[Layer], state: JetState) -> JetState:
    """The state behind all ``layers``."""
    for layer in layers:
        state = layer.step(state)
    return state


def affine_tail(layers: list[Layer]) -> tuple[list[Layer], list[Layer]]:
    """Layers up to the last that is not affine, and the affine ones behind it, which rows pass one by one."""
    k = len(layers)
    while k and isinstance(layers[k - 1].rule, Affine):
        k -= 1
    return layers[:k], layers[k:]


def is_piecewise_linear(steps: list[Layer]) -> bool:
    """Whether the net has piecewise-linear activations and no other nonlinear step."""
    straight = (Affine, Piecewise)
    known = [isinstance(s.rule, straight) or type(s.module) in (*MAX_POOLS, Residual, Stack) for s in steps]
    kinked = [isinstance(s.rule, Piecewise) or type(s.module) in MAX_POOLS for s in steps]
    return all(known) and any(kinked)


def width_of(layers: list[Layer], x: Tensor) -> int:
    """Largest number of features of a point in front of or behind a step, measured on one point."""
    steps = list(survey(layers))
    widths = [x.shape[1]]
    widths += [
        max(s.module.in_features, s.module.out_features) for s in steps if isinstance(s.module, nn.Linear)
    ]
    if x.shape[0] > 1 and not all(_keeps_width(step) for step in steps):
        # In the mode of the caller: what a module keeps of this call must not have lost its graph.
        widths += _measured(layers, x[:1])
    return max(widths)


def _measured(layers: list[Layer], v: Tensor) -> list[int]:
    """Numbers of features behind each step at one point, those inside of a stack's branches included."""
    widths = []
    for layer in layers:
        if type(layer.module) is Stack:
            widths += [w for _, branch in branches_of(layer) for w in _measured(layers_of(branch), v)]
        v = layer.module(v)
        widths.append(v.numel())
    return widths


def _keeps_width(step: Layer) -> bool:
    """Whether a step, linear layers and branches aside, has as many outputs as inputs."""
    if isinstance(step.rule, Elementwise | Piecewise) or isinstance(step.module, nn.Linear):
        return True
    return step.rule is not None and type(step.module) in (Residual, Product)


def chunk_rows(x: Tensor, rows: int, width: int) -> int:
    """Points a chunk: the working set of about 6 tensors (rows, points, width) fits the budget."""
    budget = CPU_BUDGET if x.device.type == "cpu" else GPU_BUDGET
    return max(1, budget // (6 * rows * width * x.element_size()))
