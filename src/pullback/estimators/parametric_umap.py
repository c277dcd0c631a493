"""Parametric UMAP as a scikit-learn estimator."""

import copy
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import nn

from pullback.ambient import Euclidean
from pullback.attribution import Attribution, Reduction, compute_jacobian, contributions_between
from pullback.estimators.anndata_results import write_results
from pullback.estimators.chains import Chain
from pullback.estimators.editing import Quantities
from pullback.estimators.embedding_chains import embedding_chain, unembedding_chain
from pullback.estimators.embedding_graph import GraphOptions, make_graph
from pullback.estimators.embedding_networks import check_widths, new_module, wants_decoder
from pullback.estimators.embedding_training import reserve_coordinates, train_embedding
from pullback.estimators.evaluation import device_of, evaluating, over_rows
from pullback.estimators.explaining import explain
from pullback.estimators.following import followed, read_callbacks
from pullback.estimators.projection import Projection, fit_projection, projected_rows
from pullback.estimators.reading import check_seed_agrees, read_table
from pullback.estimators.rows import draw_seed
from pullback.estimators.scaling import Scaling, chunk_slices
from pullback.estimators.state import describe_state, restored
from pullback.inputs import Table, is_anndata, read_input
from pullback.io import save_model
from pullback.jets import JacobianVerification, local_affine
from pullback.jets.sweep import AffineMap
from pullback.metrics import EuclideanMetric, PullbackMetric
from pullback.models.umap import UMAPModule, curve_parameters
from pullback.training import FitResult
from pullback.typing import Metric
from pullback.validation import check_choice, check_whole

VERIFIED_ROWS = 256
"""Rows at which the encoder's affine pieces are checked after a fit."""


class ParametricUMAP(Quantities, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """An encoder that keeps neighbours together: UMAP whose embedding is a function of the features.

    The graph of neighbours is that of UMAP (McInnes, Healy and Melville 2018); an encoder is trained on its
    edges (Sainburg, McInnes and Gentner 2021), so that new rows are mapped at once and `pullback.explain`
    says which feature puts a row where it is. The default encoder is piecewise linear: contributions add up
    exactly.

    Args:
        n_components: dimensions of the embedding.
        n_neighbors: neighbours that a row sees, itself counted; at most as many as there are rows.
        min_dist: how close neighbours may come, in units of the embedding.
        spread: length over which memberships decay, in the same units.
        metric: of the data, by name ("euclidean", "cosine", any of SciPy's) or a function of two rows;
            "precomputed" takes the ``distances`` given to `fit`.
        negative_sample_rate: random pairs an edge.
        repulsion_strength: weight of the random pairs.
        standardize: give each feature variance 1 before neighbours are looked for and for the encoder.
            False changes no proportion: the encoder sees rows centred and divided by one number.
        pca_components: principal axes that neighbours are looked for in and that the encoder sees.
        encoder_name: "default", "batchnorm", "residual", "conv" (images), "glassbox", or a name of
            `pullback.models.register_encoder`.
        encoder_kwargs: options of that encoder: ``{"hidden_size": 128, "dropout_rate": 0.1}``.
        encoder: your own module, what the encoder sees ``(n, k)`` -> ``(n, n_components)``, k the features or
            the principal axes; copied and never changed.
        decoder: True trains a network back to the data beside the encoder, or give a module; then there are
            `inverse_transform` and the pullback metric. It reads the embedding and does not shape it.
        negatives: random pairs join rows by their degree ("batch") or any rows ("uniform").
        jitter: how far each row is moved at random, anew at each step, before it is encoded: 1 is as far as
            its nearest neighbour is. About 0.5 places new rows better at little cost for those of the fit.
        nodes_per_step: rows that a step encodes at most; its edges are drawn among so many random rows, each
            edge as often as without it. For many more rows than ``batch_size``, a fifth of them: the same
            map in less time. None encodes all rows that the edges of a step touch.
        partition: a `SubspacePartition`, which reserves coordinates for known quantities: one of three for
            the depth of sequencing leaves a map of two without it. Its default strength is 1.
        target_weight: how much a ``y`` given to `fit` counts, in [0, 1]; 0 ignores it.
        target_metric: whether ``y`` holds categories ("categorical", -1 for unknown) or numbers
            ("continuous"); "auto" takes numbers that are not all whole for continuous.
        lr, weight_decay, gradient_clip: of the optimiser.
        epochs: passes over the edges of the graph, of at least 4 steps each (those of a small graph draw its
            edges several times).
        steps: steps of the optimiser in all, instead of ``epochs``.
        batch_size: edges of a step at most.
        num_batches: steps of an epoch at most.
        restore_best_weights: end with the epoch of the lowest loss rather than the last one.
        warm_start: a second fit goes on from the encoder of the first, whose units it keeps.
        device: "auto", "cpu", "cuda", ...; None is "auto".
        checkpoint_dir: folder for checkpoints; with ``resume=True`` a fit continues from the last one.
        resume: see ``checkpoint_dir``.
        progress: show a progress bar; None does so in a terminal.
        verbose: True shows the bar everywhere, as in other packages.
        callbacks: functions (step, loss, estimator) called after each epoch; ``estimator.transform`` works
            there. Those that have ``begin(X, y)`` and ``close(note)``, as `pullback.plots.LiveView`, are told
            when the training begins and ends.
        random_state: int, RandomState or None. The same one gives the same bits.

    Attributes:
        embedding_: the training data ``(n, n_components)``.
        encoder_: the trained encoder, in evaluation mode; sees ``components_ @ ((x - mean_) / scale_)``.
        module_: encoder and decoder.
        partition_: blocks of known quantities with their decoders, else None.
        mean_, scale_: ``(p,)``; ``components_``: ``(k, p)`` or None.
        graph_: memberships that were trained on, a SciPy matrix ``(n, n)``.
        a_, b_: of the membership 1 / (1 + a d^(2b)) at distance d.
        history_: a list per loss term, one number an epoch; ``loss_history_`` is that of the sum.
        n_steps_, n_epochs_, best_epoch_: steps and epochs run, and the epoch whose weights are kept.
        converged_, message_: how the training ended.
        verification_: check of the encoder's affine pieces on some training rows; None for an encoder that is
            not piecewise linear.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Gotchas:
        The loss does not depend on where the map lies as a whole: on other machines or numbers of processes
        it may lie elsewhere.
        A Pipeline that ends in a classifier hands its y on to this step, which then is supervised; set
        ``target_weight=0`` if the embedding must not know the labels.
        Sparse rows become dense, all at once up to 2^28 numbers; wide ones are best given
        ``pca_components``.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
        >>> model = ParametricUMAP(epochs=5, random_state=0).fit(X)
        >>> model.transform(X[:3]).shape
        (3, 2)
    """

    METRICS: ClassVar[tuple[str, ...]] = ("pullback", "euclidean")
    """Metrics of the embedding; the first needs a decoder."""

    n_features_in_: int
    image_shape_: tuple[int, int, int] | None
    scaling_: Scaling
    components_: np.ndarray | None
    embedding_: np.ndarray
    graph_: sparse.csr_matrix
    module_: UMAPModule
    _checked: dict[str, Any] | None

    def __init__(
        self,
        n_components: Any = 2,
        *,
        n_neighbors: Any = 15,
        min_dist: Any = 0.1,
        spread: Any = 1.0,
        metric: Any = "euclidean",
        negative_sample_rate: Any = 5,
        repulsion_strength: Any = 1.0,
        standardize: Any = False,
        pca_components: Any = None,
        encoder_name: Any = "default",
        encoder_kwargs: Any = None,
        encoder: Any = None,
        decoder: Any = False,
        negatives: Any = "batch",
        jitter: Any = 0.0,
        nodes_per_step: Any = None,
        partition: Any = None,
        target_weight: Any = 0.5,
        target_metric: Any = "auto",
        lr: Any = 3e-3,
        weight_decay: Any = 0.0,
        gradient_clip: Any = None,
        epochs: Any = 200,
        steps: Any = None,
        batch_size: Any = 10_000,
        num_batches: Any = None,
        restore_best_weights: Any = True,
        warm_start: Any = False,
        device: Any = None,
        checkpoint_dir: Any = None,
        resume: Any = False,
        progress: Any = None,
        verbose: Any = False,
        callbacks: Any = None,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.min_dist = min_dist
        self.spread = spread
        self.metric = metric
        self.negative_sample_rate = negative_sample_rate
        self.repulsion_strength = repulsion_strength
        self.standardize = standardize
        self.pca_components = pca_components
        self.encoder_name = encoder_name
        self.encoder_kwargs = encoder_kwargs
        self.encoder = encoder
        self.decoder = decoder
        self.negatives = negatives
        self.jitter = jitter
        self.nodes_per_step = nodes_per_step
        self.partition = partition
        self.target_weight = target_weight
        self.target_metric = target_metric
        self.lr = lr
        self.weight_decay = weight_decay
        self.gradient_clip = gradient_clip
        self.epochs = epochs
        self.steps = steps
        self.batch_size = batch_size
        self.num_batches = num_batches
        self.restore_best_weights = restore_best_weights
        self.warm_start = warm_start
        self.device = device
        self.checkpoint_dir = checkpoint_dir
        self.resume = resume
        self.progress = progress
        self.verbose = verbose
        self.callbacks = callbacks
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        graph: Any = None,
        distances: Any = None,
        quantities: Mapping[str, Any] | None = None,
    ) -> "ParametricUMAP":
        """Find neighbours and train the encoder.

        Args:
            X: ``(n, p)`` array, Tensor, DataFrame, scipy sparse matrix, list or AnnData, or images
                ``(n, channels, height, width)``; at least 3 rows. AnnData also receives the results:
                ``obsm["X_pullback"]`` and ``uns["pullback"]``.
            y: labels or numbers ``(n,)`` that shall be told apart on the map, -1 (of categories) or NaN where
                unknown; None for none.
            graph: memberships ``(n, n)`` made elsewhere, symmetric, instead of the neighbours of X.
            distances: ``(n, n)`` between the rows, for ``metric="precomputed"``.
            quantities: known quantities of the rows, ``{name: (n,) or (n, ...)}``, for a ``partition``.

        Returns:
            The estimator itself.

        Raises:
            ValueError: the data are no finite numbers, or options that do not fit them.
        """
        check_whole("n_components", self.n_components)
        check_seed_agrees(self.random_state)
        options = GraphOptions(
            self.n_neighbors,
            self.metric,
            self.target_weight,
            self.target_metric,
            projected=bool(self.standardize) or self.pca_components is not None,
        )
        again = bool(self.warm_start) and hasattr(self, "module_")
        table = self._read(X, reset=not again, minimum_rows=3)
        seed = draw_seed(self.random_state)
        if not again:
            self.image_shape_ = table.image_shape
            self._keep_projection(
                fit_projection(
                    table, standardize=bool(self.standardize), components=self.pca_components, seed=seed
                )
            )
        rows = projected_rows(table, self._projection)
        self.graph_ = make_graph(options, table, rows, y, graph=graph, distances=distances)
        self.a_, self.b_ = curve_parameters(float(self.min_dist), float(self.spread))
        module = (
            copy.deepcopy(self.module_).requires_grad_() if again else self._new_module(table.dtype, seed)
        )
        check_widths(module, rows, self.n_components)
        reserved = reserve_coordinates(self, X, table, quantities)
        callbacks = read_callbacks(self.callbacks)
        if callbacks:
            self.module_ = module  # so that a callback can transform
        with followed(callbacks, X, y):
            result = train_embedding(self, module, rows, seed, callbacks, reserved)
        self._settle(module, table, result)
        self.partition_ = None if reserved is None else reserved.partition(self.embedding_, slice(None))
        if is_anndata(X):
            write_results(X, self.embedding_, type(self).__name__, self.get_params(deep=False))
        return self

    def fit_transform(self, X: Any, y: Any = None, **options: Any) -> np.ndarray:
        """The embedding ``(n, n_components)`` of the rows that are fitted; options are those of `fit`."""
        return self.fit(X, y, **options).embedding_.copy()

    def _read(self, X: Any, *, reset: bool, minimum_rows: int = 1) -> Table:
        return read_table(self, X, reset=reset, minimum_rows=minimum_rows)

    def _keep_projection(self, projection: Projection) -> None:
        self.scaling_ = projection.scaling
        axes = projection.components
        self.components_ = None if axes is None else axes.numpy()

    @property
    def _projection(self) -> Projection:
        axes = self.components_
        return Projection(self.scaling_, None if axes is None else torch.from_numpy(axes))

    def _new_module(self, dtype: torch.dtype, seed: int) -> UMAPModule:
        generator = torch.Generator().manual_seed(seed)
        return new_module(self, self._projection.width, self.image_shape_, generator).to(dtype)

    def _settle(self, module: UMAPModule, table: Table, result: FitResult) -> None:
        """Fitted attributes after training; the module holds the weights that are kept."""
        self.module_ = module.eval().requires_grad_(False)
        self.history_, self.best_epoch_ = result.history, result.best_epoch
        self.n_epochs_, self.n_steps_ = len(result.history.get("loss", ())), result.steps
        # the options bear the names that users of UMAP know
        message = result.message.replace("max_epochs", "epochs").replace("max_steps", "steps")
        self.converged_, self.message_ = result.converged, message
        self.embedding_ = self._encode(table)
        self._checked = self._verify(table)
        if not result.converged and result.ending != "finished":
            warnings.warn(message, ConvergenceWarning, stacklevel=3)

    def _verify(self, table: Table) -> dict[str, Any] | None:
        device = device_of(self.module_)
        some = np.linspace(0, len(table) - 1, min(len(table), VERIFIED_ROWS)).astype(int)
        x = self._projection.apply(table.rows(some)).to(device)
        with torch.no_grad():
            try:
                return asdict(local_affine(self.module_.encoder, x, map="local_linear").verification)
            except ValueError:  # not piecewise linear
                return None

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

    def to(self, device: str | torch.device) -> "ParametricUMAP":
        """Move the trained network to a device; rows are brought to it, results come back as arrays."""
        check_is_fitted(self)
        self.module_.to(device)
        return self

    def save(self, directory: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Write the fitted model to a folder (``config.json``, ``model.safetensors``) for `pullback.load`.

        Raises:
            FileExistsError: the folder holds a model and ``overwrite`` is False.
        """
        check_is_fitted(self)
        return save_model(directory, *describe_state(self), overwrite=overwrite)

    @classmethod
    def load(cls, directory: str | os.PathLike, *, encoder: nn.Module | None = None) -> "ParametricUMAP":
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

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
