"""Contributions at a point: the affine map around it times the way from the baseline."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.attribution.collecting import Part
from pullback.attribution.network import Network
from pullback.attribution.question import Question
from pullback.jets.affine import AffineMap, affine_rows, margin_of
from pullback.jets.state import start
from pullback.jets.sweep import Kinks, Sweep
from pullback.jets.taylor import propagate
from pullback.jets.verification import PROBES


def local_parts(
    question: Question, x: Float[Tensor, "n p"], x0: Float[Tensor, " p"], chosen: AffineMap
) -> Iterator[Part]:
    """C_ij = A_ij (x_j - x0_j), chunk by chunk; the offset is what the affine map gives at x0."""
    network, d = question.network, question.outputs
    front = network.preprocessing
    entry = network.enter(x0.unsqueeze(0)).squeeze(0)
    middle = torch.zeros_like(x0) if front is None else front.mean
    same = torch.equal(middle, x0)
    away = bool(entry.any())
    summing = chosen == "local_linear" or not network.normed
    own = network.is_its_layers(x[:PROBES])
    for at in question.chunks(len(x), x.shape[1]):
        part = x[at]
        centred = part if front is None else part - middle
        e = centred if front is None else front.seen(centred)
        rows, offset, kinks, value = local_rows(network, e, d, chosen)
        if not own:
            value = network.net(e)
        if away:
            offset = offset + (rows @ entry).T
        margin = None if question.kink_margin is None else margin_of(kinks, e, question.kink_margin)
        linear = rows if front is None else front.pull(rows)
        if linear.stride(1) == 0:
            linear = linear.clone()
        yield Part(
            at,
            linear,
            centred if same else part - x0,
            value,
            offset if summing else None,
            margin=margin,
            retained=None if front is None else front.retained(centred),
        )


def local_rows(
    network: Network, e: Float[Tensor, "m k"], d: int, chosen: AffineMap
) -> tuple[Float[Tensor, "d m k"], Float[Tensor, "m d"], list[Kinks], Float[Tensor, "m d"]]:
    """Rows of A by what the net sees, the offset, the kinks, and the value from the layers' own forward."""
    if e.shape[1] >= d or (chosen == "local_linear" and network.normed):
        rows, shift, kinks, value = affine_rows(network.layers, e, d, chosen, own=True)
        return rows, shift.expand(d, len(e)).T, kinks, value
    state = propagate(network.layers, start(e, 1))
    rows = state.first.expand(-1, len(e), -1).permute(2, 1, 0)
    sweep = Sweep(chosen, own=True)
    value = sweep.record(network.layers, e)
    return rows, state.value - (rows * e).sum(-1).T, sweep.kinks, value


def local_derivative(network: Network, x: Float[Tensor, "n p"], d: int, chosen: AffineMap) -> Tensor:
    """A by the raw features, (n, d, p)."""
    rows, *_ = local_rows(network, network.enter(x), d, chosen)
    rows = rows if network.preprocessing is None else network.preprocessing.pull(rows)
    return rows.transpose(0, 1)
