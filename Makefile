# make run      environment, notebook, test_set_nogaps.npy, check
# make test     environment, linters, tests
# make docs     numbers and reference into the pages
# make results  what depends on the weights, measured again, without training
# make speed    times and rates, measured again
PROFILE ?= auto
PYTHON := .venv/bin/python

.PHONY: run test test-slow lint docs results speed clean

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

# what depends on the weights, measured again, and into the pages. Trains nothing: what
# benchmarks.published and benchmarks.training left in runs/ gets its rows.
FRAMES ?= $(wildcard runs/frames/heads.npz runs/frames/heads_t1.npz runs/frames/heads_t1_more.npz)
LOGS := $(wildcard runs/training/*.safetensors)
PUBLISHED := $(if $(wildcard runs/published/published.json),--published runs/published)
results: .venv/installed
	$(PYTHON) -m benchmarks.uncertainty $(FRAMES) --figure docs/uncertainty.png
	$(PYTHON) -m benchmarks.imputers $(FRAMES) $(PUBLISHED) --draws 4
	$(PYTHON) -m benchmarks.unseen $(FRAMES) $(if $(SLICES),--raw $(SLICES))
	$(PYTHON) -m benchmarks.label_free nogaps/weights/imputer --test-set test_set.npy \
		$(if $(LOGS),$(LOGS) $(PUBLISHED) $(FRAMES:%=--frames %))
	$(PYTHON) -m benchmarks.sampling $(FRAMES)
	$(PYTHON) -m docs.render

# times and rates, which depend on the machine: about 25 minutes on two cores that do nothing else
speed: .venv/installed
	$(PYTHON) -m benchmarks.notebook
	$(PYTHON) -m benchmarks.filling --large
	$(PYTHON) -m benchmarks.scaling
	$(PYTHON) -m docs.render

.venv/installed: requirements.txt constraints.txt pyproject.toml
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv runs build *.egg-info .pytest_cache .ruff_cache
