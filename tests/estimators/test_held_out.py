"""Rows that are left out of a fit, in whatever form they come."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import pullback as pb
from pullback.estimators.held_out import evaluate_apart, rest_of, seen_part

VALUES = np.arange(12.0).reshape(6, 2)
FORMS = {
    "array": VALUES,
    "tensor": torch.from_numpy(VALUES),
    "frame": pd.DataFrame(VALUES, index=list("abcdef")),
    "sparse": sparse.csr_matrix(VALUES),
    "list": VALUES.tolist(),
    "anndata": anndata.AnnData(VALUES),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_rest_of_the_rows_and_of_their_quantities(form: str) -> None:
    held = np.array([4, 1])
    assert rest_of(6, held).tolist() == [0, 2, 3, 5]
    quantities = {"mass": pd.Series(np.arange(6), index=list("fedcba")), "batch": list("abcabc")}
    seen = seen_part(FORMS[form], quantities, held)
    X = seen.X.X if form == "anndata" else seen.X
    X = X.toarray() if sparse.issparse(X) else np.asarray(X)
    assert X.tolist() == VALUES[[0, 2, 3, 5]].tolist()
    assert seen.quantities["mass"].tolist() == [0, 2, 3, 5]
    assert list(seen.quantities["batch"]) == ["a", "c", "a", "c"]
    assert seen_part(FORMS[form], None, held).quantities is None
    whole = seen_part(FORMS[form], quantities, None)
    assert whole.X is FORMS[form]
    assert whole.quantities is quantities


def test_the_model_that_holds_rows_out_measures_on_those() -> None:
    X = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    option = pb.SubspacePartition({"first": None})
    options = {"hidden": (8,), "max_epochs": 2, "validation_fraction": 0.3, "progress": False}
    model = pb.Autoencoder(2, partition=option, random_state=0, **options).fit(
        X, quantities={"first": X[:, 0]}
    )
    table = evaluate_apart(model, X, {"first": X[:, 0]}, None)
    assert table.to_dict() == model.evaluate_quantities(X, {"first": X[:, 0]}).to_dict()
    other = evaluate_apart(model, X, {"first": X[:, 0]}, np.arange(10))
    assert (other.n_train, other.n_test) == (50, 10)
