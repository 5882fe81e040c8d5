# make run    environment, notebook, test_set_nogaps.npy, check
# make test   environment, linters, tests
PROFILE ?= auto
PYTHON := .venv/bin/python

.PHONY: run test test-slow lint bench clean

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

# FRAMES: frame files of `nogaps prior prepare`; without them only the stand-in is scored.
# Trains nothing; what benchmarks.published and benchmarks.training left in runs/ gets its rows.
# About 25 minutes on two cores that do nothing else.
IMAGES ?= runs/full/samples/images.npy
PUBLISHED := $(if $(wildcard runs/published/published.json),--published runs/published)
CURVES := $(and $(FRAMES),$(PUBLISHED),$(wildcard runs/training/*.json),$(wildcard $(IMAGES)))
bench: .venv/installed
	$(PYTHON) -m benchmarks.limit
	$(PYTHON) -m benchmarks.changes
	$(PYTHON) -m benchmarks.filling
	$(PYTHON) -m benchmarks.scaling
	$(PYTHON) -m benchmarks.sampling $(FRAMES)
	$(if $(CURVES),$(PYTHON) -m benchmarks.training $(IMAGES) $(FRAMES) $(PUBLISHED) --rates-only)
	$(PYTHON) -m benchmarks.imputers $(FRAMES) $(PUBLISHED)
	$(PYTHON) -m benchmarks.masks $(FRAMES)
	$(PYTHON) -m benchmarks.page

.venv/installed: requirements.txt constraints.txt pyproject.toml
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv runs build *.egg-info .pytest_cache .ruff_cache
