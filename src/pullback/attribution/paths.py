"""Contributions along straight lines, from a baseline or from another point: they sum to f(a) - f(b)."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.attribution.collecting import Part
from pullback.attribution.integrals import Integral, exact_integral, quadrature
from pullback.attribution.lines import lines
from pullback.attribution.network import Network
from pullback.attribution.question import Question

STATE_BYTES = 64 * 2**20
FIRST_LINES = 16


def path_parts(
    question: Question, a: Float[Tensor, "n p"], b: Float[Tensor, "n p"], *, pairs: bool
) -> Iterator[Part]:
    """C_ij = (a_j - b_j) ∫ ∂f_i/∂x_j along the line from b to a, chunk by chunk, evaluated in float64.

    Args:
        pairs: value is f(a) - f(b) and nothing is left over; else value is f(a) and the offset f(b).
    """
    wide = question.network.double(a)
    front = question.network.preprocessing
    limit = max((at.stop - at.start for at in question.chunks(len(a), a.shape[1], 8)), default=1)
    size, low = min(FIRST_LINES, limit), 0
    while low < len(a):
        at = slice(low, min(low + size, len(a)))
        first, last = question.network(b[at]), question.network(a[at])
        integral = _integral(question, wide, a[at], b[at])
        step = a[at] - b[at]
        common = {
            "at": at,
            "linear": integral.rows.to(a.dtype),
            "step": step,
            "pieces": integral.pieces,
            "nodes": integral.nodes,
            "retained": None if front is None else front.retained(a[at] - front.mean),
        }
        if pairs:
            zero, around = torch.zeros_like(last), last.abs() + first.abs()
            yield Part(**common, value=last - first, offset=zero, around=around)
        else:
            yield Part(**common, value=last, offset=first)
        low = at.stop
        size = min(limit, _lines_at_once(question, wide, integral))


def _integral(question: Question, network: Network, a: Tensor, b: Tensor) -> Integral:
    like = next(network.net.parameters(), a)
    a, b = a.to(like.dtype), b.to(like.dtype)
    line = lines(network, a, b, question.outputs)
    if not network.piecewise_linear:
        change = network(a) - network(b)
        return quadrature(line, a - b, change, question.tol, question.max_pieces)
    result, left = exact_integral(line, question.max_pieces)
    if len(left):
        change = network(a[left]) - network(b[left])
        rest = quadrature(line.pick(left), (a - b)[left], change, question.tol, question.max_pieces)
        rows = result.rows.index_copy(1, left, rest.rows)
        pieces = result.pieces.index_copy(0, left, rest.pieces)
        return Integral(rows, pieces, result.nodes.index_copy(0, left, rest.nodes))
    return result


def _lines_at_once(question: Question, network: Network, last: Integral) -> int:
    """Lines whose states fit the budget, if they have as many pieces as those before."""
    width = 0
    for layer in network.steps:
        weight = getattr(layer.module, "weight", None)
        width = max(width, 64, weight.shape[0] if isinstance(weight, Tensor) else 0)
    pieces = int(last.pieces.max()) + 16 if len(last.pieces) else 16
    return max(1, STATE_BYTES // (8 * width * pieces))
