"""The metric that a decoder pulls back from data space."""

import logging
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from pullback.ambient import Categorical, Euclidean, LowRank, ScaleFlattening
from pullback.jets import Product, Residual, metric_jet
from pullback.jets.rules import LEAVES
from pullback.jets.taylor import layers_of
from pullback.metrics.base import BaseMetric, Points, Tensors, derivatives
from pullback.typing import Ambient, Map

logger = logging.getLogger(__name__)

# From this many points on, reducing the last layers once costs less than carrying their outputs everywhere.
COMPACT_POINTS = 256


class PullbackMetric(BaseMetric):
    """g(z) = Jᵀ W J with J the Jacobian of a decoder and W an ambient metric.

    Where the ambient has a flattening map phi (all but `LearnedGaussian` and factors that change with z), the
    metric is that of the embedding F = phi∘f and geometry differentiates F alone.

    Args:
        decoder: a `Map` (n, d) -> (n, p), module or function; outputs of more axes, (n, c, h, w), are
            flattened. A module must be in eval mode if it holds dropout or batch normalisation.
        ambient: metric of data space; None is `pullback.ambient.Euclidean`.
    Raises:
        TypeError: ``decoder`` is not callable.
        ValueError: a `LowRank` ambient with one factor a row; later, at a point: its rank is below d, or the
            decoder is in train mode.
    Example:
        >>> import torch
        >>> metric = PullbackMetric(lambda z: torch.stack([z[:, 0], z[:, 1], z[:, 0] ** 2], dim=1))
        >>> metric.tensor(torch.tensor([[1.0, 0.0]]))
        tensor([[[5., 0.],
                 [0., 1.]]])
    """

    def __init__(self, decoder: Map, ambient: Ambient | None = None):
        if not callable(decoder):
            raise TypeError(f"decoder: expected a map (n, d) -> (n, p), got {type(decoder).__name__}")
        self.decoder = decoder
        self.ambient = Euclidean() if ambient is None else ambient
        if isinstance(self.ambient, LowRank) and getattr(self.ambient.factor, "ndim", 2) == 3:
            n, p, r = self.ambient.factor.shape  # type: ignore[union-attr]
            raise ValueError(
                f"ambient: expected a factor (p, r) = ({p}, {r}) or a function of z, got one factor for each "
                f"of {n} rows; geometry needs the metric at points that are no rows"
            )
        self._rows = _with_rows(decoder)
        self.dim = _input_width(decoder)
        self._coupled = _coupled_layers(decoder)
        self._flattening = self.ambient.flattening()
        if self._flattening is not None:
            _follow(self._flattening, decoder)

    @property
    def embedding(self) -> Map | None:
        """F = phi∘f, or None where the ambient has no flattening."""
        if self._flattening is None:
            return None
        if isinstance(self._flattening, nn.Identity):
            return self._rows
        if not isinstance(self.decoder, nn.Module):
            return self._flattened
        if self._by_groups and isinstance(self._rows, nn.Sequential) and self._rows is not self.decoder:
            return nn.Sequential(self.decoder, self._flattening, self._rows[-1])
        return nn.Sequential(self._rows, self._flattening)  # type: ignore[arg-type]

    @property
    def _by_groups(self) -> bool:
        """Whether the ambient couples the last axis of an output of several axes."""
        return isinstance(self.ambient, Categorical)

    def _flattened(self, z: Tensor) -> Tensor:
        # Moving a module to the dtype of z would leave a tensor of a transform in it.
        if isinstance(self.ambient, LowRank):
            return self.ambient.project(self._rows(z))
        assert self._flattening is not None
        return _as_rows(self._flattening(self.decoder(z) if self._by_groups else self._rows(z)))

    def compact_embedding(self) -> Map | None:
        """`embedding` with its trailing linear layers replaced by the R of their QR: at most as wide as their
        input.

        |W(h - h')| = |R(h - h')| for W = QR, so no length changes; a decoder of 20 000 genes costs as much as
        its last hidden layer is wide. The layers are copies: compute with it, do not train it.
        """
        self._check_mode()
        embedding = self.embedding
        return compact(embedding) if isinstance(embedding, nn.Module) else embedding

    def _check_mode(self) -> None:
        if any(layer.training for layer in self._coupled):
            raise ValueError("decoder is in train mode; call decoder.eval()")

    def _factor(self, z: Tensor) -> Tensor:
        """M (n, q, d) with g = MᵀM."""
        self._check_mode()
        d = z.shape[1]
        if isinstance(self.ambient, LowRank):
            at = self.ambient.at(z)
            p, r = at.factor.shape[-2:]  # type: ignore[union-attr]
            if r < d:
                raise ValueError(
                    f"ambient: expected a factor of rank r >= d for a metric on d={d} dimensions, "
                    f"got p={p}, r={r} at n={len(z)} points"
                )
            if self._flattening is None:
                return at.project(_jacobian(self._rows, z))
        many = len(z) >= COMPACT_POINTS and not torch.is_grad_enabled()
        embedding = self.compact_embedding() if many else self.embedding
        assert embedding is not None
        return _jacobian(embedding, z)

    @property
    def _has_factor(self) -> bool:
        return self._flattening is not None or isinstance(self.ambient, LowRank)

    def tensor(self, z: Points) -> Tensors:
        """g = MᵀM with M = UᵀJ or the Jacobian of phi∘f, never p x p."""
        if self._has_factor:
            M = self._factor(z)
            return M.mT @ M
        self._check_mode()
        y, J = derivatives(self._rows, z, 1)
        g = J.mT @ self.ambient.apply(y, J)
        return (g + g.mT) / 2

    def logdet(self, z: Points) -> Float[Tensor, " n"]:
        """2 Σ ln|diag R| from QR of M (JᵀJ would square the condition); -inf where the rank is below d."""
        if not self._has_factor:
            return super().logdet(z)
        R = _triangular(self._factor(z))
        diagonal = R.diagonal(dim1=-2, dim2=-1).abs()
        deficient = (diagonal == 0).any(-1)
        if bool(deficient.any()):
            logger.warning(
                "the decoder's Jacobian has rank below %d at %d points", z.shape[1], int(deficient.sum())
            )
        return 2 * torch.log(diagonal).sum(-1)

    def inverse(self, z: Points) -> Tensors:
        """R⁻¹ R⁻ᵀ from QR of M."""
        if not self._has_factor:
            return super().inverse(z)
        R = _triangular(self._factor(z))
        eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device).expand_as(R)
        half = torch.linalg.solve_triangular(R, eye, upper=True)
        return half @ half.mT

    def derivative(self, z: Points) -> Float[Tensor, "n d d d"]:
        """∂_c g_ab = C[b,a,c] + C[a,b,c] with C[a,b,c] = <F_a, F_bc> as [n, a, b, c]."""
        self._check_mode()
        if self.embedding is None:
            return super().derivative(z)
        C = metric_jet(self.embedding, z).christoffel_first
        return C + C.transpose(1, 2)

    def __repr__(self) -> str:
        return f"PullbackMetric({type(self.decoder).__name__}, ambient={type(self.ambient).__name__})"


def _jacobian(f: Map, z: Tensor) -> Tensor:
    return derivatives(f, z, 1)[1]


def _triangular(M: Tensor) -> Tensor:
    """R of the QR of (n, q, d); for q < d the missing rows are zero."""
    R = torch.linalg.qr(M, mode="reduced").R
    return R if R.shape[-2] == R.shape[-1] else nn.functional.pad(R, (0, 0, 0, R.shape[-1] - R.shape[-2]))


def _as_rows(y: Tensor) -> Tensor:
    return y if y.ndim <= 2 else y.flatten(1)


def _with_rows(decoder: Map) -> Map:
    """The decoder, its output flattened to (n, p) unless it is so already."""
    if not isinstance(decoder, nn.Module):
        return lambda z: _as_rows(decoder(z))
    return decoder if _returns_rows(decoder) else nn.Sequential(decoder, nn.Flatten())


def _returns_rows(decoder: nn.Module) -> bool:
    """Whether the last layers say that the output is (n, p); a linear layer is taken to work on rows."""
    for layer in reversed(layers_of(decoder)):
        kind = type(layer.module)
        if kind is nn.Linear or (
            isinstance(layer.module, nn.Flatten) and (layer.module.start_dim, layer.module.end_dim) == (1, -1)
        ):
            return True
        if kind is nn.Unflatten or kind not in (*LEAVES, Residual, Product):
            return False
    return True


def _leaves(module: nn.Module) -> list[nn.Module]:
    """The modules that a container applies in order; a module of unknown forward is one leaf."""
    if type(module) is nn.Sequential:
        children: Iterable[nn.Module] = module
    elif callable(getattr(module, "jet_layers", None)):
        children = module.jet_layers()  # type: ignore[operator]
    else:
        return [module]
    return [leaf for child in children for leaf in _leaves(child)]


def _input_width(decoder: Map) -> int | None:
    if not isinstance(decoder, nn.Module):
        return None
    first = next((leaf for leaf in _leaves(decoder) if type(leaf) is not nn.Identity), None)
    return first.in_features if type(first) is nn.Linear else None


def _coupled_layers(decoder: Map) -> list[nn.Module]:
    if not isinstance(decoder, nn.Module):
        return []
    return [
        layer
        for layer in decoder.modules()
        if isinstance(layer, _BatchNorm) or (isinstance(layer, _DropoutNd) and layer.p > 0)
    ]


def _follow(flattening: nn.Module, decoder: Map) -> None:
    """Give the flattening the device and dtype of the decoder's parameters."""
    if isinstance(decoder, nn.Module):
        like = next((p for p in decoder.parameters() if p.is_floating_point()), None)
        if like is not None:
            flattening.to(device=like.device, dtype=like.dtype)


def _plain(module: nn.Module) -> bool:
    return not (module._forward_hooks or module._forward_pre_hooks)


def compact(embedding: nn.Module) -> nn.Module:
    """An embedding of the same metric whose trailing linear layers are one layer of least width.

    Args:
        embedding: a module (n, d) -> (n, q).
    Returns: ``embedding`` itself where nothing is gained.
    """
    layers = _leaves(embedding)
    tail = len(layers)
    while (
        tail
        and _plain(layers[tail - 1])
        and type(layers[tail - 1]) in (nn.Linear, ScaleFlattening, nn.Identity)
    ):
        tail -= 1
    linear = [layer for layer in layers[tail:] if type(layer) is not nn.Identity]
    if not linear or not isinstance(linear[0], nn.Linear):
        return embedding
    with torch.no_grad():
        matrix = linear[0].weight
        for layer in linear[1:]:
            if isinstance(layer, ScaleFlattening):
                matrix = layer.scale.reshape(-1, 1) * matrix
            else:
                matrix = layer.weight @ matrix  # type: ignore[operator]
        q, h = matrix.shape
        if len(linear) == 1 and q <= h:
            return embedding
        if q > h:
            matrix = torch.linalg.qr(matrix.double(), mode="r").R.to(matrix.dtype)
        reduced = nn.Linear(h, matrix.shape[0], bias=False, device="meta", dtype=matrix.dtype)
        reduced.weight = nn.Parameter(matrix, requires_grad=False)
    return nn.Sequential(*layers[:tail], reduced)
