"""The leapfrog, explicit for a flat metric and generalised for any other."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.dynamics.fixed_point import FixedPoint, iterate, taken
from pullback.dynamics.place import Method, MomentumLogPrior, Motion, Place, make_motion
from pullback.metrics import EuclideanMetric
from pullback.validation import check_choice, check_pair, check_positive, check_whole

Backprop = Literal["exact", "truncated"]
StepSize = float | int | Tensor


@dataclass(frozen=True)
class LeapfrogStep:
    """One step of an integrator.

    Attributes:
        z, rho: position and momentum after the step.
        rho_half: momentum half way.
        carry: what is known at the new position, for the next step.
        momentum_point, position_point: the two fixed points; None for an explicit step.
    """

    z: Float[Tensor, "n d"]
    rho: Float[Tensor, "n d"]
    rho_half: Float[Tensor, "n d"]
    carry: Place
    momentum_point: FixedPoint | None = None
    position_point: FixedPoint | None = None

    @property
    def iterations(self) -> Int[Tensor, " n"]:
        """Iterations of the fixed points, the larger number of the two; 1 for an explicit step."""
        if self.momentum_point is None or self.position_point is None:
            return torch.ones(len(self.z), dtype=torch.long, device=self.z.device)
        return torch.maximum(self.momentum_point.iterations, self.position_point.iterations)

    @property
    def residual(self) -> Float[Tensor, " n"]:
        """Last increment of the fixed points, the larger of the two; 0 for an explicit step."""
        if self.momentum_point is None or self.position_point is None:
            return torch.zeros_like(self.z[:, 0])
        return torch.maximum(self.momentum_point.increment, self.position_point.increment)

    @property
    def converged(self) -> Bool[Tensor, " n"]:
        """Both fixed points are within the tolerance, or within 1e-3 where none was given."""
        if self.momentum_point is None or self.position_point is None:
            return torch.isfinite(self.z).all(1) & torch.isfinite(self.rho).all(1)
        return self.momentum_point.converged & self.position_point.converged


def check_step_size(step_size: StepSize, z: Tensor) -> None:
    """Raise unless a step is a positive number, one a dimension ``(d,)``, or one a row ``(n, 1)``."""
    if isinstance(step_size, Tensor):
        n, d = z.shape
        if tuple(step_size.shape) not in ((), (d,), (n, 1)):
            raise ValueError(
                f"step_size: expected a number, ({d},) or ({n}, 1) for z {(n, d)}, "
                f"got {tuple(step_size.shape)}"
            )
        step_size = step_size.detach()
    check_positive("step_size", step_size)


def moved(start: Tensor, direction: Tensor, step: StepSize) -> Tensor:
    """start + step · direction."""
    if isinstance(step, Tensor):
        return start + step * direction
    return torch.add(start, direction, alpha=step)


def momentum_point(
    place: Place, rho: Tensor, *, step_size: StepSize, max_iterations: int, tolerance: float | None
) -> FixedPoint:
    """r = ρ - ε/2 ∂H/∂z(z, r)."""
    if tolerance is None and place.motion.is_closed:
        base = moved(rho, place.rest_force, -step_size / 2)
        return taken(
            place.local.momentum_iterates(rho, base, half_step=step_size / 2, count=max_iterations),
            max_iterations,
        )

    def update(r: Tensor) -> Tensor:
        return rho - step_size / 2 * place.force(r)

    return iterate(update, rho, max_iterations=max_iterations, tolerance=tolerance)


def position_point(
    place: Place, rho: Tensor, *, step_size: StepSize, max_iterations: int, tolerance: float | None
) -> FixedPoint:
    """y = z + ε/2 (∂H/∂ρ(z, r) + ∂H/∂ρ(y, r))."""
    if tolerance is None and place.motion.is_closed:
        return taken(
            place.local.position_iterates(rho, half_step=step_size / 2, count=max_iterations), max_iterations
        )
    first = place.velocity(rho)

    def update(y: Tensor) -> Tensor:
        there = first if y is place.z else place.motion.at(y, place).velocity(rho)
        return place.z + step_size / 2 * (first + there)

    return iterate(update, place.z, max_iterations=max_iterations, tolerance=tolerance)


def kicked(place: Place, rho: Tensor, *, step_size: StepSize) -> Tensor:
    """ρ - ε/2 ∂H/∂z(z, ρ)."""
    if place.motion.is_closed:
        base = moved(rho, place.rest_force, -step_size / 2)
        return place.local.momentum_iterates(rho, base, half_step=step_size / 2, count=1)[0]
    return rho - step_size / 2 * place.force(rho)


def detached(point: FixedPoint, start: Tensor) -> Tensor:
    """The fixed point with the gradient of its start alone."""
    return start + (point.value - start).detach()


def step_from(
    place: Place,
    rho: Tensor,
    *,
    step_size: StepSize,
    max_iterations: int = 3,
    tolerance: float | None = None,
    backprop: Backprop = "exact",
) -> LeapfrogStep:
    """A step of the integrator of the place's metric, its arguments trusted."""
    motion: Motion = place.motion
    if isinstance(motion.metric, EuclideanMetric) and motion.name == "closed":
        half = rho - step_size / 2 * place.potential.gradient
        after = motion.at(place.z + step_size * half, place)
        return LeapfrogStep(after.z, half - step_size / 2 * after.potential.gradient, half, after)
    options: Any = {"step_size": step_size, "max_iterations": max_iterations, "tolerance": tolerance}
    exact = backprop == "exact" and torch.is_grad_enabled()
    with torch.set_grad_enabled(exact):
        first = momentum_point(place, rho, **options)
    half = first.value if exact else detached(first, rho)
    with torch.set_grad_enabled(exact):
        second = position_point(place, half, **options)
    after = motion.at(second.value if exact else detached(second, place.z), place)
    last = kicked(after, half, step_size=step_size)
    return LeapfrogStep(after.z, last, half, after, first, second)


def leapfrog(
    z: Float[Tensor, "n d"],
    rho: Float[Tensor, "n d"],
    *,
    potential: Any,
    step_size: StepSize,
    carry: Place | None = None,
) -> LeapfrogStep:
    """The explicit leapfrog of H = U(z) + ½|ρ|²: half a kick, a drift, half a kick.

    Args:
        z: positions.
        rho: momenta.
        potential: a function z -> U ``(n,)``, or a `Potential`.
        step_size: ε, a number, one a dimension ``(d,)`` or one a row ``(n, 1)``.
        carry: that of the step before, which saves a gradient of the potential.
    Raises:
        ValueError: shapes that do not fit, or a step that is not positive.
    Example:
        >>> import torch
        >>> z, rho = torch.ones(1, 1), torch.zeros(1, 1)
        >>> leapfrog(z, rho, potential=lambda z: z.square().sum(1) / 2, step_size=0.1).z
        tensor([[0.9950]])
    """
    z, rho = check_pair(("z", "rho"), z, rho)
    return generalized_leapfrog(
        z, rho, EuclideanMetric(z.shape[-1]), potential=potential, step_size=step_size, carry=carry
    )


def generalized_leapfrog(
    z: Float[Tensor, "n d"],
    rho: Float[Tensor, "n d"],
    metric: Any,
    *,
    potential: Any,
    step_size: StepSize,
    max_iterations: int = 3,
    tolerance: float | None = None,
    gradient: Method = "closed",
    backprop: Backprop = "exact",
    momentum_logprior: MomentumLogPrior | None = None,
    carry: Place | None = None,
) -> LeapfrogStep:
    """One step of the generalised leapfrog of H = U(z) - log N(ρ; 0, G(z)).

        r  = ρ - ε/2 ∂H/∂z(z, r)                       fixed point
        z' = z + ε/2 (G⁻¹(z) r + G⁻¹(z') r)            fixed point
        ρ' = r - ε/2 ∂H/∂z(z', r)

    Converged, it keeps the volume, is reversible and of second order. Neither equation need have a solution:
    then ``converged`` is False and the last finite iterate is kept. On a flat metric the step is explicit.

    Girolami and Calderhead 2011; Leimkuhler and Reich 2004, "Simulating Hamiltonian dynamics".

    Args:
        z: positions.
        rho: momenta.
        metric: any metric.
        potential: a function z -> U ``(n,)``, or a `Potential`.
        step_size: ε, a number, one a dimension ``(d,)`` or one a row ``(n, 1)``.
        max_iterations: of each fixed point.
        tolerance: on the last increment max_a |new - old| / (1 + |new|) of each row; None takes exactly
            ``max_iterations``, which is enough for training with small steps but not for a reversible
            sampler.
        gradient: see `hamiltonian_gradient`.
        backprop: "exact" differentiates through all iterations; "truncated" takes the fixed points as
            constants beyond their start, which is cheaper and biased.
        momentum_logprior: see `hamiltonian`.
        carry: that of the step before, which saves the evaluations at z.
    Raises:
        ValueError: shapes that do not fit, or options out of range.
    Example:
        >>> import torch, pullback as pb
        >>> c, L, z = torch.zeros(1, 2), torch.eye(2)[None], torch.ones(1, 2)
        >>> metric = pb.CentroidMetric(c, L, temperature=1.0, regularization=0.1)
        >>> options = {"potential": lambda z: z.square().sum(1) / 2, "step_size": 0.1}
        >>> step = generalized_leapfrog(z, z, metric, **options, tolerance=1e-6, max_iterations=50)
        >>> step.converged
        tensor([True])
    """
    z, rho = check_pair(("z", "rho"), z, rho)
    check_options(max_iterations, tolerance, backprop)
    check_step_size(step_size, z)
    motion = make_motion(metric, potential, gradient=gradient, momentum_logprior=momentum_logprior)
    place = motion.at(z) if carry is None else check_carry(carry, z)
    return step_from(
        place,
        rho,
        step_size=step_size,
        max_iterations=max_iterations,
        tolerance=tolerance,
        backprop=backprop,
    )


def check_options(
    max_iterations: int, tolerance: float | None, backprop: str, *, name: str = "max_iterations"
) -> None:
    """Raise ``ValueError`` for options of fixed points that are none."""
    check_whole(name, max_iterations)
    check_choice("backprop", backprop, ("exact", "truncated"))
    if tolerance is not None:
        check_positive("tolerance", tolerance)


def check_carry(carry: Place, z: Tensor) -> Place:
    """The place, if it is that of these positions."""
    if carry.z is not z:
        raise ValueError(
            "carry: expected that of the step that led to z; pass step.z and step.carry together"
        )
    return carry


def implicit_momentum_step(
    z: Float[Tensor, "n d"],
    rho: Float[Tensor, "n d"],
    metric: Any,
    *,
    potential: Any,
    step_size: StepSize,
    max_iterations: int = 3,
    tolerance: float | None = None,
    gradient: Method = "closed",
) -> FixedPoint:
    """r = ρ - ε/2 ∂H/∂z(z, r), the first part of `generalized_leapfrog`; each iteration starts from ρ again.

    Example:
        >>> import torch, pullback as pb
        >>> z, flat, U = torch.ones(1, 1), pb.EuclideanMetric(1), lambda z: z.square().sum(1) / 2
        >>> implicit_momentum_step(z, 0 * z, flat, potential=U, step_size=0.1).value
        tensor([[-0.0500]])
    """
    z, rho = check_pair(("z", "rho"), z, rho)
    check_options(max_iterations, tolerance, "exact")
    check_step_size(step_size, z)
    place = make_motion(metric, potential, gradient=gradient).at(z)
    return momentum_point(place, rho, step_size=step_size, max_iterations=max_iterations, tolerance=tolerance)


def implicit_position_step(
    z: Float[Tensor, "n d"],
    rho: Float[Tensor, "n d"],
    metric: Any,
    *,
    step_size: StepSize,
    max_iterations: int = 3,
    tolerance: float | None = None,
) -> FixedPoint:
    """z' = z + ε/2 (G⁻¹(z) r + G⁻¹(z') r), the second part; G⁻¹ is evaluated anew at each iterate.

    Example:
        >>> import torch, pullback as pb
        >>> one = torch.ones(1, 1)
        >>> implicit_position_step(one, one, pb.EuclideanMetric(1), step_size=0.1).value
        tensor([[1.1000]])
    """
    z, rho = check_pair(("z", "rho"), z, rho)
    check_options(max_iterations, tolerance, "exact")
    check_step_size(step_size, z)
    place = make_motion(metric, spherical_potential).at(z)
    return position_point(place, rho, step_size=step_size, max_iterations=max_iterations, tolerance=tolerance)


def explicit_momentum_step(
    z: Float[Tensor, "n d"],
    rho: Float[Tensor, "n d"],
    metric: Any,
    *,
    potential: Any,
    step_size: StepSize,
    gradient: Method = "closed",
) -> Float[Tensor, "n d"]:
    """ρ' = r - ε/2 ∂H/∂z(z', r), the third part of `generalized_leapfrog`.

    Example:
        >>> import torch, pullback as pb
        >>> z, flat, U = torch.ones(1, 1), pb.EuclideanMetric(1), lambda z: z.square().sum(1) / 2
        >>> explicit_momentum_step(z, 0 * z, flat, potential=U, step_size=0.1)
        tensor([[-0.0500]])
    """
    z, rho = check_pair(("z", "rho"), z, rho)
    check_step_size(step_size, z)
    place = make_motion(metric, potential, gradient=gradient).at(z)
    return kicked(place, rho, step_size=step_size)


def spherical_potential(z: Tensor) -> Tensor:
    """½|z|²."""
    return z.square().sum(1) / 2
