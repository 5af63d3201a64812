# The same commands for people and for CI. The environment is made once, in $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DATASET ?= csbm
SEEDS ?= 5
DEMO = runs/demo-$(DATASET)

# Graphs that `bench` exports, and interpreters of peers in environments of their own (benchmarks/peers/README.md).
BENCH ?= runs/bench
GRAPHBOLT_PYTHON ?=
PYG_PYTHON ?=
PYG = $(if $(PYG_PYTHON),--pyg-python $(PYG_PYTHON))

# One thread: on graphs of this size a second one only waits, and on a busy machine it waits long.
# Bags of words are normalised by row, as Kipf & Welling do; Gaussian features are not.
FEATURES = $(if $(filter csbm,$(DATASET)),raw,row)
TRAIN = $(BIN)/graphdyn train --dataset $(DATASET) --model gcn --features $(FEATURES) --seeds $(SEEDS) --threads 1

.PHONY: help demo study test test-slow test-browser lint format bench validity clean
help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed  ## train GCN with and without batch norm: a table, run folders, a picture (DATASET=cora for real data)
	$(TRAIN) --norm none --out $(DEMO)/gcn
	$(TRAIN) --norm batch --out $(DEMO)/gcn-batch-norm
	$(BIN)/graphdyn report $(DEMO)/gcn $(DEMO)/gcn-batch-norm --png $(DEMO)/curves.png

study: $(VENV)/installed  ## a tiny study, the whole path without data: runs/tiny/report.html
	$(BIN)/graphdyn study --tiny --workers 1

test: $(VENV)/installed  ## all quick tests
	$(BIN)/pytest -n 2

test-slow: $(VENV)/installed  ## the tests that take minutes
	$(BIN)/pytest -m slow

test-browser: $(VENV)/installed  ## the page of a study in a headless Chromium (GRAPHDYN_CHROMIUM=PATH, else the one on the path)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,browser]'
	$(BIN)/pytest -m slow tests/report/study/test_browser.py

lint: $(VENV)/installed  ## ruff (with docstring rules), format, pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/installed  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

validity: $(VENV)/installed  ## measure the bias of every sampler anew, into docs/validity.md (5 minutes)
	$(BIN)/python experiments/sampler_bias/run.py --write docs/validity.md

bench: $(VENV)/installed  ## speed against peers, side by side; JSON in benchmarks/results (peers: benchmarks/peers/README.md)
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/epoch.py
	$(BIN)/python benchmarks/sampling.py --folder $(BENCH) $(if $(GRAPHBOLT_PYTHON),--graphbolt-python $(GRAPHBOLT_PYTHON)) $(PYG)
	$(BIN)/python benchmarks/epoch_sampled.py --folder $(BENCH) $(PYG)

clean:  ## remove the environment and caches, not the runs
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
