# `make run` and `make test` set everything up by themselves. TORCH_BACKEND=cpu|cu128|auto picks another build
# of torch than the package index's; PYTHON=python3.12 another Python.
PYTHON ?= python3
TORCH_BACKEND ?=
ARGS ?=
JOBS ?= 2 # processes of the tests

BIN := .venv/bin
READY := .venv/.ready
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND))
PYTEST := $(BIN)/python -m pytest --numprocesses $(strip $(JOBS)) --dist loadfile
CONSTRAINTS := $(if $(TORCH_BACKEND),,--constraint constraints.txt)

export NO_ALBUMENTATIONS_UPDATE := 1
export PYTHONWARNINGS ?= ignore::SyntaxWarning

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast test-all check bench claims tables format clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(READY) ## install everything into .venv

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@echo "installing into .venv"
	@$(UV) $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

run: $(READY) ## train and evaluate the default; more through ARGS="method=dropout seed=1"
	@$(BIN)/python -m mmrobust.run $(ARGS)
	@echo 'DMRNet beside its control, the same network with modalities dropped at random, three seeds each:'
	@echo '  $(BIN)/python -m mmrobust.run -m method=dropout,dmrnet seed=0,1,2 && $(BIN)/python -m mmrobust.report outputs'

test: $(READY) ## the tests, without those that take minutes
	@$(PYTEST) -m "not long" $(ARGS)

test-fast: $(READY) ## the tests that take no processes and few seconds
	@$(PYTEST) -m "not slow and not long" $(ARGS)

test-all: $(READY) ## all tests, those that take minutes among them: claims, a real Slurm
	@$(PYTEST) $(ARGS)

check: $(READY) ## lint, types, tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(PYTEST) -m "not long" $(ARGS)

bench: $(READY) ## speed, as ratios; one JSON object a line
	@$(BIN)/python -m tests.bench $(ARGS)

tables: $(READY) ## write the tables in the documents anew from results/
	@$(BIN)/python -m tests.test_documents

claims: $(READY) ## the papers' claims, measured: some hours on one core; again: go on; ARGS="V O": these alone
	@$(BIN)/python -m tests.claims.experiments $(ARGS)

format: $(READY) ## format, and mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## remove what is made here, but not outputs/
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
