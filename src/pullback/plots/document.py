"""The page: sections of HTML around the figures, everything inside one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Literal

from bokeh.embed import components
from bokeh.models import UIElement
from bokeh.resources import Resources

Verdict = Literal["pass", "attention", "fail"]

WORDS = {"pass": "✓ pass", "attention": "! attention", "fail": "✕ fail"}

# Nothing outside the file may be loaded, whatever a name or label holds.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline' blob:; "
    "img-src data: blob:; font-src data:"
)


@dataclass(frozen=True)
class Check:
    """One check: what was measured, how it was judged and what that means."""

    key: str
    name: str
    value: float | None
    text: str
    verdict: Verdict
    thresholds: str
    sentence: str


@dataclass(frozen=True)
class Section:
    """A part of the page: HTML in which ``{{name}}`` stands for the figure of that name."""

    key: str
    title: str
    short: str
    note: str
    body: str
    how: str


def badge(verdict: str) -> str:
    """A verdict as a word on a coloured ground."""
    return f'<span class="badge {verdict}">{WORDS[verdict]}</span>'


def checks_box(checks: Sequence[Check], verdict: str, headline: str) -> str:
    """The box of checks that stands first."""
    cards = "\n".join(_card(check) for check in checks)
    return f'<p class="headline">{badge(verdict)} {escape(headline)}</p><div class="checks">{cards}</div>'


def _card(check: Check) -> str:
    return (
        f'<div class="check {check.verdict}" data-check="{check.key}">'
        f'<div class="top"><span class="name">{escape(check.name)}</span>{badge(check.verdict)}</div>'
        f'<div class="value">{escape(check.text)}</div>'
        f"<p>{escape(check.sentence)}</p>"
        f'<div class="thresholds">{escape(check.thresholds)}</div></div>'
    )


def definitions(values: Mapping[str, object]) -> str:
    """Names and values as a definition list; each pair in a box of its own."""
    items = "".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in values.items()
    )
    return f"<dl>{items}</dl>"


def _section(section: Section) -> str:
    note = f'<p class="note">{section.note}</p>' if section.note else ""
    how = f'<p class="how"><b>How to read it.</b> {section.how}</p>' if section.how else ""
    return f'<section id="{section.key}"><h2>{escape(section.title)}</h2>{note}{section.body}{how}</section>'


def assemble(
    *,
    title: str,
    lead: str,
    sections: Sequence[Section],
    figures: Mapping[str, UIElement],
    footer: str,
    behaviour: str = "",
    style: str = "",
) -> str:
    """The whole page as text: styles, scripts, figures and pictures inline; no address outside it.

    ``style`` is CSS beside that of every page, ``behaviour`` JavaScript at its end.
    """
    script, places = components(dict(figures)) if figures else ("", {})
    body = "\n".join(_section(section) for section in sections)
    for name, place in places.items():
        body = body.replace("{{" + name + "}}", f'<div class="figure" data-figure="{name}">{place}</div>')
    links = "".join(f'<a href="#{section.key}">{escape(section.short)}</a>' for section in sections)
    common = files("pullback.plots").joinpath("page.css").read_text(encoding="utf-8")
    scripts = ""
    if figures:
        library = Resources(mode="inline", minified=True, components=["bokeh", "bokeh-widgets"])
        scripts = "\n".join(f"<script>{text}</script>" for text in library.js_raw)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{common}{style}</style>
{scripts}
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
<noscript><p>The figures on this page need JavaScript; the checks, tables and pictures do not.</p></noscript>
{body}
</main>
<footer>{footer}</footer>
{script}
<script>{behaviour}</script>
</body>
</html>
"""
