"""
Means, curvature and attribution on handwritten digits
======================================================

The geometry of a trained decoder: where its image bends, what the mean of a class is, and which pixels make
the way from one class to another long.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

import pullback as pb

images, labels = load_digits(return_X_y=True)
model = pb.VAE(latent_dim=2, max_epochs=60, random_state=0, progress=False).fit(images)
codes = torch.as_tensor(model.embedding_).double()
metric = model.metric(dtype=torch.float64)

# %%
# Red: the image bends like a ball, blue: like a saddle. Each ellipse holds steps that change the data
# equally.

figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
pb.plots.curvature_map(metric, codes, ax=axes[0])
pb.plots.indicatrices(metric, codes, ax=axes[1])

# %%
# The mean of a class under the metric, beside the average of its coordinates. The mean comes with its
# checks: the gradient that is left, and whether the points are so spread that there may be another.

figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
means = {}
for k, digit in enumerate((0, 4)):
    members = codes[labels == digit][:40]
    means[digit] = mean = pb.frechet_mean(metric, members, data=codes)
    print(f"{digit}: {mean.message}")
    for ax, name, z in (
        (axes[2 * k], "mean", mean.point),
        (axes[2 * k + 1], "average code", members.mean(0)),
    ):
        ax.imshow(model.inverse_transform(z[None].float().numpy()).reshape(8, 8), cmap="gray_r")
        ax.set_title(f"{digit}: {name}", fontsize=10)
        ax.set_axis_off()

# %%
# Geodesics of one length that leave the mean of the zeros, and lines of equal distance from it.

figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
pb.plots.geodesic_fan(metric, means[0].point, codes=codes, radius=15.0, ax=axes[0])
pb.plots.distance_balls(metric, means[0].point, codes=codes, radii=[5.0, 10.0, 15.0, 20.0], ax=axes[1])

# %%
# From the mean of the zeros to that of the fours, decoded, and the energy of the way split over the pixels;
# the shares sum to one exactly.

path = pb.geodesic(metric, means[0].point[None], means[4].point[None], data=codes)
shares = pb.energy_shares(metric, path)
print(f"length {float(path.length):.2f}, certified {bool(path.converged)}")
print(f"the shares sum to {float(shares.fraction.sum()):.15f}")

figure, axes = plt.subplots(1, 2, figsize=(12, 3.2), layout="constrained", width_ratios=(2, 1))
along = model.inverse_transform(path.points[0, ::8].float().numpy())
pb.plots.decoded_strip(along, image_shape=(1, 8, 8), ax=axes[0])
pb.plots.path_attribution(shares, image_shape=(1, 8, 8), ax=axes[1])
