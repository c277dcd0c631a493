"""Parametric UMAP as a scikit-learn estimator."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from pullback.estimators.anndata_results import write_results
from pullback.estimators.embedding_graph import GraphOptions, make_graph
from pullback.estimators.embedding_networks import check_widths, new_module
from pullback.estimators.embedding_training import reserve_coordinates, train_embedding
from pullback.estimators.evaluation import device_of
from pullback.estimators.fitted_map import FittedMap
from pullback.estimators.following import followed, read_callbacks
from pullback.estimators.projection import Projection, fit_projection, projected_rows
from pullback.estimators.reading import check_seed_agrees
from pullback.estimators.rows import draw_seed
from pullback.inputs import Table, is_anndata
from pullback.jets import local_affine
from pullback.models.umap import UMAPModule, curve_parameters
from pullback.training import FitResult
from pullback.validation import check_whole

VERIFIED_ROWS = 256
"""Rows at which the encoder's affine pieces are checked after a fit."""


class ParametricUMAP(FittedMap):
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
        table = self._read(X, reset=not again, minimum_rows=3, quantities=quantities)
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

    def _keep_projection(self, projection: Projection) -> None:
        self.scaling_ = projection.scaling
        axes = projection.components
        self.components_ = None if axes is None else axes.numpy()

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
