"""
A time course with one time left out
====================================

Myoblasts were sampled 0, 24, 48 and 72 hours after they began to turn into muscle. A model is fitted
without the cells of 48 hours. Cells of 24 and 72 hours are joined, by geodesics and by straight lines, and
the middles of the paths are asked about the cells that were left out.

Trapnell et al. 2014, "The dynamics and regulators of cell fate decisions are revealed by pseudotemporal
ordering of single cells". The values are FPKM, not counts: their logarithm is modelled with a Gaussian
likelihood.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import pullback as pb

data = pb.data.load("hsmm", layer="log", genes=2000)
expression, hours = data.X.astype("float32"), data.y
known = hours != 48
model = pb.VAE(latent_dim=2, max_epochs=300, patience=None, random_state=0, progress=False).fit(
    expression[known]
)
codes = torch.as_tensor(model.embedding_).double()
metric = model.metric(dtype=torch.float64)

# %%
# Every cell of 72 hours gets a partner of 24 hours, by optimal transport of their expression.

early, late = np.flatnonzero(hours[known] == 24), np.flatnonzero(hours[known] == 72)
a, b = linear_sum_assignment(cdist(expression[known][early], expression[known][late]))
start, end = codes[early[a]], codes[late[b]]
paths = pb.geodesic(metric, start, end, data=codes)
steps = torch.linspace(0, 1, 65, dtype=torch.float64)[:, None]
lines = start[:, None] + steps * (end - start)[:, None]
longer = pb.curve_length(metric, lines) / paths.length
print(paths.message, f"straight lines are {100 * float(longer.median() - 1):.2f} % longer (median)")

figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
held = model.transform(expression[~known])
everyone = np.concatenate([model.embedding_, held])
pb.plots.latent_map(
    everyone,
    np.concatenate([hours[known], hours[~known]]),
    label_name="hours",
    metric=model.metric(),
    ax=axes[0],
)
axes[0].set_title("Codes; those of 48 hours were never seen", loc="left", fontsize=11)
pb.plots.geodesic_paths(paths.points[longer.argsort(descending=True)[:12]], codes, ax=axes[1])

# %%
# The cells left out, under the mixture of the decoded middles. Three hundred epochs of a model this size
# overfit the 192 cells that it sees; both kinds of middles are equally far from those that it does not.


def log_likelihood(z: torch.Tensor) -> float:
    """Nats a held-out cell."""
    cells = model.scaling_.apply(torch.as_tensor(expression[~known]))
    with torch.no_grad():
        each = [
            model.module_.likelihood.log_prob(cells, p.expand(len(cells), -1))
            for p in model.module_.decode(z.float())
        ]
    mixture = torch.logsumexp(torch.stack(each, 1).double(), 1) - math.log(len(z))
    return float(mixture.mean()) - model.scaling_.log_volume()


middle = {
    "straight lines": lines[:, 32],
    "geodesics": paths.points[:, 32],
    "their own codes": torch.as_tensor(held),
}
for name, z in middle.items():
    print(f"{name:16} {log_likelihood(z):10.1f} nats a cell")

# %%
# One path from the middle of the cells at 0 hours to that of the cells at 72 hours: what is decoded along
# it, in standard deviations of the data, and which genes make it long.

ends = [codes[hours[known] == t].mean(0, keepdim=True) for t in (0, 72)]
path = pb.geodesic(metric, *ends, data=codes)
names = data.extra["gene_names"].tolist()
figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
along = model.inverse_transform(path.points[0, ::4].float().numpy())
pb.plots.decoded_strip(
    along,
    feature_names=names,
    n_features=14,
    scale=expression.std(0),
    centre=expression.mean(0),
    title="Decoded from 0 to 72 hours",
    ax=axes[0],
)
pb.plots.path_attribution(pb.energy_shares(metric, path, feature_names=names), n_features=14, ax=axes[1])
