"""The Hamiltonian of a position and a momentum, and its gradients."""

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from pullback.dynamics.place import Method, MomentumLogPrior, Scheme, make_motion
from pullback.validation import check_choice, check_pair


def hamiltonian(
    z: Float[Tensor, "n d"],
    rho: Float[Tensor, "n d"],
    metric: Any,
    *,
    potential: Any,
    momentum_logprior: MomentumLogPrior | None = None,
) -> Float[Tensor, " n"]:
    """H = U(z) - log p(ρ | z), with ρ ~ N(0, G(z)): all constants included.

    Girolami and Calderhead 2011.

    Args:
        z: positions.
        rho: momenta.
        metric: any metric.
        potential: a function z -> U ``(n,)``, or a `Potential`.
        momentum_logprior: log p(ρ | z) as a function of (ρ, G⁻¹, log det G); `riemannian_logprior` if not
            given.
    Raises:
        ValueError: positions and momenta of different shape.
    Example:
        >>> import torch, pullback as pb
        >>> z, rho, flat = torch.zeros(1, 2), torch.ones(1, 2), pb.EuclideanMetric(2)
        >>> hamiltonian(z, rho, flat, potential=lambda z: z.square().sum(1) / 2)
        tensor([2.8379])
    """
    z, rho = check_pair(("z", "rho"), z, rho)
    motion = make_motion(metric, potential, momentum_logprior=momentum_logprior)
    return motion.at(z).energy(rho)


def hamiltonian_gradient(
    z: Float[Tensor, "n d"],
    rho: Float[Tensor, "n d"],
    metric: Any,
    *,
    potential: Any,
    wrt: Literal["position", "momentum"] = "position",
    method: Method = "closed",
    step: float | None = None,
    scheme: Scheme = "central",
    momentum_logprior: MomentumLogPrior | None = None,
) -> Float[Tensor, "n d"]:
    """∂H/∂z or ∂H/∂ρ of the whole Hamiltonian: metric and decoder are differentiated with everything else.

    Args:
        z, rho, metric, potential, momentum_logprior: as for `hamiltonian`.
        wrt: "position" or "momentum".
        method: "closed" takes the kinetic energy in closed form and the potential by autograd (a momentum
            density of your own by autograd too); "autograd" all of H; "finite" differences, whose error is
            about ε |H| / h: 1e-10 in float64, at best 1e-4 in float32.
        step: h of finite differences, in units of max(1, |coordinate|); ∛ε (central) or √ε (forward) if not
            given.
        scheme: "central" or "forward".
    Raises:
        ValueError: unknown options, or shapes that do not fit.
    Example:
        >>> import torch, pullback as pb
        >>> z, rho, flat = torch.ones(1, 2), torch.ones(1, 2), pb.EuclideanMetric(2)
        >>> hamiltonian_gradient(z, rho, flat, potential=lambda z: z.square().sum(1))
        tensor([[2., 2.]])
    """
    check_choice("wrt", wrt, ("position", "momentum"))
    z, rho = check_pair(("z", "rho"), z, rho)
    motion = make_motion(
        metric,
        potential,
        gradient=method,
        momentum_logprior=momentum_logprior,
        difference_step=step,
        scheme=scheme,
    )
    place = motion.at(z)
    return place.force(rho) if wrt == "position" else place.velocity(rho)
