"""
The geometry of your own map
============================

Any function or module from latent points to data has a metric. Here the map is known, the unit sphere in
stereographic coordinates, so that each result can be compared with the truth.
"""

import math

import matplotlib.pyplot as plt
import torch

import pullback as pb


def sphere(z: torch.Tensor) -> torch.Tensor:
    """The unit sphere without its north pole, as the image of the plane."""
    square = z.square().sum(1, keepdim=True)
    return torch.cat([2 * z, square - 1], dim=1) / (1 + square)


metric = pb.PullbackMetric(sphere)
generator = torch.Generator().manual_seed(0)
start, end = 2 * torch.rand(2, 6, 2, generator=generator, dtype=torch.float64) - 1

# %%
# Distances are arcs of great circles.

paths = pb.geodesic(metric, start, end)
cosine = (sphere(start) * sphere(end)).sum(1)
error = (paths.length - torch.acos(cosine)).abs().max()
print(f"largest error of six distances: {error:.1e}")

# %%
# Straight lines of the chart are not straight on the sphere.

figure, axes = plt.subplots(figsize=(5.5, 5))
circle = torch.linspace(0, 2 * math.pi, 200)
axes.plot(circle.cos(), circle.sin(), color="0.8", label="equator")
for k, points in enumerate(paths.points):
    axes.plot(*points.T, color="C0", label="geodesic" if k == 0 else None)
    line = torch.stack([start[k], end[k]])
    axes.plot(*line.T, color="C1", ls="--", label="straight line" if k == 0 else None)
axes.set(xlabel="z1", ylabel="z2", aspect="equal", title="Shortest paths of the sphere in its chart")
axes.legend()
