# Everything runs from .venv, which is made from uv.lock at first use. Needs Python 3.11-3.13 and git.

PYTHON ?= python3
MODEL ?= flights
CONF ?= conf/$(MODEL).yaml
HOLDFAST_MLFLOW_PORT ?= 5000
UV_VERSION := 0.13.9

STATE := $(CURDIR)/.holdfast
RUN := .venv/bin/python
HOLDFAST := .venv/bin/holdfast
READY := .venv/.ready

# Targets that run MLflow or pytest without holdfast send no telemetry either.
export MLFLOW_DISABLE_TELEMETRY ?= true
export DO_NOT_TRACK ?= 1
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
# Behind a company's proxy only the system knows the certificates.
export UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/certs/ca-certificates.crt),true,false)

.PHONY: help setup demo test test-fast test-team test-browser test-night coverage up ui serve lint docs bench clean
.DELETE_ON_ERROR:

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1\t\2/p' Makefile | expand -t 22

setup: $(READY)  ## make .venv from uv.lock (every target does this when it has to)

demo: $(READY)  ## replay a year of flights: train, drift, retrain; FRESH=1 starts over, MODEL=delays or cancer is another
	$(if $(FRESH),rm -rf "$(STATE)")
	@$(HOLDFAST) replay $(CONF)
	@echo "Look at the runs, charts and versions: make ui"

# Tests of flows wait for other processes: four at once keep two cores busy.
PYTEST = $(RUN) -m pytest -n 4 --dist loadfile --no-loadscope-reorder

test: $(READY)  ## run the tests; ARGS goes to pytest
	$(PYTEST) -m "not statistics and not team and not browser and not night" $(ARGS)

test-team: $(READY)  ## run the tests with several servers, processes that are killed, and damaged stores
	.ci/postgresql
	$(PYTEST) -m "team and not night" tests/flows $(ARGS)

test-browser: $(READY)  ## open every page in Chromium over real servers; pictures are in .screenshots
	@PATH="$$PATH:$(CURDIR)/.venv-uv/bin" uv sync -q --frozen --inexact --extra demo --group browser
	.ci/browser
	$(RUN) -m pytest -m browser tests/browser $(ARGS)

test-fast: $(READY)  ## run the tests that need no server and are done in a minute
	$(PYTEST) -n 2 -m "not integration and not slow and not statistics and not team and not browser and not night" --ignore=tests/flows $(ARGS)

test-night: $(READY)  ## run error rates with thousands of trials, and every case of what the others sample
	$(PYTEST) -m "statistics or night" $(ARGS)

coverage: $(READY)  ## run both and show the lines and branches that they miss
	$(MAKE) test ARGS="--cov --cov-report="
	$(MAKE) test-team ARGS="--cov --cov-append --cov-report=term-missing:skip-covered"

up: $(READY)  ## start Prefect, MLflow and a worker; Ctrl-C stops them all
	$(HOLDFAST) up

ui: $(READY)  ## browse the demo's runs in MLflow
	@mkdir -p "$(STATE)/artifacts"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(RUN) -m mlflow server \
	  --host 127.0.0.1 --port $(HOLDFAST_MLFLOW_PORT) --workers 1 \
	  --backend-store-uri "sqlite:///$(STATE)/mlflow.db" \
	  --default-artifact-root "file://$(STATE)/artifacts" --no-serve-artifacts

serve: $(READY)  ## serve the champion
	$(HOLDFAST) serve $(CONF)

lint: $(READY)  ## check style, types, the Dockerfile, compose.yaml and the workflows
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	.venv/bin/hadolint Dockerfile
	.venv/bin/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*
	.venv/bin/check-jsonschema -q --builtin-schema vendor.compose-spec compose.yaml

docs: $(READY)  ## write the pages of docs/ that follow from the code
	$(RUN) docs/generate.py

bench: $(READY)  ## measure what retraining on drift is worth
	$(RUN) -m benchmarks.retraining --json

clean:  ## forget all runs, models and batches
	rm -rf "$(STATE)"

$(READY): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "Holdfast needs Python 3.11, 3.12 or 3.13; $(PYTHON) is not one of them." \
	    "Name one, as with: make PYTHON=python3.12" >&2; exit 2; }
	@command -v uv >/dev/null || test -x .venv-uv/bin/uv || { \
	  $(PYTHON) -m venv .venv-uv && .venv-uv/bin/python -m pip install -q --disable-pip-version-check \
	    uv==$(UV_VERSION) && \
	  echo '*' >.venv-uv/.gitignore; } || { \
	  rm -rf .venv-uv; echo "Holdfast installs itself with uv, and could not get it through pip." \
	    "Install uv, or what python3 -m venv needs: apt-get install python3-venv" >&2; exit 2; }
	@echo "Making .venv from uv.lock; the first time takes a minute or two."
	@PATH="$$PATH:$(CURDIR)/.venv-uv/bin" \
	  uv sync -q --frozen --extra demo --compile-bytecode --python "$$(command -v $(PYTHON))"
	@touch $@
