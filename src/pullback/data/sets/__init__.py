"""The named sets, one module each (scikit-learn's share one): a new set is a module and a line here."""

from pullback.data.sets import bundled, hsmm, mnist_5k, pbmc68k

SETS = {entry.name: entry for entry in (*bundled.SETS, mnist_5k.SET, pbmc68k.SET, hsmm.SET)}
