"""The paths in numbers, and what is decoded along them, as HTML."""

from html import escape

import numpy as np
from matplotlib.colors import Colormap, to_hex

from pullback.plots.images import most_changing, pixels, strip, value_limits
from pullback.plots.png import data_uri, shrink
from pullback.plots.style import diverging_colormap
from pullback.reporting.evidence import Evidence
from pullback.reporting.pairs import Paths, stations_of
from pullback.reporting.path_shares import share_blocks
from pullback.reporting.thumbnails import shorten, standardised

HEAT_ROWS = 10

# A click on a row of the table chooses its path in the figure.
CHOOSE_PATH = """
for (const row of document.querySelectorAll('table.paths tbody tr')) {
  const choose = () => {
    for (const page of Bokeh.documents) {
      const choice = page.get_model_by_name('path');
      if (choice) { choice.value = row.dataset.path; }
    }
  };
  row.addEventListener('click', choose);
  row.addEventListener('keydown', (event) => { if (event.key === 'Enter') { choose(); } });
}
"""


def path_table(paths: Paths) -> str:
    """Lengths, savings and certificates, one row a path."""
    rows = []
    for i, pair in enumerate(paths.pairs):
        good = bool(paths.converged[i])
        word = (
            '<span class="badge pass">✓ certified</span>'
            if good
            else '<span class="badge fail">✕ open</span>'
        )
        fine = f"residual {paths.residual[i]:.0e}, gap {abs(paths.gap[i]):.0e}"
        rows.append(
            f'<tr data-path="{i}" class="{"chosen" if i == 0 else ""}" tabindex="0">'
            f'<th scope="row">{" → ".join(map(_end, pair.ends))}</th>'
            f"<td>{paths.straight_length[i]:.3g}</td><td>{paths.length[i]:.3g}</td>"
            f"<td>{100 * paths.saved[i] + 0.0:.1f}\u202f%</td>"
            f'<td>{word}<div class="fine">{fine}</div></td></tr>'
        )
    names = ("path", "line", "geodesic", "saved", "certificate")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return f'<table class="paths"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _end(name: str) -> str:
    """A short name stays on one line."""
    return escape(shorten(name, 20).replace(" ", "\u00a0") if len(name) <= 12 else shorten(name, 20))


def path_strips(evidence: Evidence, paths: Paths) -> str:
    """What is decoded along both ways of every pair; all but the first are hidden until chosen."""
    blocks = share_blocks(evidence, paths)
    return "\n".join(_strips(evidence, paths, i, blocks[i]) for i in range(len(paths.pairs)))


def _strips(evidence: Evidence, paths: Paths, i: int, shares: str) -> str:
    """Decoded rows at even steps of the geodesic's length and of the straight line; what makes it long."""
    nodes = stations_of(paths)
    decoded = [evidence.decode(line[i][nodes]) for line in (paths.points, paths.straight)]
    names = ("geodesic", "straight line")
    if evidence.image_shape is not None:
        limits = value_limits(evidence.x)
        rows = []
        for name, values in zip(names, decoded, strict=True):
            drawn = strip(shrink(pixels(values, evidence.image_shape, limits), 64))
            alt = f"decoded samples along the {name} {escape(paths.pairs[i].name)}"
            rows.append(
                f'<div class="lane"><span>{name}</span><img src="{data_uri(drawn)}" alt="{alt}"></div>'
            )
        inside = "".join(rows)
    else:
        inside = _heat_maps(evidence, decoded, names)
    hidden = "" if i == 0 else " hidden"
    title = escape(shorten(paths.pairs[i].name, 60))
    return f'<div class="strips" data-path="{i}"{hidden}><h3>{title}</h3>{inside}{shares}</div>'


def _heat_maps(evidence: Evidence, decoded: list[np.ndarray], names: tuple[str, ...]) -> str:
    chosen = most_changing(np.concatenate(decoded), evidence.spread, HEAT_ROWS)
    values = [standardised(evidence, rows)[:, chosen] for rows in decoded]
    limit = max(float(np.abs(np.concatenate(values)).max()), 1e-9)
    colormap = diverging_colormap()
    count = len(decoded[0])
    head = "".join(
        f'<th colspan="{count}" scope="colgroup">{name}</th><th class="gap"></th>' for name in names
    )
    lines = []
    for k, j in enumerate(chosen):
        cells = '<td class="gap"></td>'.join(
            "".join(_cell(float(value), limit, colormap) for value in part[:, k]) for part in values
        )
        name = escape(evidence.feature_names[j])
        cut = escape(shorten(evidence.feature_names[j], 22))
        lines.append(f'<tr><th scope="row" title="{name}">{cut}</th>{cells}</tr>')
    first = count // 2
    ends = f'<td colspan="{first}">start</td><td colspan="{count - first}" class="right">end</td>'
    ends += '<td class="gap"></td>'
    foot = f"<tr class='ends'><th></th>{ends * len(names)}</tr>"
    scale = (
        f'<p class="scale"><span style="background: {to_hex(colormap(0.0))}"></span>{-limit:.1f} '
        f'<span style="background: {to_hex(colormap(0.5))}"></span>0 '
        f'<span style="background: {to_hex(colormap(1.0))}"></span>+{limit:.1f} '
        "standard deviations from the mean of the data</p>"
    )
    inside = f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}{foot}</tbody>"
    return f'<table class="heat">{inside}</table>{scale}'


def _cell(value: float, limit: float, colormap: Colormap) -> str:
    return f'<td style="background:{to_hex(colormap(0.5 + 0.5 * value / limit))}" title="{value:+.2f}"></td>'
