# make run    environment, notebook, test_set_nogaps.npy, check
# make test   environment, linters, tests
# make docs   numbers and reference into the pages
PROFILE ?= auto
PYTHON := .venv/bin/python

.PHONY: run test test-slow lint docs bench clean

run: .venv/installed
	$(PYTHON) -m nogaps run --profile $(PROFILE)

test: .venv/installed lint
	$(PYTHON) -m pytest -n 2 --dist loadgroup

test-slow: .venv/installed lint
	$(PYTHON) -m pytest -m "slow or not slow"

lint: .venv/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	.venv/bin/lint-imports --no-cache

# every measured number into the pages, and the reference from the code
docs: .venv/installed
	$(PYTHON) -m docs.render

# FRAMES: frame files of `nogaps prior prepare`; without them only the stand-in is scored.
# Trains nothing; what benchmarks.published and benchmarks.training left in runs/ gets its rows.
# About 25 minutes on two cores that do nothing else.
PUBLISHED := $(if $(wildcard runs/published/published.json),--published runs/published)
bench: .venv/installed
	$(PYTHON) -m benchmarks.notebook
	$(PYTHON) -m benchmarks.filling
	$(PYTHON) -m benchmarks.scaling
	$(PYTHON) -m benchmarks.sampling $(FRAMES)
	$(PYTHON) -m benchmarks.imputers $(FRAMES) $(PUBLISHED)
	$(PYTHON) -m benchmarks.masks $(FRAMES)
	$(PYTHON) -m docs.render

.venv/installed: requirements.txt constraints.txt pyproject.toml
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv runs build *.egg-info .pytest_cache .ruff_cache
