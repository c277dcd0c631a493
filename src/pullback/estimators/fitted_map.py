"""A parametric map in use: new rows, rows back, contributions of features, metric, files."""

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.validation import check_is_fitted
from torch import nn

from pullback.ambient import Euclidean
from pullback.attribution import Attribution, Reduction, compute_jacobian, contributions_between
from pullback.estimators.anndata_results import write_results
from pullback.estimators.chains import Chain
from pullback.estimators.editing import Quantities
from pullback.estimators.embedding_chains import embedding_chain, unembedding_chain
from pullback.estimators.embedding_networks import wants_decoder
from pullback.estimators.encoding_model import EncodingModel
from pullback.estimators.evaluation import device_of, evaluating, over_rows
from pullback.estimators.explaining import explain
from pullback.estimators.projection import Projection
from pullback.estimators.reading import read_table
from pullback.estimators.scaling import Scaling, chunk_slices
from pullback.estimators.state import restored
from pullback.inputs import Table, is_anndata, read_input
from pullback.jets import JacobianVerification
from pullback.jets.sweep import AffineMap
from pullback.metrics import EuclideanMetric, PullbackMetric
from pullback.models.umap import UMAPModule
from pullback.typing import Metric
from pullback.validation import check_choice

Fitted = TypeVar("Fitted", bound="FittedMap")


class FittedMap(Quantities, EncodingModel):
    """What a parametric map does once it is fitted; `ParametricUMAP` fits it."""

    METRICS: ClassVar[tuple[str, ...]] = ("pullback", "euclidean")
    """Metrics of the embedding; the first needs a decoder."""

    n_features_in_: int
    image_shape_: tuple[int, int, int] | None
    scaling_: Scaling
    components_: np.ndarray | None
    embedding_: np.ndarray
    graph_: sparse.csr_matrix
    history_: dict[str, list[float]]
    module_: UMAPModule
    _checked: dict[str, Any] | None

    n_components: Any

    def _read(self, X: Any, *, reset: bool, **options: Any) -> Table:
        return read_table(self, X, reset=reset, **options)

    @property
    def _projection(self) -> Projection:
        axes = self.components_
        return Projection(self.scaling_, None if axes is None else torch.from_numpy(axes))

    def transform(self, X: Any, batch_size: int | None = None) -> np.ndarray:
        """Rows in the embedding ``(n, n_components)``; AnnData is written to as in `fit`.

        Args:
            X: data of the same features, in any form that `fit` takes.
            batch_size: rows at a time at most; None bounds the memory in use.
        """
        check_is_fitted(self)
        codes = self._encode(self._read(X, reset=False), batch_size)
        if is_anndata(X):
            write_results(X, codes, type(self).__name__, self.get_params(deep=False))
        return codes

    def _encode(self, table: Table, batch_size: int | None = None) -> np.ndarray:
        return over_rows(self.module_, self.module_.encode, table, self._projection, rows=batch_size)

    @property
    def inverse_transform(self) -> Callable[[Any], np.ndarray]:
        """Rows of data at points of the embedding ``(n, d)``: ``(n, p)``, or images where those were fitted.

        Only a model with a ``decoder`` has it.
        """
        # a property, so that hasattr says whether it is there and its absence says what to do
        if not wants_decoder(self):
            raise AttributeError(
                "inverse_transform: this model has no decoder; pass decoder=True (or a module) and fit again"
            )
        return self._decode

    def _decode(self, Z: Any) -> np.ndarray:
        check_is_fitted(self)
        table = read_input(Z, estimator=self)
        if table.n_features != self.n_components:
            raise ValueError(f"Z: expected (n, {self.n_components}), got {table.shape}")
        device, projection = device_of(self.module_), self._projection
        parts = []
        with evaluating(self.module_):
            for part in chunk_slices(len(table), self.n_features_in_):
                z = table.rows(part).to(device=device, dtype=projection.dtype)
                parts.append(projection.undo(self.module_.decode(z).cpu()).numpy())
        flat = np.concatenate(parts)
        return flat if self.image_shape_ is None else flat.reshape(len(flat), *self.image_shape_)

    def contributions(self, X: Any, **options: Any) -> Attribution:
        """Which features put each row where it is; the same as ``pullback.explain(self, X, **options)``."""
        return explain(self, X, **options)

    def contributions_between(self, Xa: Any, Xb: Any, **options: Any) -> Attribution:
        """Which features set rows apart from others, row by row; see `pullback.contributions_between`."""
        chain = self._encoder_chain()
        between = {"preprocessing": chain.preprocessing, **options}
        found = contributions_between(chain.module, chain.read(Xa), chain.read(Xb), **between)
        names = None if options.get("feature_groups") is not None else chain.feature_names
        return replace(found, feature_names=names or found.feature_names, output_names=chain.output_names)

    def compute_contributions(
        self,
        X: Any,
        batch_size: int | None = None,
        reduction: Reduction | None = None,
        *,
        map: AffineMap | None = None,
    ) -> np.ndarray:
        """Contributions of the raw features, from the mean of the training data, as an array.

        Args:
            X: rows.
            batch_size: rows at a time; None bounds the memory in use.
            reduction: None gives ``(n, d, p)``, "l2" gives ``(n, p)``.
            map: "derivative" or "local_linear", for encoders with a layer norm.
        """
        found = explain(self, X, map=map, reduction=reduction, chunk_size=batch_size)
        return found.values.cpu().numpy()

    def compute_jacobian(self, X: Any) -> np.ndarray:
        """Derivative of the embedding by the raw features at each row, ``(n, d, p)``."""
        chain = self._encoder_chain()
        before = chain.preprocessing
        assert before is not None
        before = before.to(chain.read(X))
        rows = compute_jacobian(chain.module, before.apply(chain.read(X)))
        return before.pull(rows.transpose(0, 1)).transpose(0, 1).cpu().numpy()

    def _encoder_chain(self) -> Chain:
        check_is_fitted(self)
        return embedding_chain(self)

    def _decoder_chain(self) -> Chain:
        check_is_fitted(self)
        return unembedding_chain(self)

    def latent_metric(
        self, kind: str | None = None, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> Metric:
        """A metric of the embedding, for `pullback.geometry`: what other models call ``metric()``.

        Args:
            kind: "pullback" measures lengths in the units of the encoder, through the decoder; "euclidean"
                is flat. None means "pullback" where there is a decoder.
            dtype: precision of the metric and of its points; that of the model if not given.
            device: where these points live.
        Raises:
            ValueError: "pullback" of a model without a decoder.
        """
        check_is_fitted(self)
        decoder = self.module_.decoder
        kind = kind or ("euclidean" if decoder is None else "pullback")
        check_choice("kind", kind, self.METRICS)
        if kind == "euclidean":
            return EuclideanMetric(self.n_components)
        if decoder is None:
            raise ValueError(
                "kind: expected 'euclidean' for a model without a decoder, got 'pullback'; "
                "pass decoder=True and fit again"
            )
        own = copy.deepcopy(decoder).to(dtype=dtype or self.scaling_.dtype, device=device).eval()
        return PullbackMetric(own, ambient=Euclidean())

    def to(self: Fitted, device: str | torch.device) -> Fitted:
        """Move the trained network to a device; rows are brought to it, results come back as arrays."""
        check_is_fitted(self)
        self.module_.to(device)
        return self

    @classmethod
    def load(cls: type[Fitted], directory: str | os.PathLike, *, encoder: nn.Module | None = None) -> Fitted:
        """The model that `save` wrote; the same as `pullback.load` where the folder holds this class.

        Args:
            directory: the model's folder.
            encoder: your own network, where the model was trained with one of a class that is not registered.
        """
        return restored(directory, {cls.__name__: cls}, {} if encoder is None else {"encoder": encoder})

    @property
    def encoder_(self) -> nn.Module:
        return self.module_.encoder

    @property
    def mean_(self) -> np.ndarray:
        return self.scaling_.offset.numpy()

    @property
    def scale_(self) -> np.ndarray:
        return self.scaling_.scale.numpy()

    @property
    def verification_(self) -> JacobianVerification | None:
        if self._checked is None:
            return None
        # JSON has brought back lists for tuples
        facts: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in self._checked.items()}
        return JacobianVerification(**facts)

    @property
    def loss_history_(self) -> np.ndarray:
        return np.asarray(self.history_["loss"])

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]

    def _state_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the fitted numbers and of the fitted arrays that are saved."""
        return ("a_", "b_", "n_steps_", "_checked"), ("components_", "graph_")
