"""
Curvature, transport and means on a torus
=========================================

The map from latent space is known, so each result stands beside its closed form.
"""

import math

import matplotlib.pyplot as plt
import torch

import pullback as pb
from pullback.geometry.reference import Sphere, Torus

torus = Torus(major=2.0, minor=0.7)
metric = pb.PullbackMetric(torus.embedding)
generator = torch.Generator().manual_seed(0)
codes = 2 * math.pi * torch.rand(400, 2, generator=generator, dtype=torch.float64) - math.pi

# %%
# The outside of a torus bends like a ball (K > 0, red), the inside like a saddle (K < 0, blue).

curvature = pb.curvature(metric, codes)
error = (curvature.gaussian - torus.gaussian_curvature(codes)).abs().max()
print(f"largest error of the curvature at 400 points: {error:.0e}")

figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
pb.plots.curvature_map(metric, codes, ax=axes[0])
pb.plots.geodesic_fan(metric, [0.0, 0.0], codes=codes, radius=3.0, ax=axes[1])

# %%
# All geodesics of the fan are solutions of one initial value problem. What the symmetry of the torus
# conserves says how well they were solved: (R + r cos v)² du/dt.

angle = torch.linspace(0, 2 * math.pi, 33, dtype=torch.float64)[:-1]
velocity = torch.stack([angle.cos(), angle.sin()], dim=1)
start = torch.zeros(32, 2, dtype=torch.float64)
shot = pb.exponential_map(metric, start, velocity, full=True)
drift = (torus.clairaut(shot.point, shot.velocity) - torus.clairaut(start, velocity)).abs().max()
print(f"largest change of the conserved quantity: {drift:.0e}")

# %%
# A vector that is carried around a loop without turning comes back turned: by the curvature inside. Around
# the cap of a sphere within one radian of its pole that is 2π(1 - cos 1).

turn = torch.linspace(0, 2 * math.pi, 129, dtype=torch.float64)
loop = math.tan(0.5) * torch.stack([turn.cos(), turn.sin()], dim=1)
sphere = pb.PullbackMetric(Sphere().embedding)
carried = pb.parallel_transport(sphere, loop, torch.tensor([1.0, 0.0]).double(), full=True)
back = carried.vectors[0, -1]
turned = float(torch.atan2(back[1], back[0])) % (2 * math.pi)
print(f"turned by {turned:.9f}, expected {2 * math.pi * (1 - math.cos(1)):.9f}")

figure, axes = plt.subplots(figsize=(5, 5))
axes.plot(*loop.T, color="0.7")
axes.quiver(*loop[::8].T, *carried.vectors[0, ::8].T, angles="xy", scale=12, width=4e-3, color="C0")
axes.set(aspect="equal", xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), xlabel="z1", ylabel="z2")
axes.set_title("Carried around a cap without turning")

# %%
# The mean of points on the torus: no other point has a smaller sum of squared distances.

points = torch.tensor([[-1.0, 0.3], [1.0, 0.5], [0.2, -0.8], [0.4, 1.2]], dtype=torch.float64)
mean = pb.frechet_mean(metric, points)
print(mean.message, mean.point, f"residual {mean.residual:.0e}")
