# Needs Python 3.11 with venv, and make. `make help` lists the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DROP ?=
STATE ?= .mhras
PEOPLE ?= 3000
ROLE ?= clinician
CONSOLE_USER ?= $(ROLE).example
API ?= http://127.0.0.1:8000
# Written beside the packages once; otherwise every process of a run compiles them anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install run start console shell story quarantine test test-nightly coverage lint types bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed ## make the virtual environment from the lock file

$(VENV)/installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $$(wc -l < requirements.lock) locked packages"
	@$(BIN)/pip install --quiet --disable-pip-version-check $$(grep -E '^(uv|torch)==' requirements.lock)
	@$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --no-deps -e .
	@touch $@

run: install ## start everything, train a release on DROP=folder (default: a simulated cohort), screen one individual
	@$(BIN)/python -m infra.local $(if $(DROP),--drop "$(DROP)") --people $(PEOPLE) --state "$(STATE)" $(if $(ALL),--all-members) $(if $(ONCE),--once)

start: install ## start what STATE holds and nothing else: no pipeline, no screening
	@$(BIN)/python -m infra.local --state "$(STATE)" --start-only

console: install ## print a link into the running console that works once; ROLE=clinician, auditor, data_scientist, admin
	@set -a; . "$(STATE)/env"; set +a; $(BIN)/python -m serving.tokens link --user "$(CONSOLE_USER)" --role "$(ROLE)" --base "$(API)"

shell: install ## open a shell with the virtual environment and the variables of STATE
	@set -a; test ! -f "$(STATE)/env" || . "$(STATE)/env"; set +a; . $(BIN)/activate; exec "$${SHELL:-bash}"

story: install ## drift, a challenger, its way to Production and back, an erasure: shown and checked in minutes
	@$(BIN)/python -m infra.local.story $(if $(ONCE),--once)

quarantine: install ## list the records that ingestion left out: file, row and reason; ARGS="--last 200" for more
	@set -a; . "$(STATE)/env"; set +a; $(BIN)/python -m flows.lake.quarantine $(ARGS)

test: install ## run the tests, on all cores; ARGS="tests/serving -k consent" for some
	@$(BIN)/python -m pytest -n auto --dist loadgroup -m "not nightly" $(ARGS)

test-nightly: install ## run the long tests too
	@$(BIN)/python -m pytest $(ARGS)

coverage: install ## run the tests and print by package how many lines and branches they cover; ARGS as for test
	@$(BIN)/python -m pytest -n auto --dist loadgroup -m "not nightly" --cov --cov-branch --cov-report= $(ARGS); \
	tested=$$?; $(BIN)/python -m tests.coverage_by_package && exit $$tested

lint: install ## check style, format, and that every package is used and declared
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/deptry .

types: install ## check types
	@$(BIN)/mypy

bench: install ## print the benchmarks (tests/load)
	@$(BIN)/python -m tests.load

# With UV_TORCH_BACKEND=cpu (or UV_FIND_LINKS=folder of wheels) torch comes without CUDA packages.
lock: install ## resolve pyproject.toml again into requirements.lock
	@rm -f requirements.lock
	@$(BIN)/uv pip compile --quiet --all-extras --python-version 3.11 --no-annotate --no-header pyproject.toml -o requirements.lock
	@# The local label of a CPU build names no release of the public index.
	@sed -i 's/+cpu$$//' requirements.lock

clean: ## remove the virtual environment and all local state
	@test ! -x $(BIN)/python || $(BIN)/python -m infra.local --forget
	@rm -rf $(VENV) .mhras .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* *.egg-info
