"""Weekdays and months in a small language model: what shape do their states have, and is it a circle?

    .venv/bin/python -m benchmarks.text_states [FIGURE]

Twelve templates, eight to fit and four to judge; states of layers 3 and 6, centred by template, on eight
principal axes. For each family: the score of a circle's coordinates on the templates that were left out,
without and with labels, and what evidence says it is.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import pullback as pb
from pullback.data.sentences import sentence_states
from pullback.models.dictionary.scores import coordinate_score
from pullback.models.dictionary.topology import choose_topology

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
TEMPLATES = {
    "weekday": (
        *("It happened on {}.", "The meeting is on {}.", "She arrived on {}.", "We will meet again on {}."),
        *("On {} the shop is closed.", "The report is due on {}.", "{} is my favourite day."),
        *("They moved here last {}.", "The market opens every {}.", "He always travels on {}."),
        *("Next {} we start the project.", "Prices rose on {}."),
    ),
    "month": (
        *("It happened in {}.", "The festival is in {}.", "She was born in {}.", "We will meet again in {}."),
        *("In {} the weather changes.", "The report is due in {}.", "{} is my favourite month."),
        *("They moved here last {}.", "The shop closes every {}.", "He always travels in {}."),
        *("Next {} we start the project.", "Prices rose in {}."),
    ),
}
WORDS = {"weekday": DAYS, "month": MONTHS}
TRAINING, AXES = 8, 8


def states(family: str, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows on eight axes, value and template of each; axes and units are those of the templates to fit."""
    words, templates = WORDS[family], TEMPLATES[family]
    value, template = (
        part.ravel() for part in np.meshgrid(np.arange(len(words)), np.arange(len(templates)), indexing="ij")
    )
    sentences = [templates[j].format(words[i]) for i, j in zip(value, template, strict=True)]
    rows = sentence_states(sentences, layer=layer).astype(np.float64)
    for j in range(len(templates)):
        rows[template == j] -= rows[template == j].mean(axis=0)
    fitted = template < TRAINING
    rows /= np.linalg.norm(rows[fitted], axis=1).mean()
    axes = np.linalg.svd(rows[fitted], full_matrices=False)[2][:AXES]
    return rows @ axes.T, value, template


def circle_score(Z: np.ndarray, value: np.ndarray, template: np.ndarray, *, labels: bool) -> float:
    """Score of a circle's coordinates on the templates that were left out."""
    fitted, n = template < TRAINING, int(value.max()) + 1
    model = pb.ManifoldDictionary(1, "circle", gate="softmax", random_state=0)
    model.fit(Z[fitted], labels=value[fitted].astype(float) if labels else None)
    t = np.asarray(model.transform(Z[~fitted]).coords)[:, 0]
    truth = 2 * np.pi * value[~fitted, None] / n
    return coordinate_score("circle", torch.from_numpy(truth), torch.from_numpy(t))


def main(figure: Path | None = None) -> None:
    torch.set_num_threads(1)
    for layer in (6, 3):
        for family in TEMPLATES:
            Z, value, template = states(family, layer)
            free, known = (circle_score(Z, value, template, labels=labels) for labels in (False, True))
            fitted = torch.from_numpy(Z[template < TRAINING])
            found = choose_topology(fitted, generator=torch.Generator().manual_seed(0))
            print(
                f"layer {layer}, {family:8s} circle {free:.3f}, with labels {known:.3f}; "
                f"{found.verdict}: {found.winner} by {found.margin:.0f} nats",
                flush=True,
            )
    if figure is not None:
        draw(figure)


def draw(figure: Path) -> None:
    """Weekdays and months of layer 6 on their circles, and what evidence says of them."""
    canvas, axes = plt.subplots(2, 2, figsize=(9.4, 7.6), layout="constrained", width_ratios=(1, 1.1))
    for row, family in zip(axes, TEMPLATES, strict=True):
        Z, value, template = states(family, 6)
        fitted = template < TRAINING
        model = pb.ManifoldDictionary(1, "circle", gate="softmax", random_state=0)
        model.fit(Z[fitted], labels=value[fitted].astype(float))
        names = np.array([word[:3] for word in WORDS[family]])
        pb.plots.plot_atom(model, 0, Z, labels=names[value], ax=row[0])
        row[0].set_title(f"{family}s, coordinates from labels", loc="left", fontsize=11)
        found = choose_topology(torch.from_numpy(Z[fitted]), generator=torch.Generator().manual_seed(0))
        title = pb.plots.evidence_bars(found, ax=row[1]).get_title(loc="left")
        row[1].set_title(title.replace("rows", f"what {family}s are"), loc="left", fontsize=11)
    canvas.savefig(figure, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
