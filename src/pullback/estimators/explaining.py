"""Why a point lands where it does, for models and for plain networks."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pullback.attribution import Attribution, Method, Reduction
from pullback.attribution.explained import ExplainedRows
from pullback.attribution.pointwise import attribute_points
from pullback.attribution.question import KinkMargin, read_question, read_rows
from pullback.estimators.chains import Chain, pixel_names
from pullback.inputs import read_input
from pullback.jets.sweep import AffineMap
from pullback.validation import check_choice

DIRECTIONS = ("encode", "decode")


def explain(
    model: Any,
    X: Any,
    *,
    map: AffineMap | None = None,
    method: Method = "auto",
    baseline: Any = None,
    reduction: Reduction | None = None,
    feature_groups: Any = None,
    direction: Literal["encode", "decode"] = "encode",
    kink_margin: KinkMargin = "relative",
    strict: bool = False,
    out: Tensor | None = None,
    chunk_size: int | None = None,
    tol: float = 1e-6,
    max_pieces: int = 10_000,
) -> Attribution:
    """Which features put each point where it lands: C_ij with Σ_j C_ij + offset_i = coordinate i.

    Networks of linear layers and piecewise-linear activations are explained exactly, by their affine map
    around the point or through all pieces along a path; others by a path integral whose error is measured.
    See `pullback.attribution.contributions`.

    Args:
        model: a fitted estimator, or an nn.Module (n, *dims) -> (n, d) in eval mode.
        X: data as `transform` takes them; latent points for ``direction="decode"``. For modules an array,
            tensor or DataFrame; of images (n, channels, height, width) the pixels are the features.
        map: "derivative" or "local_linear", for "local" in nets with a layer norm.
        method: "auto", "local" or "path".
        baseline: point whose features contribute nothing. None: the mean of the training data (of the codes,
            for "decode"); 0 for modules.
        reduction: None, (n, d, p); "l2", (n, p); "mean_l2", (p,).
        feature_groups: {name: columns}, or a label for each feature.
        direction: "encode" asks which feature moves which latent coordinate, "decode" which latent
            coordinate moves which feature (values (n, p, d)).
        kink_margin, strict, out, chunk_size, tol, max_pieces: as in `contributions`.
    Returns:
        `Attribution` in the units of the raw features, scaling included. It keeps the rows, so that
        ``between(i, j)`` says why two of them lie apart, and ``separation(labels)`` why groups do.
    Raises:
        TypeError: neither a module nor an estimator that can be explained.
        ValueError: options that do not fit the model; the message says which do.
    Warns:
        AttributionWarning: the sums do not hold.
        HomogeneityWarning: the encoder ignores the magnitude of its input.
    Example:
        >>> import numpy as np, pullback as pb
        >>> X = np.random.default_rng(0).normal(size=(40, 3))
        >>> options = {"hidden": (8,), "activation": "relu", "max_epochs": 2, "progress": False}
        >>> model = pb.Autoencoder(2, **options, random_state=0).fit(X)
        >>> e = pb.explain(model, X)
        >>> bool(np.allclose(e.values.sum(-1) + e.offset, model.transform(X)))
        True
        >>> e.exact, e.between(0, 1).exact
        (True, True)
    """
    check_choice("direction", direction, DIRECTIONS)
    chain = _chain_of(model, X, direction)
    x = read_rows("X", chain.read(X))
    if baseline is None:
        baseline = chain.baseline
        if baseline is None and not isinstance(model, nn.Module):
            raise ValueError(
                "baseline: expected a point, because this model was saved without the mean of its training "
                "data; pass baseline=X.mean(axis=0)"
            )
    elif not isinstance(baseline, Tensor):
        baseline = torch.as_tensor(baseline)
    question = read_question(
        chain.module,
        x,
        reduction=reduction,
        preprocessing=chain.preprocessing,
        feature_groups=feature_groups,
        tol=tol,
        max_pieces=max_pieces,
        kink_margin=kink_margin,
        strict=strict,
        out=out,
        chunk_size=chunk_size,
        feature_names=chain.feature_names,
        output_names=chain.output_names,
        ignores_magnitude=chain.ignores_magnitude,
    )
    rows = ExplainedRows(question, x, baseline, map, method)
    return attribute_points(question, x, baseline=baseline, map=map, method=method, source=rows)


def _chain_of(model: Any, X: Any, direction: str) -> Chain:
    if isinstance(model, nn.Module):
        if direction == "decode":
            raise ValueError(
                "direction: expected 'encode' for a module, got 'decode'; pass the decoder and latent points"
            )
        return _module_chain(model, X)
    name = "_encoder_chain" if direction == "encode" else "_decoder_chain"
    make = getattr(model, name, None)
    if make is None:
        if hasattr(model, "_encoder_chain"):
            raise ValueError(f"direction: expected 'encode' for {type(model).__name__}, got {direction!r}")
        raise TypeError(f"model: expected a fitted estimator or an nn.Module, got {type(model).__name__}")
    return make()


def _module_chain(net: nn.Module, X: Any) -> Chain:
    """A module as it is: tensors keep their device, arrays take the module's precision."""
    names: Sequence[str] | None = None
    if isinstance(X, Tensor) and X.layout == torch.strided and X.is_floating_point():
        shape, rows = X.shape[1:], X.detach().flatten(1) if X.ndim > 2 else X
    else:
        table = read_input(X)
        like = next((part for part in net.parameters() if part.is_floating_point()), None)
        rows = table.rows(slice(None)) if like is None else table.rows(slice(None)).to(like)
        shape = rows.shape[1:] if table.image_shape is None else table.image_shape
        names = None if table.feature_names is None else [str(name) for name in table.feature_names]
    if len(shape) > 1:
        net = nn.Sequential(nn.Unflatten(1, tuple(shape)), net).train(net.training)
    if len(shape) == 3:
        names = pixel_names((shape[0], shape[1], shape[2]))
    return Chain(net, lambda _: rows, feature_names=None if names is None else tuple(names))
