# `make` prints what there is. PYTHON chooses the interpreter, TORCH_INDEX another index to take torch from, e.g.
#   make book TORCH_INDEX=<address of a CPU-only index>
PYTHON ?= python3
TORCH_INDEX ?=
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CHAPTER ?= dpm_solver
PROFILE ?= quick
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install book test lint unit chapters-test book-test lab run seeds bench peers colab clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -z "$(TORCH_INDEX)" || $(BIN)/python -m pip install -q --index-url "$(TORCH_INDEX)" -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

install: $(STAMP) ## make .venv and install the pinned versions

book: install ## build the HTML from the stored outputs and say where it is
	$(BIN)/jupyter-book build --all --warningiserror --keep-going --quiet .
	@echo "Open $(CURDIR)/_build/html/index.html"

test: lint unit chapters-test book-test ## everything that must pass: lint, contracts, types, unit tests, chapters, book
	@echo "All checks passed."

lint: install ## ruff, import contracts, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

unit: install ## tests of the library
	$(BIN)/python -m pytest -n 2 --dist worksteal -q tests --ignore tests/book

chapters-test: install ## run every chapter again and compare its outputs
	$(BIN)/python -m pytest -n 2 --dist loadfile -q --nbval --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout 300 -p no:cacheprovider chapters

book-test: install ## build the book, check it, open it in a browser
	$(BIN)/python -m pytest -q tests/book

lab: install ## open the chapters in JupyterLab
	$(BIN)/jupyter lab chapters

run: install ## execute a chapter and store its outputs: make run CHAPTER=dpm_solver PROFILE=quick
	$(BIN)/pdebook run $(CHAPTER) --profile $(PROFILE)

seeds: install ## check every claim of every ready chapter under seeds 1 to 5
	@set -e; for chapter in $$($(BIN)/python -c 'from pdebook.catalogue import papers; print(*[p.slug for p in papers() if p.ready])'); do \
	  $(BIN)/pdebook run $$chapter --seeds 1-5; done

bench: install ## time and memory against peer libraries (after make peers; else our figures alone)
	@for file in tests/benchmarks/bench_*.py; do \
	  $$(test -x .venv-peers/bin/python && echo .venv-peers/bin/python || echo $(BIN)/python) $$file || exit 1; done

peers: ## install the peer libraries in their own environment, compare, and store reference outputs
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q -c constraints.txt -e '.[test]' -r tests/peers/requirements.txt
	.venv-peers/bin/python -W ignore tests/peers/make_references.py
	.venv-peers/bin/python -W ignore -m pytest -q tests/peers

colab: install ## run the chapters as Colab would: old ipywidgets, the project installed from a clone, an empty folder
	$(BIN)/python tests/colab.py

clean: ## remove what was built; keeps .venv
	rm -rf _build build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache .venv-peers
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
