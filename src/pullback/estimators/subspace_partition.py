"""The option that reserves latent coordinates for known quantities."""

from typing import Any

from sklearn.base import BaseEstimator

from pullback.subspaces.loo import RIDGE

RANKS = ("variance", "parallel", "gavish_donoho", "cv")


class SubspacePartition(BaseEstimator):
    """Reserves latent coordinates for named quantities.

    Each quantity is read linearly from its own block, from no other more than the quantities themselves
    share, and not at all from the coordinates that stay free. An option of `Autoencoder`, `VAE`, `HVAE`,
    `RHVAE` and `ParametricUMAP`; the loss is `pullback.subspaces.PartitionLoss` of the codes. After ``fit``
    the model reads quantities of new rows (``model.quantities``), changes them (``model.edit``) and removes
    them from codes (``model.erase``).

    Args:
        quantities: name -> function of the rows in data units, ``(n, p)`` or ``(n, channels, height, width)``
            tensors, to ``(n, ...)``; or None for values that ``fit(X, quantities={name: values})`` brings, or
            that are a column of ``X`` (DataFrame; such a column is no feature then, in new rows either) or of
            ``X.obs`` (AnnData). NaN and None are missing values.
        sizes: name -> coordinates; those that are not named are chosen from the training rows, see ``rank``.
        weights: of "fit", "leak" and "free" (1 each) and "isotropy" (0), numbers or functions of the step.
        strength: factor of all weights, beside the negative log-likelihood of a row, which is a sum over
            features; None is twice the number of features, and 1 in `ParametricUMAP`.
        categorical: names of quantities that are categories though they are numbers; text always is. They are
            coded by a column of 0 and 1 for each category but the last.
        circular: name -> period, for positions on a circle, coded by cosine and sine.
        ridge: of the read-outs, relative to the mean variance of the coordinates.
        rank: how sizes of several numbers are chosen, see `pullback.subspaces.k_per_q`: "variance" (share
            ``threshold`` of the variance), "parallel", "gavish_donoho", or "cv", the rank that is predicted
            linearly from the data. One number takes one coordinate, categories one less than there are, a
            circle two.
        threshold: see ``rank``.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(120, 6)).astype("float32")
        >>> import pullback as pb
        >>> partition = pb.SubspacePartition({"total": lambda x: x.sum(1), "first": None})
        >>> model = pb.Autoencoder(4, partition=partition, max_epochs=2, progress=False, random_state=0)
        >>> model = model.fit(X, quantities={"first": X[:, 0]})
        >>> sorted(model.quantities(X)), model.edit(X[:2], total=3.0).x.shape
        (['first', 'total'], (2, 6))

    When to use: quantities that a nonlinear function of the data gives, and batches of several times the
    largest block. Functions are not saved with a model; a loaded one reads, edits and erases without them.
    """

    def __init__(
        self,
        quantities: Any,
        *,
        sizes: Any = None,
        weights: Any = None,
        strength: Any = None,
        categorical: Any = (),
        circular: Any = None,
        ridge: Any = RIDGE,
        rank: Any = "variance",
        threshold: Any = 0.9,
    ):
        self.quantities = quantities
        self.sizes = sizes
        self.weights = weights
        self.strength = strength
        self.categorical = categorical
        self.circular = circular
        self.ridge = ridge
        self.rank = rank
        self.threshold = threshold
