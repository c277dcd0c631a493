"""
The latent space of handwritten digits
======================================

Fit a variational autoencoder, look at how much its decoder stretches each part of the latent space, and join
digits by the shortest paths of the decoder's metric.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

import pullback as pb

images, labels = load_digits(return_X_y=True)
model = pb.VAE(latent_dim=2, max_epochs=60, random_state=0, progress=False).fit(images)
codes = torch.as_tensor(model.embedding_)

# %%
# The metric g(z) = Jᵀ W J is the decoder's: lengths in the latent space are lengths of change in the data.
# The field behind the codes is ½ log det g, how much a small latent square grows when it is decoded.

metric = model.metric()
figure, axes = plt.subplots(figsize=(8, 6))
pb.plots.latent_map(codes, labels, metric=metric, ax=axes)

# %%
# Five pairs of digits, all solved in one call. Every path carries its certificate: whether Newton's method
# reached a stationary curve, and whether a finer mesh changes it.

start, end = codes[:5], codes[100:105]
paths = pb.geodesic(metric, start, end, data=codes)
steps = torch.linspace(0, 1, 65)[:, None]
straight = pb.curve_length(metric, start[:, None] + steps * (end - start)[:, None])
for length, line, converged in zip(paths.length, straight, paths.converged, strict=True):
    print(f"geodesic {float(length):6.2f}   straight line {float(line):6.2f}   converged {bool(converged)}")

figure, axes = plt.subplots(figsize=(7, 6))
pb.plots.geodesic_paths(paths.points, codes, metric=metric, ax=axes)
