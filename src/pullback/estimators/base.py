"""What every latent-variable estimator does: read, scale, train, encode, decode, score, draw, measure, save.

The mathematics lives in the module of the model. A subclass says how that module is built, what its
log-density is, and how its latent points are drawn.
"""

import copy
import os
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from pullback.estimators import targets
from pullback.estimators.anndata_results import write_results
from pullback.estimators.chains import Chain, decoder_chain, encoder_chain
from pullback.estimators.counts import LogNormalise, median_library
from pullback.estimators.editing import Quantities
from pullback.estimators.encoding_model import EncodingModel
from pullback.estimators.evaluation import check_networks, decoded, device_of, evaluating, over_rows
from pullback.estimators.following import followed, followers, read_callbacks
from pullback.estimators.networks import (
    NetworkOptions,
    make_decoder,
    make_encoder,
    own_copy,
    read_widths,
)
from pullback.estimators.reading import check_seed_agrees, read_table, training_device
from pullback.estimators.reserving import Reserved, reserve_latents
from pullback.estimators.rows import draw_seed, split_rows, training_rows
from pullback.estimators.samples import Samples
from pullback.estimators.scaling import Scaling, feature_mean, fit_scaling
from pullback.estimators.state import restored
from pullback.inputs import Table, is_anndata, read_input
from pullback.metrics import EuclideanMetric, PullbackMetric
from pullback.training import FitResult, Objective, Paired, TrainingOptions
from pullback.training import fit as train
from pullback.typing import Metric
from pullback.validation import check_choice, check_number, check_whole

Model = TypeVar("Model", bound="LatentModel")


class LatentModel(Quantities, EncodingModel):
    """Base class of the estimators: fitted once, it maps data to latent points and back.

    Attributes:
        module_: the trained network (a module of `pullback.models`), in evaluation mode, without gradients.
        embedding_: latent points of the training data ``(n, d)``.
        scaling_: change of units between data and network.
        feature_mean_: mean of the training rows ``(p,)``, where `pullback.explain` starts.
        history_: a list per loss term, one number an epoch; those of held-out rows are "validation/...".
        converged_, message_: how the training ended.
        n_epochs_, best_epoch_: epochs run, and the one whose weights the model holds.
        training_index_, validation_index_: rows that trained, and rows that were held out.
        image_shape_: ``(channels, height, width)`` where the data were images, else None.
        library_: median total of the training rows for counts, else None.
        partition_: blocks of known quantities with their decoders, else None.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    STATE_ARRAYS: ClassVar[tuple[str, ...]] = ()
    """Names of a subclass's own fitted arrays, saved with the model."""
    STATE_VALUES: ClassVar[tuple[str, ...]] = ()
    """Names of a subclass's own fitted numbers, saved with the model."""
    METHODS: ClassVar[tuple[str, ...]] = ("prior",)
    """How a subclass draws latent points."""
    METRICS: ClassVar[tuple[str, ...]] = ("pullback", "euclidean")
    """Metrics of a subclass's latent space; the first is the one that is meant where nothing is said."""
    SCORE_DRAWS: ClassVar[int] = 1
    """Latent points that a subclass decodes for the log-density of one row."""

    latent_dim: int
    hidden: Any
    activation: Any
    normalization: Any
    encoder: Any
    decoder: Any
    likelihood: Any
    scale: Any
    penalties: Any
    partition: Any
    max_epochs: int
    batch_size: int
    lr: float
    lr_schedule: Any
    weight_decay: float
    gradient_clip: float | None
    patience: int | None
    validation_fraction: float
    device: Any
    precision: Any
    checkpoint_dir: Any
    resume: bool
    progress: bool | None
    callbacks: Any
    random_state: Any

    n_features_in_: int
    image_shape_: tuple[int, int, int] | None
    library_: float | None
    scaling_: Scaling
    feature_mean_: np.ndarray
    embedding_: np.ndarray
    training_index_: np.ndarray
    validation_index_: np.ndarray
    module_: Any

    @abstractmethod
    def _build(self, likelihood: nn.Module, generator: torch.Generator) -> nn.Module:
        """The untrained module."""

    @abstractmethod
    def _weights(self, steps_per_epoch: int) -> dict[str, Any]:
        """Weights of the loss terms."""

    def _free_bits(self) -> float:
        """Nats of each number of the KL term that cost nothing."""
        return 0.0

    @abstractmethod
    def _log_density(self, x: Tensor) -> Tensor:
        """Log-density of scaled rows ``(b,)``, or its bound."""

    @abstractmethod
    def _draw(
        self,
        n: int,
        method: str,
        table: Table | None,
        generator: torch.Generator,
        options: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Latent points ``(n, d)``, their log-density ``(n,)``, and diagnostics."""

    def _before_building(self, table: Table, seed: int) -> None:
        """Fitted attributes of a subclass that its module is built from; the scaling is known."""

    def _after_training(self, table: Table) -> None:
        """Fitted attributes of a subclass that follow from the module and from ``embedding_``."""

    def fit(self: Model, X: Any, y: Any = None, quantities: Mapping[str, Any] | None = None) -> Model:
        """Train the model.

        Args:
            X: ``(n, p)`` array, Tensor, DataFrame, scipy sparse matrix, list or AnnData, or images
                ``(n, channels, height, width)``. AnnData also receives the results: ``obsm["X_pullback"]``
                and ``uns["pullback"]``.
            y: not used; here for pipelines.
            quantities: known quantities of the rows, ``{name: (n,) or (n, ...)}``, for a ``partition``; see
                `SubspacePartition`.

        Returns:
            The estimator itself.

        Raises:
            ValueError: the data are no finite numbers, or lie outside the support of the likelihood.
        """
        check_whole("latent_dim", self.latent_dim)
        check_number("validation_fraction", self.validation_fraction)
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction: expected a number in [0, 1), got {self.validation_fraction}"
            )
        check_seed_agrees(self.random_state)
        table = self._read(X, reset=True, minimum_rows=2, quantities=quantities)
        seed = draw_seed(self.random_state)
        self.training_index_, self.validation_index_ = split_rows(len(table), self.validation_fraction, seed)
        module = self._prepare(table, seed)
        reserved = reserve_latents(self, X, table, quantities)
        callbacks = read_callbacks(self.callbacks)
        if callbacks:
            self.module_ = module  # so that a callback can transform
        with followed(callbacks, X, y):
            result = self._train(module, table, seed, reserved)
        self._settle(module, table, result)
        self.partition_ = reserved.partition(self.embedding_, self.training_index_)
        if is_anndata(X):
            write_results(X, self.embedding_, type(self).__name__, self.get_params(deep=False))
        return self

    def fit_transform(self, X: Any, y: Any = None, quantities: Mapping[str, Any] | None = None) -> np.ndarray:
        """Train the model and return the latent points of the same data ``(n, d)``."""
        return self.fit(X, y, quantities).embedding_.copy()

    def _read(self, X: Any, *, reset: bool, **options: Any) -> Table:
        return read_table(self, X, reset=reset, **options)

    def _prepare(self, table: Table, seed: int) -> nn.Module:
        """The untrained module, and everything that is fitted before it trains."""
        self.image_shape_ = table.image_shape
        likelihood = targets.resolve_likelihood(self.likelihood, table.n_features)
        scale = targets.resolve_scale(self.scale, likelihood)
        self.scaling_ = fit_scaling(scale, table, self.training_index_)
        self.feature_mean_ = feature_mean(table, self.training_index_)
        targets.check_targets(table, self.scaling_, likelihood)
        is_counts = isinstance(likelihood, targets.COUNTS)
        self.library_ = median_library(table, self.training_index_) if is_counts else None
        self._before_building(table, seed)
        module = self._new_module(table.dtype, seed)
        check_networks(module, self.scaling_.apply(table.rows(slice(0, 2))))
        return module

    def _new_module(self, dtype: torch.dtype, seed: int) -> nn.Module:
        likelihood = targets.resolve_likelihood(self.likelihood, self.n_features_in_)
        return self._build(likelihood, torch.Generator().manual_seed(seed)).to(dtype)

    def _train(self, module: nn.Module, table: Table, seed: int, reserved: Reserved) -> FitResult:
        options = self._options(table)
        rows = training_rows(table, self.scaling_, self.training_index_)
        held_out = training_rows(table, self.scaling_, self.validation_index_)
        if reserved.columns is not None:
            rows = Paired(rows, reserved.columns[self.training_index_])
            held_out = Paired(held_out, reserved.columns[self.validation_index_])
        objective = Objective(
            module,
            weights=self._weights(-(-len(rows) // self.batch_size)),
            free_bits=self._free_bits(),
            penalties=copy.deepcopy(self._listed_penalties()),
            partition=reserved.regularizer,
            library=self.library_ if targets.observed_library(module.get_submodule("likelihood")) else None,
            seed=seed,
        )
        validation = held_out if len(held_out) else None
        told = followers(self, read_callbacks(self.callbacks))
        return train(objective, rows, options, validation=validation, generator_seed=seed, callbacks=told)

    def _listed_penalties(self) -> list[Any]:
        if self.penalties is None:
            return []
        if isinstance(self.penalties, str) or not isinstance(self.penalties, Iterable):
            raise TypeError(f"penalties: expected a list of penalties, got {self.penalties!r}")
        return list(self.penalties)

    def _options(self, table: Table) -> TrainingOptions:
        return TrainingOptions(
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            lr_schedule=self.lr_schedule,
            weight_decay=self.weight_decay,
            patience=self.patience,
            gradient_clip=self.gradient_clip,
            device=training_device(self.device, table.dtype),
            precision=self.precision,
            checkpoint_dir=self.checkpoint_dir,
            resume=self.resume,
            progress=self.progress,
        )

    def _settle(self, module: nn.Module, table: Table, result: FitResult) -> None:
        """Fitted attributes after training; the module holds the best weights."""
        self.module_ = module.eval().requires_grad_(False)
        self.history_, self.best_epoch_ = result.history, result.best_epoch
        self.n_epochs_ = len(result.history.get("loss", ()))
        self.converged_, self.message_ = result.converged, result.message
        self.embedding_ = self._encode(table)
        self._after_training(table)
        if not result.converged and result.ending != "finished":
            warnings.warn(result.message, ConvergenceWarning, stacklevel=3)

    def _network_options(self) -> NetworkOptions:
        hidden = read_widths("hidden", self.hidden)
        return NetworkOptions(hidden, self.activation, self.normalization, self.image_shape_)

    def _new_encoder(self, width: int, generator: torch.Generator) -> nn.Module:
        if self.encoder is None:
            made = make_encoder(self._network_options(), self.n_features_in_, width, generator=generator)
        else:
            made = own_copy("encoder", self.encoder)
        return self._seen_by_encoder(made)

    def _seen_by_encoder(self, network: nn.Module) -> nn.Module:
        """The network on what the encoder sees: of counts, not how many there are in all."""
        return network if self.library_ is None else nn.Sequential(LogNormalise(self.library_), network)

    def _new_decoder(self, likelihood: nn.Module, generator: torch.Generator) -> nn.Module:
        if self.decoder is not None:
            return own_copy("decoder", self.decoder)
        options = self._network_options()
        return make_decoder(options, self.latent_dim, likelihood, self.n_features_in_, generator=generator)

    def transform(self, X: Any) -> np.ndarray:
        """Latent points of data ``(n, d)``; written to ``obsm["X_pullback"]`` too where X is AnnData.

        Args:
            X: data of the same features, in any form that `fit` takes.

        Returns:
            ``(n, d)`` in the precision of the model. Rows are encoded in chunks of bounded memory.
        """
        check_is_fitted(self)
        codes = self._encode(self._read(X, reset=False))
        if is_anndata(X):
            write_results(X, codes, type(self).__name__, self.get_params(deep=False))
        return codes

    def _encode(self, table: Table) -> np.ndarray:
        if self.library_ is not None:
            targets.check_targets(table, self.scaling_, self.module_.likelihood)
        return over_rows(self.module_, self.module_.encode, table, self.scaling_)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Expected data at latent points, in data units.

        Args:
            Z: ``(n, d)`` latent points.

        Returns:
            ``(n, p)``, or ``(n, channels, height, width)`` where the model was fitted to images. Counts have
            the median total of the training rows.
        """
        check_is_fitted(self)
        table = read_input(Z, estimator=self)
        if table.n_features != self._n_features_out:
            raise ValueError(f"Z: expected (n, {self._n_features_out}), got {table.shape}")
        return self._decode(table.rows(slice(None)))

    def _decode(self, z: Tensor, generator: torch.Generator | None = None) -> np.ndarray:
        library = self._decoding_library()
        flat = decoded(self.module_, z, self.scaling_, library=library, generator=generator)
        return flat if self.image_shape_ is None else flat.reshape(len(flat), *self.image_shape_)

    def _decoding_library(self) -> float | None:
        return self.library_ if targets.observed_library(self.module_.likelihood) else None

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-density of each row ``(n,)`` in nats and data units, or the model's bound on it."""
        check_is_fitted(self)
        table = self._read(X, reset=False)
        targets.check_targets(table, self.scaling_, self.module_.likelihood)
        density = over_rows(self.module_, self._log_density, table, self.scaling_, draws=self.SCORE_DRAWS)
        return density - self.scaling_.log_volume()

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`: higher is better, comparable between scalings and latent dimensions."""
        return float(np.mean(self.score_samples(X), dtype=np.float64))

    def sample(
        self,
        n_samples: int = 1,
        *,
        method: str = "prior",
        X: Any = None,
        observe: Literal["mean", "sample"] = "mean",
        random_state: Any = None,
        options: Mapping[str, Any] | None = None,
    ) -> Samples:
        """Draw latent points and decode them.

        Args:
            n_samples: number of draws.
            method: distribution of the latent points; the class says which there are.
            X: data, for the methods that start from data.
            observe: "mean" decodes to expected data, "sample" adds the noise of the likelihood.
            random_state: int, RandomState, or None for fresh draws every time.
            options: of the sampler, for the methods that run Markov chains: ``n_steps``, ``step_size``, ...

        Returns:
            `Samples`; as an array it is the decoded data. Chains that have not converged raise a
            `ConvergenceWarning` and say so in ``diagnostics``.
        """
        check_is_fitted(self)
        check_whole("n_samples", n_samples)
        check_choice("method", method, self.METHODS)
        check_choice("observe", observe, ("mean", "sample"))
        generator = torch.Generator().manual_seed(draw_seed(random_state))
        table = None if X is None else self._read(X, reset=False)
        with evaluating(self.module_):
            z, log_density, diagnostics = self._draw(n_samples, method, table, generator, options or {})
        if not diagnostics.get("converged", True):
            warnings.warn(f"method={method!r}: {diagnostics['message']}", ConvergenceWarning, stacklevel=2)
        return Samples(
            x=self._decode(z, generator if observe == "sample" else None),
            z=z.cpu().numpy(),
            log_density=log_density.cpu().numpy(),
            diagnostics={"method": method, "observe": observe, **diagnostics},
        )

    def metric(
        self,
        kind: Literal["learned", "pullback", "euclidean"] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ) -> Metric:
        """A metric of the latent space, for `pullback.geometry`.

        Args:
            kind: "pullback" pulls the Fisher metric of the likelihood back through the decoder: for a
                Gaussian, lengths are data units divided by ``scaling_.scale`` and by the noise σ. Counts have
                one library size, the median of the training rows. "euclidean" is flat in latent coordinates.
                "learned" is the metric that a Riemannian VAE has learned, and what None means there; for
                other models None means "pullback".
            dtype: precision of the metric and of the points that it takes; that of the model if not given.
            device: where these points live.
        """
        check_is_fitted(self)
        kind = kind or self.METRICS[0]  # type: ignore[assignment]
        check_choice("kind", kind, self.METRICS)
        if kind == "euclidean":
            return EuclideanMetric(self._n_features_out)
        model = self._module_in(dtype, device)
        if kind == "learned":
            return model.metric()
        embedding = model.embedding_map(self._decoding_library())
        return PullbackMetric(embedding.eval(), ambient=model.likelihood.ambient())

    def _module_in(self, dtype: torch.dtype | None, device: str | torch.device) -> Any:
        """The trained module, or a copy of it where another precision or device is asked for."""
        own = (self.scaling_.offset.dtype, device_of(self.module_))
        wanted = (dtype or own[0], torch.device(device))
        if wanted == own:
            return self.module_
        return copy.deepcopy(self.module_).to(dtype=wanted[0], device=wanted[1])

    @classmethod
    def load(
        cls: type[Model], directory: str | os.PathLike, *, modules: Mapping[str, nn.Module] | None = None
    ) -> Model:
        """The model that `save` wrote; the same as `pullback.load` where the folder holds this class.

        Raises:
            FormatError: it holds another class, or see `pullback.load`.
        """
        return restored(directory, {cls.__name__: cls}, modules or {})

    def _state_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the fitted numbers and of the fitted arrays that are saved."""
        arrays = ("training_index_", "validation_index_", "feature_mean_", *self.STATE_ARRAYS)
        return ("library_", *self.STATE_VALUES), arrays

    def _encoder_chain(self) -> Chain:
        check_is_fitted(self)
        return encoder_chain(self)

    def _decoder_chain(self) -> Chain:
        check_is_fitted(self)
        return decoder_chain(self)

    @property
    def _n_features_out(self) -> int:
        return self.module_.latent_dim
