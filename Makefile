# `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := $(CURDIR)/.venv
export PATH := $(VENV)/bin:$(PATH)
READY := $(VENV)/.ready
TORCH := 2.13.0

.PHONY: help env demo test torture lint dag docs lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

env: $(READY) ## set up .venv from the lock, nothing else

$(READY): requirements.lock pyproject.toml
	@if command -v $(PYTHON) >/dev/null; then $(PYTHON) -m venv $(VENV); else python3 -m venv $(VENV); fi
	@$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=...")'
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: env ## run the whole pipeline on the embedded cohort and print the results
	@sg use configs/demo.yaml
	dvc --wait-for-lock repro
	@sg results

test: lint ## check style and run the tests (some 13 minutes)
	python -m pytest -m "not slow"

torture: env ## run every test, the long ones too
	python -m pytest -m ""

lint: env ## check style
	@ruff check .
	@ruff format --check --quiet .

dag: env ## draw the pipeline, stages of one kind collapsed
	@dvc dag --collapse-foreach-matrix

docs: env ## make docs/params.md from the schema
	sg params > docs/params.md

lock: ## resolve requirements.lock anew (needs uv and a network)
	uv pip compile pyproject.toml --all-extras --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-package torch --override <(echo torch==$(TORCH)+cpu) --output-file requirements.lock $(UV_FLAGS)

clean: ## remove what runs have made, but not .venv, the DVC cache or your own data
	rm -rf report logs .state build dist data/.aside
