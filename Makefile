# Everything from a bare Python >= 3.11: each target first makes $(VENV) and installs what it needs, as pinned in
# constraints.txt, once. Another interpreter: `make test PYTHON=/path/to/python3`. Another place: `make test VENV=/tmp/venv`.

PYTHON ?=
VENV ?= .venv
PYTEST_ARGS ?=
BENCH_ARGS ?=
DEMO_ARGS ?=

PY := $(VENV)/bin/python
PINS := constraints.txt
INSTALL := $(PY) -m pip install -qq --no-input --disable-pip-version-check -c $(PINS)
AT_ONCE := -n auto --dist worksteal
# Other engines whose timing the tests of their adapters see: `make test-hosts` runs them.
HOSTS := temporal
# Tests that other targets run: against those engines, and by the type checkers (`make types`).
ELSEWHERE := $(HOSTS:%=--ignore=tests/hosts/%) --ignore=tests/types
JAEGER = program=$$($(PY) -m tests.real_jaeger.build) && SAGAS_JAEGER="$$program"
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)

# notices of newer versions and of other tools
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export NO_MKDOCS_2_WARNING := 1
# the tests are compiled once, not by each of the processes that run them
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo demo-booking test coverage lint types test-jaeger test-hosts test-node soak bench docs wheel test-wheel format generated pins clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.ready-demo ## run the order saga of examples/orders and show what it does
	@$(PY) -m examples.orders.demo
	@echo "Next: make demo-booking, trips of three suppliers, by one saga as a graph and as code"

demo-booking: $(VENV)/.ready-demo ## run the trips of examples/booking, by a saga as a graph and as code
	@$(PY) -m examples.booking.demo $(DEMO_ARGS)

test: $(VENV)/.ready-test ## run the tests on all cores (PYTEST_ARGS="-k words" picks some, "-n0" keeps to one)
	@$(PY) -m pytest $(AT_ONCE) $(ELSEWHERE) $(PYTEST_ARGS)

coverage: $(VENV)/.ready-test ## run the tests; fails where they cover too little, branches included
	@$(PY) -m pytest --cov --cov-report=term $(AT_ONCE) $(ELSEWHERE) $(PYTEST_ARGS)
	@$(PY) -m tools.pure_coverage

lint: $(VENV)/.ready-test $(VENV)/.ready-lint ## ruff, import contracts, unused code and dependencies
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --check --quiet .
	@$(VENV)/bin/lint-imports --no-logo
	@$(PY) -m vulture
	@$(VENV)/bin/deptry sagas durable_core

types: $(VENV)/.ready-test $(VENV)/.ready-types ## mypy --strict and pyright strict on both packages
	@$(PY) -m mypy
	@$(PY) -m pyright --pythonpath $(PY)
	@$(PY) -m pytest -q tests/types

test-jaeger: $(VENV)/.ready-test ## what a real Jaeger says of our traces; builds it once, where Go is (GO=/path/to/go)
	@$(JAEGER) $(PY) -m pytest -rs tests/real_jaeger $(PYTEST_ARGS)

test-hosts: $(VENV)/.ready-test ## the same sagas on Temporal's test server; needs Linux and the right to make a network namespace
	@$(PY) -m pytest -rs -n 2 $(HOSTS:%=tests/hosts/%) $(PYTEST_ARGS)

test-node: $(VENV)/.ready-test $(VENV)/node/.ready ## what Mermaid and bpmn-js make of our pictures; needs npm
	@NODE_PATH=$(abspath $(VENV))/node/node_modules $(PY) -m pytest -rs tests/node $(PYTEST_ARGS)

soak: $(VENV)/.ready-test ## a fleet, PgBouncer, random sagas and verbs; behaviour on PostgreSQL; Jaeger; long
	@$(JAEGER) SAGAS_SOAK=2000 $(PY) -m pytest -rs --timeout 900 tests/crash/test_fleet.py tests/crash/test_pooler.py \
		tests/crash/test_cut_answers.py tests/crash/test_every_crash_point.py tests/store/test_power_loss.py tests/replay \
		tests/behaviour tests/real_jaeger $(PYTEST_ARGS)

bench: $(VENV)/.ready-demo $(VENV)/.ready-postgres ## measure both databases and a fleet (BENCH_ARGS="--help" lists choices)
	@$(if $(BENCH_ARGS),$(PY) -m benchmarks $(BENCH_ARGS),$(PY) -m benchmarks \
		&& $(PY) -m benchmarks --postgres W1 W2 W3 W4 W5 && $(PY) -m benchmarks --postgres --workers 1,2,4)

docs: $(VENV)/.ready-docs ## build the documentation into site/, strictly
	@$(PY) -m mkdocs build --strict --quiet

wheel: $(VENV)/.ready-wheel ## build sdist and wheel into dist/
	@rm -rf dist
	@$(PY) -m build --dependency-constraints-txt $(PINS) --outdir dist . >$(VENV)/build.log 2>&1 \
		|| { cat $(VENV)/build.log; exit 1; }
	@ls dist

test-wheel: wheel ## install the built wheel away from this tree and try it there
	@place=$$(mktemp -d) && trap 'rm -rf "$$place"' EXIT \
		&& $(PY) -m venv "$$place/venv" \
		&& "$$place/venv/bin/python" -m pip install -qq --no-input -c $(PINS) dist/*.whl \
		&& "$$place/venv/bin/python" -E tests/docs/wheel_smoke.py \
		&& "$$place/venv/bin/python" -m pip install -qq --no-input -c $(PINS) pytest \
		&& "$$place/venv/bin/python" -E tests/docs/wheel_smoke.py plugin

format: $(VENV)/.ready-lint ## format the code and repair what ruff can repair
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

generated: $(VENV)/.ready-test ## write what is made from the code: SQL of the stores, tables in docs/reference
	@for tool in store_sql spans_page operators_page limits_page hosts_page pictures readme_pictures node_types; do $(PY) -m tools.$$tool || exit; done

pins: ## make constraints.txt anew from the newest versions
	@place=$$(mktemp -d) && trap 'rm -rf "$$place"' EXIT \
		&& $(MAKE) --no-print-directory VENV="$$place/venv" PINS=/dev/null everything \
		&& { sed '/^[^#]/,$$d' $(PINS); "$$place/venv/bin/python" -m pip freeze -qq --all --exclude durable-sagas --exclude setuptools; } \
			>"$$place/pins" \
		&& cp "$$place/pins" $(PINS)

clean: ## remove what these targets made, the environment included
	@rm -rf dist site .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
	@test ! -f $(VENV)/pyvenv.cfg || rm -rf $(VENV)

# -- How the environment is made: one stamp for the packages, one for each group of tools, anew when the pins change.

.PHONY: everything
everything: $(addprefix $(VENV)/.ready,-test -lint -types -docs -wheel)

$(VENV)/bin/python:
	@for python in $(CANDIDATES); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		echo "making $(VENV) with $$("$$python" -V)"; \
		"$$python" -m venv $(VENV) && exit; \
		rm -rf $(VENV); \
		echo "$$python cannot make a virtual environment; on Debian and Ubuntu install python3-venv" >&2; exit 1; \
	done; \
	echo "no Python 3.11 or newer among: $(CANDIDATES). Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1

$(VENV)/.ready: pyproject.toml $(PINS) | $(VENV)/bin/python
	@echo "installing durable-sagas into $(VENV)"
	@$(INSTALL) --upgrade pip
	@$(INSTALL) --build-constraint $(PINS) -e .
	@touch $@

$(VENV)/node/.ready: tests/node/package.json tests/node/package-lock.json | $(VENV)/bin/python
	@command -v npm >/dev/null || { echo "npm is not present; install Node.js 20.19 or newer" >&2; exit 1; }
	@echo "installing what reads our pictures into $(VENV)/node"
	@mkdir -p $(VENV)/node && cp tests/node/package.json tests/node/package-lock.json $(VENV)/node
	@npm ci --prefix $(VENV)/node --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(VENV)/.ready-%: $(VENV)/.ready
	@echo "installing the $* tools into $(VENV)"
	@$(INSTALL) --group $*
	@touch $@
