"""A dictionary in use: codes of rows, rows of codes, edits along atoms, files."""

import os
from abc import ABC
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import TransformerTags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pullback.estimators.dictionary_options import given_number
from pullback.estimators.dictionary_rows import Frame, Given, read_rows
from pullback.estimators.dictionary_state import dictionary_state, restored_dictionary
from pullback.io import save_model
from pullback.models.dictionary.atoms import Atom
from pullback.models.dictionary.codes import SparseCodes, decode
from pullback.models.dictionary.decoder_step import Moments
from pullback.models.dictionary.diagnostics import FitDiagnostics
from pullback.models.dictionary.gram import whitened
from pullback.models.dictionary.iterate import INTERRUPTED
from pullback.models.dictionary.matching import Alignment, align_by_decoders, align_by_rows
from pullback.models.dictionary.module import ManifoldDictionaryModule
from pullback.models.dictionary.moving import moved
from pullback.models.dictionary.row_metrics import about_mean
from pullback.models.dictionary.transforming import Encoder
from pullback.validation import check_choice

Fitted = TypeVar("Fitted", bound="FittedDictionary")


class FittedDictionary(BaseEstimator, ABC):
    """What a dictionary does once it is fitted; `ManifoldDictionary` fits it."""

    image_shape_ = None
    n_features_in_: int
    atoms_: tuple[Atom, ...]
    components_: Any
    codes_: SparseCodes
    module_: ManifoldDictionaryModule
    diagnostics_: FitDiagnostics
    _frame: Frame
    _encoder: Encoder
    _moments: Moments | None
    _seen: int
    _lam: Tensor
    n_atoms: Any
    gate: Any
    dtype: Any

    # use

    def transform(self, Z: Any, *, center_by: Any = None, ambient: Any = None) -> SparseCodes:
        """Codes of rows from nothing: atoms, weights, coordinates and their deviations.

        Args:
            Z: rows, (N, p).
            center_by: names of the nuisance factor, (N,), if `fit` had one: groups that the fit did not see
                get the mean of the rows given here.
            ambient: LowRank with a factor for each of these rows, (N, p, r), if rows of `fit` had some: codes
                and residuals are by them. None measures all rows by the mean of the fit.
        Raises:
            NotFittedError: before `fit`. ValueError: another width, or rows that are not finite.
        """
        given = self._ready(Z)
        factors = self._frame.factors(ambient, *given.rows.shape)
        codes = self._encoder.codes(self._inner(given, center_by), factors=factors)
        return self._returned(codes, given)

    def inverse_transform(self, codes: SparseCodes) -> Any:
        """Rows of codes, (N, p), b0 included; nuisance means only where they are the same for all rows.

        Args:
            codes: of `transform`.
        """
        check_is_fitted(self)
        if not isinstance(codes, SparseCodes):
            raise TypeError(f"codes: expected SparseCodes of transform, got {type(codes).__name__}")
        components = self._components.double()
        rows = decode(self._encoder.layout, components, codes.plain(components))
        rows = rows + self._frame.taken(torch.zeros_like(rows))
        found = rows.to(torch.as_tensor(codes.weights).dtype)
        return found.numpy() if isinstance(codes.weights, np.ndarray) else found

    def score(self, Z: Any, y: Any = None, *, ambient: Any = None) -> float:
        """Share of the variance of rows that is explained, 1 - FVU.

        Args:
            Z: rows, (N, p).
            y: ignored.
            ambient: as in `transform`; misfit and variance are by the factors then.
        """
        given = self._ready(Z)
        fitted = torch.as_tensor(self.inverse_transform(self.transform(Z, ambient=ambient))).to(given.rows)
        missed, apart = given.rows - fitted, given.rows - given.rows.mean(0)
        if ambient is not None:
            metrics = about_mean(ambient.factor.detach().to(given.rows.device))
            inner = given.rows.double() @ metrics.root
            apart = whitened(inner - metrics.mean(inner), metrics.factors)
            missed = whitened(missed.double() @ metrics.root, metrics.factors)
        return float(1 - missed.square().sum() / apart.square().sum())

    def steer(self, Z: Any, atom: int, delta: Any, *, ambient: Any = None) -> Any:
        """Rows moved along one atom: Z + a [g(t moved by delta) - g(t)]; what is not explained stays.

        Args:
            Z: rows, (N, p).
            atom: its number.
            delta: step along the chart, (d,) or one a row (N, d), in the units of its coordinates.
            ambient: as in `transform`.
        Returns:
            (N, p); rows that do not use the atom are unchanged, and delta = 0 gives Z.
        Raises:
            ValueError: an atom without such steps, or delta of another length.
        """
        given = self._ready(Z)
        chart = self._atom(atom).chart
        if chart.d == 0:
            raise ValueError(f"atom {atom} is a {chart.name}: expected one with coordinates; use ablate")
        step = torch.as_tensor(delta).to(given.rows).double()
        if step.shape not in ((chart.d,), (len(given.rows), chart.d)):
            raise ValueError(
                f"delta: expected ({chart.d},) or ({len(given.rows)}, {chart.d}), got {tuple(step.shape)}; "
                f"atom {atom} is a {chart.name}: {chart.d} "
                + ("tangent components" if chart.name == "sphere" else "coordinates")
            )
        row, a, t = self._uses(given, atom, ambient)
        step = step.expand(len(given.rows), chart.d)[row]
        B = self._components[self._encoder.layout.block(atom)].double()
        ahead, behind = (chart.jet(x, 0).value @ B for x in (moved(chart, t, step), t))
        change = torch.where((step == 0).all(1, keepdim=True), 0.0, a * (ahead - behind))
        return given.returned(given.rows.index_add(0, row, change.to(given.rows)))

    def ablate(
        self, Z: Any, atom: int, mode: Literal["zero", "mean"] = "zero", *, ambient: Any = None
    ) -> Any:
        """Rows without what one atom adds to them, or with its mean point instead.

        Args:
            Z: rows, (N, p).
            atom: its number.
            mode: "zero" or "mean".
            ambient: as in `transform`.
        """
        check_choice("mode", mode, ("zero", "mean"))
        given = self._ready(Z)
        chart = self._atom(atom).chart
        row, a, t = self._uses(given, atom, ambient)
        B = self._components[self._encoder.layout.block(atom)].double()
        part = chart.jet(t, 0).value @ B
        if mode == "mean":
            part = part - chart.jet(chart.grid().to(B), 0).value.mean(0) @ B
        return given.returned(given.rows.index_add(0, row, (-a * part).to(given.rows)))

    def align(self, other: "FittedDictionary", Z: Any = None) -> Alignment:
        """Which atom of another dictionary each atom is.

        Args:
            other: a fitted dictionary of the same features.
            Z: rows that both explain, which also gives maps of coordinates and their scores; None for the
                angles between decoders alone.
        """
        check_is_fitted(self)
        check_is_fitted(other)
        mine, theirs = self._encoder.layout, other._encoder.layout
        if other.n_features_in_ != self.n_features_in_:
            raise ValueError(f"other: expected {self.n_features_in_} features, got {other.n_features_in_}")
        if Z is None:
            return align_by_decoders(mine, self._components, theirs, other._components)
        return align_by_rows(mine, self.transform(Z).numpy(), theirs, other.transform(Z).numpy())

    def without_nuisance(self, Z: Any, center_by: Any) -> Any:
        """Rows whose nuisance groups all have one mean, as `transform` without ``center_by`` expects them.

        Args:
            Z: rows, (N, p).
            center_by: names of the nuisance factor, (N,), as in `transform`.
        """
        given = self._ready(Z)
        rows = given.rows
        return given.returned(rows - self._frame.taken(rows, center_by) + self._frame.taken(rows))

    # on disk

    def save(self, directory: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Write the fitted dictionary to a folder (``config.json``, ``model.safetensors``).

        Raises:
            FileExistsError: the folder holds a model and ``overwrite`` is False.
            TypeError: a chart that is not of `pullback.charts`.
        """
        check_is_fitted(self)
        return save_model(directory, *dictionary_state(self), overwrite=overwrite)

    @classmethod
    def load(cls: type[Fitted], directory: str | os.PathLike) -> Fitted:
        """The dictionary that `save` wrote; `partial_fit` goes on from it.

        Factors of rows belong to the rows and are not kept: give them as ``ambient`` to fit again.
        """
        return restored_dictionary(cls, directory)

    # inside

    @property
    def converged_(self) -> bool:
        """Whether the fit came to rest."""
        return self.diagnostics_.converged

    @property
    def message_(self) -> str:
        """Why the fit ended."""
        return self.diagnostics_.message

    @property
    def interrupted_(self) -> bool:
        """Whether Ctrl-C ended the fit."""
        return self.message_ == INTERRUPTED

    @property
    def sigma_(self) -> float:
        """Noise level."""
        return self._encoder.s2**0.5

    @property
    def _components(self) -> Tensor:
        return torch.as_tensor(self.components_)

    def _read(self, Z: Any, *, reset: bool) -> Given:
        least = 2 * (given_number(self) or 1) if reset else 1
        given = read_rows(self, Z, reset=reset, minimum_rows=least)
        if self.dtype is not None:
            check_choice("dtype", self.dtype, ("float32", "float64"))
            given = replace(given, rows=given.rows.to(getattr(torch, self.dtype)))
        return given

    def _ready(self, Z: Any) -> Given:
        check_is_fitted(self)
        return self._read(Z, reset=False)

    def _inner(self, given: Given, center_by: Any = None) -> Tensor:
        rows = given.rows.double()
        return self._frame.inside(rows - self._frame.taken(rows, center_by))

    def _publish(self, B: Tensor, given: Given) -> None:
        layout, encoder = self._encoder.layout, self._encoder
        self.components_ = given.returned(B)
        self.atoms_ = tuple(
            Atom(k, chart, B[layout.block(k)].to(given.rows.dtype), float(self._lam[k]))
            for k, chart in enumerate(layout.charts)
        )
        self.module_ = ManifoldDictionaryModule(
            layout.charts,
            B.shape[1],
            self.gate,
            n_active=encoder.n_active,
            entropy=encoder.entropy,
            tau=encoder.tau,
            sigma=encoder.s2**0.5,
            scale=encoder.scale,
            decoders=B.to(given.rows.dtype),
        )

    def _atom(self, atom: Any) -> Atom:
        if atom not in range(len(self.atoms_)):
            raise ValueError(f"atom: expected 0 .. {len(self.atoms_) - 1}, got {atom!r}")
        return self.atoms_[atom]

    def _uses(self, given: Given, atom: int, ambient: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Rows that use an atom, its weight there (m, 1), and its coordinates."""
        factors = self._frame.factors(ambient, *given.rows.shape)
        codes = self._encoder.codes(self._inner(given), factors=factors)
        row, slot, t = codes.of_atom(atom)
        chart = self.atoms_[atom].chart
        return row, torch.as_tensor(codes.weights)[row, slot].unsqueeze(1), t[:, : chart.c]

    def _returned(self, codes: SparseCodes, given: Given) -> SparseCodes:
        names = ("indices", "weights", "coords", "coord_sd", "residual", "converged")
        parts = [given.returned(torch.as_tensor(getattr(codes, name))) for name in names]
        return SparseCodes(*parts, n_atoms=codes.n_atoms)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags = TransformerTags()
        return tags
