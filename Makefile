# Every command sets itself up: it makes .venv and installs what it needs, once.
PYTHON ?= python3
FRAMEWORKS ?= numpy torch jax
# Of Debian's package dataset-fashion-mnist.
DATA ?= /usr/share/datasets/fashion-mnist
# The versions that the tests pin; the package itself asks for ranges.
torch := torch==2.13.0
jax := jax==0.10.2
numpy := numpy

venv := .venv
bin := $(venv)/bin
# What nobody imports needs no bytecode: that of all packages takes as long as to install them.
pip := $(bin)/python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo test conformance conformance-gpu test-extended lint bench bench-gpu bench-nmf bench-spectral docs clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo [FRAMEWORKS='numpy torch jax']   train on real images with and without a constraint"
	@echo "make test            the tests of every backend of the plain job"
	@echo "make conformance     the whole contract, every set on every backend"
	@echo "make conformance-gpu the whole contract on CuPy, PyTorch and JAX on a GPU [PYTHON=python that has them]"
	@echo "make test-extended   the same on dask, dpnp, MLX, ndonnx, mparray and TensorFlow"
	@echo "make lint            ruff, mypy, pyright, import-linter"
	@echo "make bench           speed as ratios to Keras' formula"
	@echo "make bench-gpu       the same on a CUDA device [PYTHON=python that has PyTorch or CuPy for it]"
	@echo "make bench-spectral  errors and times of the methods for singular values"
	@echo "make bench-nmf       NMF of Fashion-MNIST beside scikit-learn's [DATA=folder of the images]"
	@echo "make docs            the documentation, to out/docs"

$(bin)/python:
	$(PYTHON) -m venv $(venv)

$(venv)/.demo-%: pyproject.toml | $(bin)/python
	$(pip) $($*)
	@touch $@

$(venv)/.demo: pyproject.toml | $(bin)/python
	$(pip) -e '.[demo]'
	@touch $@

$(venv)/.dev: pyproject.toml | $(bin)/python
	$(pip) -e '.[dev]'
	@touch $@

$(venv)/.docs: pyproject.toml $(venv)/.dev
	$(pip) -e '.[docs]'
	@touch $@

$(venv)/.extended: pyproject.toml $(venv)/.dev
	$(pip) -e '.[extended]'
	@touch $@

demo: $(venv)/.demo $(foreach f,$(FRAMEWORKS),$(venv)/.demo-$(f))
	PYTHONPATH=examples $(bin)/python -m demo --frameworks $(FRAMEWORKS) --out out/demo

# One thread for each of the two workers: with two each they wait for each other on two cores.
test: $(venv)/.dev
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -n 2 --dist worksteal --ignore tests/extended

conformance: $(venv)/.dev
	WHOLE=1 OMP_NUM_THREADS=1 $(bin)/python -m pytest -n 2 --dist worksteal tests/test_conformance.py
	WHOLE=1 OMP_NUM_THREADS=1 $(bin)/python -m pytest -n 2 --dist worksteal -m thorough \
		--ignore tests/extended

# Not in .venv: what a GPU needs depends on its driver. So with the packages of PYTHON, which are to
# be CuPy, PyTorch and JAX for the GPU, array-api-compat, pytest, pytest-xdist and pytest-timeout.
GPU_WORKERS ?= 8
gpu := PYTHONPATH=src:adapters OMP_NUM_THREADS=1 XLA_PYTHON_CLIENT_PREALLOCATE=false

conformance-gpu:
	GPU=1 $(gpu) $(PYTHON) -m pytest -p no:benchmark -n $(GPU_WORKERS) --dist worksteal tests/gpu \
		tests/numpy_adapter/test_cupy_gpu.py

test-extended: $(venv)/.extended
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -n 2 --dist worksteal tests/extended
	KERAS_BACKEND=tensorflow OMP_NUM_THREADS=1 $(bin)/python -m pytest -n 2 --dist worksteal \
		tests/extended/test_keras_tensorflow.py tests/keras_adapter

lint: $(venv)/.dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/pyright --pythonpath $(bin)/python
	$(bin)/lint-imports

bench: $(venv)/.dev
	$(bin)/python benchmarks/run.py

bench-gpu:
	$(gpu) $(PYTHON) benchmarks/gpu.py

bench-nmf: $(venv)/.dev
	$(bin)/python benchmarks/nmf.py --data $(DATA)

bench-spectral: $(venv)/.dev
	$(bin)/python benchmarks/spectral.py

docs: $(venv)/.docs
	$(bin)/sphinx-build --fail-on-warning --quiet docs out/docs
	@echo "out/docs/index.html"

clean:
	rm -rf $(venv) out .mypy_cache .ruff_cache .pytest_cache
