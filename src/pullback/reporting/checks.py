"""What a report checks first: the numbers, and each with its verdict and one plain sentence."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from pullback.plots.document import Check, Verdict
from pullback.reporting.learned import FlowMeasures


@dataclass(frozen=True, kw_only=True)
class Measures:
    """The numbers behind a diagnosis; None or NaN where a number does not apply or could not be computed."""

    n_rows: int
    n_features: int
    latent_dim: int
    reconstruction_error: float = math.nan  # share of the variance that is lost
    pca_error: float = math.nan  # the same for a PCA with as many dimensions
    reconstruction_rows: int = 0
    reconstruction_units: str
    trustworthiness: float | None
    continuity: float | None
    neighbourhood_rows: int
    neighbours: int
    condition_number: float = math.nan  # mean over samples of largest over smallest eigenvalue of the metric
    condition_median: float = math.nan
    metric_rows: int = 0
    metric_variance: float | None = None  # squared affine-invariant distance of the metric from its mean
    metric_distortion: float | None = None  # d E tr g² / (E tr g)²: 1 where the map is true to scale
    logdet_variance: float | None = None
    stress: float | None = None  # relative root mean square by which the ruler misses geodesic distances
    pearson: float | None = (
        None  # correlation of geodesic distances with those by the ruler, and of their ranks
    )
    spearman: float | None = None
    stress_pairs: int = 0
    stress_certified: int = 0
    off_data_share: float = math.nan
    off_data_in_plane: bool = False
    geodesics: int = 0
    geodesics_converged: int = 0
    worst_residual: float = math.nan
    worst_gap: float = math.nan
    saved_median: float = math.nan  # share of the straight line's length that the geodesic saves
    saved_largest: float = math.nan
    stability: float | None = (
        None  # mean over pairs of standard deviation over mean of a distance over trainings
    )
    trainings: int = 0
    stability_pairs: int = 0
    stability_certified: int = 0  # pairs whose distance is certified in every training
    active_dims: int
    converged: bool
    message: str
    history_finite: bool
    far_correlation: float | None = None  # of ranks of distances on the map and in the data
    far_pairs: int = 0
    flow: FlowMeasures | None = None  # of a model with a learned metric, which then is the one measured


@dataclass(frozen=True)
class Diagnosis:
    """All checks of a fitted model on its data, the numbers behind them, and the paths that were computed."""

    checks: tuple[Check, ...]
    measures: Measures
    paths: Any = field(default=None, repr=False, compare=False)  # a `Paths`, or None
    samples: Any = field(default=None, repr=False, compare=False)  # `Samples` of the volume, or None

    def __getitem__(self, key: str) -> Check:
        for check in self.checks:
            if check.key == key:
                return check
        raise KeyError(f"{key!r}: expected one of {', '.join(check.key for check in self.checks)}")

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks."""
        return worst_verdict(self.checks)

    @property
    def headline(self) -> str:
        """How many checks pass, and which do not."""
        wrong = [check.name.lower() for check in self.checks if check.verdict != "pass"]
        if not wrong:
            return f"All {len(self.checks)} checks pass."
        passed = len(self.checks) - len(wrong)
        return f"{passed} of {len(self.checks)} checks pass; look at: {', '.join(wrong)}."

    def summary(self) -> list[str]:
        """Five short lines for a terminal; four of a model that only encodes."""
        m = self.measures
        text = {check.key: check.text for check in self.checks}
        near = f"trustworthiness {text['trustworthiness']}, continuity {text['continuity']}"
        nearby = ("neighbourhoods", worst_verdict((self["trustworthiness"], self["continuity"])), near)
        if "far" in text:
            others: list[tuple[str, Verdict, str]] = [
                (key, self[key].verdict, text[key]) for key in ("far", "training")
            ]
            return _lines([nearby, *others, ("checks", self.verdict, self.headline)])
        ways, ruler = [text["geodesics"]], [text["condition"], text["coverage"], text["ruler"]]
        if m.stability is not None:
            ways += [f"{percent(m.saved_median)} shorter than lines", f"vary by {text['stability']}"]
        elif m.geodesics:
            ways.append(f"{percent(m.saved_median)} shorter than straight lines (median)")
        paths = [check for check in self.checks if check.key in ("geodesics", "stability")]
        lines: list[tuple[str, Verdict, str]] = [
            (
                "reconstruction",
                self["reconstruction"].verdict,
                f"{text['reconstruction']}, {m.latent_dim} dims",
            ),
            nearby,
            (
                "metric",
                worst_verdict((self["condition"], self["coverage"], self["ruler"])),
                ", ".join(ruler),
            ),
            ("geodesics", worst_verdict(paths), ", ".join(ways)),
            ("checks", self.verdict, self.headline),
        ]
        return _lines(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: every check and every number."""
        return {
            "verdict": self.verdict,
            "headline": self.headline,
            "checks": {check.key: _plain(asdict(check)) for check in self.checks},
            "measures": _plain(asdict(self.measures)),
        }


def _lines(lines: Iterable[tuple[str, Verdict, str]]) -> list[str]:
    """Name, verdict and text side by side; terminals and log files of any encoding show these lines."""
    plain = str.maketrans({"\u202f": " ", "×": "x"})
    return [f"{name:<15} {verdict:<10} {text}".translate(plain) for name, verdict, text in lines]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity and no NaN."""
    return {
        name: _plain(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in values.items()
    }


def worst_verdict(checks: Iterable[Check]) -> Verdict:
    """The worst verdict of these checks."""
    found = {check.verdict for check in checks}
    return "fail" if "fail" in found else "attention" if "attention" in found else "pass"


def percent(share: float) -> str:
    """A share with two digits."""
    return f"{100 * share:.1f}\u202f%" if abs(share) < 0.1 else f"{100 * share:.0f}\u202f%"
