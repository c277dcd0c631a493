"""One frame of a live view as a page of its own: drawings in SVG, a few lines of script that reload it."""

import time
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float, Int

from pullback._version import __version__
from pullback.plots.document import Section, assemble
from pullback.plots.labels import Labels
from pullback.plots.style import (
    FIT,
    HAIRLINE,
    MUTED,
    POINT,
    category_style,
    hex_colors,
    numeric_colormap,
    shortened,
)

STALE_SECONDS = 60
MAP, CURVE = (640, 460), (640, 300)
MARGIN = 48

HOW = (
    "The page reloads itself while the training goes on. The loss should fall and flatten; the map should "
    "stop moving. A sample of the rows is drawn, each where the model puts it now."
)

# Reload as long as there is news; say so where there is none.
_RELOAD = """
const written = {written}, every = {every}, stale = {stale};
const tick = () => {{
  if (Date.now() - written > 1000 * stale) {{
    document.getElementById('state').textContent =
      'No news for a minute: the training was stopped, or its epochs are long. Reload to look again.';
  }} else {{ location.reload(); }}
}};
setTimeout(tick, 1000 * every);
"""


@dataclass(frozen=True, eq=False)
class Frame:
    """What there is to draw at one moment.

    Attributes:
        title: of the page.
        steps, losses: so far, thinned.
        points: (m, d) codes of the sampled rows, or None.
        labels: of these rows, or None.
        seconds: since the view was made.
        note: how the training ended, or None while it goes on.
    """

    title: str
    steps: Int[np.ndarray, " k"]
    losses: Float[np.ndarray, " k"]
    points: Float[np.ndarray, "m d"] | None
    labels: Labels | None
    seconds: float
    note: str | None


def live_page(frame: Frame, every: float) -> str:
    """The page of a frame, which reloads itself while the training goes on."""
    state = "" if frame.note is None else f"{escape(frame.note)}. "
    if len(frame.steps):
        state += f"Step {int(frame.steps[-1])}, loss {frame.losses[-1]:.5g}, after {frame.seconds:.0f} s."
    else:
        state += "Waiting for the first step."
    drawings = f"<div><h3>Loss</h3>{_curve(frame)}</div>"
    if frame.points is not None:
        drawings = f"<div><h3>Map</h3>{_map(frame.points, frame.labels)}</div>{drawings}"
    behaviour = ""
    if frame.note is None:
        behaviour = _RELOAD.format(written=int(1000 * time.time()), every=every, stale=STALE_SECONDS + every)
    written = time.strftime("%H:%M:%S")
    return assemble(
        title=frame.title,
        lead=f"Live view, written at {written}",
        sections=[
            Section(
                "live",
                "Now",
                "Now",
                "",
                f'<p id="state">{state}</p><div class="grid two">{drawings}</div>',
                HOW,
            )
        ],
        figures={},
        footer=f"pullback {__version__}",
        behaviour=behaviour,
        style="svg { width: 100%; height: auto; display: block } svg text { font-size: 13px }",
    )


def _scaled(values: np.ndarray, low: float, high: float, ends: tuple[float, float]) -> np.ndarray:
    start, end = ends
    return start + (end - start) * (values - low) / (high - low if high > low else 1.0)


def _svg(size: tuple[int, int], content: str, name: str) -> str:
    return f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{name}">{content}</svg>'


def _map(points: np.ndarray, labels: Labels | None) -> str:
    width, height = MAP
    xy = points[:, :2]
    if xy.shape[1] == 1:
        xy = np.column_stack([xy[:, 0], np.random.default_rng(0).uniform(-1, 1, len(xy))])
    low, high = xy.min(0), xy.max(0)
    # One scale for both coordinates: distances on the map are those of the model.
    span = max(float((high - low)[0]) / (width - 20), float((high - low)[1]) / (height - 20), 1e-12)
    middle = (low + high) / 2
    x = width / 2 + (xy[:, 0] - middle[0]) / span
    y = height / 2 - (xy[:, 1] - middle[1]) / span
    parts = [f'<rect width="{width}" height="{height}" fill="none" stroke="{HAIRLINE}"/>']
    for color, rows, _ in _colored(labels, len(xy)):
        dots = "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in zip(x[rows], y[rows], strict=True)
        )
        parts.append(f'<g fill="{color}" fill-opacity=".8">{dots}</g>')
    legend = "".join(
        f'<span><i style="color: {color}">●</i> {escape(shortened(name))}</span> '
        for color, rows, name in _colored(labels, len(xy))
        if name and rows.any()
    )
    return _svg(MAP, "".join(parts), "map") + f'<p class="key">{legend}</p>'


def _colored(labels: Labels | None, n: int) -> list[tuple[str, np.ndarray, str]]:
    """Colour, rows and name of what is drawn in one colour."""
    if labels is None:
        return [(POINT, np.ones(n, dtype=bool), "")]
    if not labels.numeric:
        return [(category_style(i)[0], labels.values == i, name) for i, name in enumerate(labels.categories)]
    colors = hex_colors(numeric_colormap(), 12)
    finite = labels.values[np.isfinite(labels.values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    shade = np.clip(_scaled(labels.values, low, high, (0.0, 11.999)), 0, 11)
    shade = np.where(np.isfinite(shade), shade, -1).astype(int)
    ends = {0: f"{low:.3g}", 11: f"{high:.3g}"}
    return [(color, shade == i, ends.get(i, "")) for i, color in enumerate(colors)] + [
        (HAIRLINE, shade < 0, "")
    ]


def _curve(frame: Frame) -> str:
    width, height = CURVE
    kept = np.isfinite(frame.losses)
    steps, losses = frame.steps[kept].astype(float), frame.losses[kept]
    inner = f'width="{width - MARGIN - 8}" height="{height - 40}"'
    frame_box = f'<rect x="{MARGIN}" y="8" {inner} fill="none" stroke="{HAIRLINE}"/>'
    if len(losses) == 0:
        return _svg(CURVE, frame_box, "loss")
    low, high = float(losses.min()), float(losses.max())
    x = _scaled(steps, float(steps.min()), float(steps.max()), (MARGIN + 4.0, width - 12.0))
    y = _scaled(losses, low, high, (height - 38.0, 14.0))
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    words = [(MARGIN - 6, 20, "end", f"{high:.3g}"), (MARGIN - 6, height - 34, "end", f"{low:.3g}")]
    words += [
        (MARGIN, height - 12, "start", f"step {steps.min():.0f}"),
        (width - 8, height - 12, "end", f"{steps.max():.0f}"),
    ]
    texts = "".join(
        f'<text x="{a}" y="{b}" text-anchor="{anchor}" fill="{MUTED}">{word}</text>'
        for a, b, anchor, word in words
    )
    drawn = f'<polyline points="{line}" fill="none" stroke="{FIT}" stroke-width="2"/>'
    return _svg(CURVE, frame_box + drawn + texts, "loss")
