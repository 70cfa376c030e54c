.DEFAULT_GOAL := help
.PHONY: help demo test processors lowest newest hydra check docs format bench gpu clean
PYTHON ?= python3
BIN := .venv/bin
# Two threads that sleep while they wait: a busy neighbour on the same cores costs little.
export OMP_WAIT_POLICY ?= PASSIVE

help: ## show the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "anomaly_lab needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.venv/peers: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,peers]'
	@touch $@

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,docs]'
	@touch $@

# A training alone on its cores is faster with threads that do not sleep between two operations, unless
# OMP_WAIT_POLICY is given, and with memory that is kept for the next step instead of handed back (glibc).
DEMO := $(if $(filter file,$(origin OMP_WAIT_POLICY)),-u OMP_WAIT_POLICY) \
	MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296

demo: .venv/installed ## install, draw the demo data, train a small DRAEM on it, leave a scored run with pictures
	env $(DEMO) $(BIN)/python -m anomaly_lab model=draem_small data=demo

test: .venv/installed ## install and run the tests, but the long ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not gpu and not long'

processors: .venv/installed ## run the tests with the kernels of older processors, with one thread and two
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=2 $(BIN)/python -m pytest -n 2 --dist worksteal
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest -n 2 --dist worksteal

.venv-lowest/installed: pyproject.toml tests/support/floors.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "the oldest releases are for Python 3.11: make lowest PYTHON=python3.11")'
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python tests/support/floors.py dev > .venv-lowest/floors.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-lowest/floors.txt -e '.[dev]'
	@touch $@

lowest: .venv-lowest/installed ## run the tests with the oldest releases that pyproject.toml allows
	.venv-lowest/bin/python -m pip list --disable-pip-version-check
	.venv-lowest/bin/python -m pytest -n 2 --dist worksteal

newest: ## run the tests with the newest releases there are
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager -e '.[dev]'
	.venv-newest/bin/python -m pip list --disable-pip-version-check
	.venv-newest/bin/python -m pytest -n 2 --dist worksteal

hydra: ## run the tests with the next Hydra, which pyproject.toml does not allow yet
	test -x .venv-hydra/bin/python || $(PYTHON) -m venv .venv-hydra
	.venv-hydra/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	.venv-hydra/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --pre 'hydra-core>=1.4.0rc3' 'omegaconf>=2.4.1rc1'
	.venv-hydra/bin/python -m pytest -n 2 --dist worksteal

check: .venv/installed ## lint, types, import floors, the long tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'long and not gpu'

format: .venv/installed ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/docs ## build the documentation into docs/_build; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build

bench: .venv/peers ## time this project against its peers on the same inputs
	$(BIN)/python -m tests.bench

gpu: .venv/installed ## on a machine with a CUDA device: its tests, its speed, trainings that are broken off
	$(BIN)/python -m tests.gpu $(GPU)

clean: ## remove everything that was made here, but the runs
	rm -rf .venv .venv-lowest .venv-newest .venv-hydra build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache datasets/demo docs/_build
