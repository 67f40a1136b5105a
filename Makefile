# Each target does all of its own set-up. `make help` lists them.

# Debian's Python first: one in somebody's home could not be run by others.
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
STARTED := $(shell date +%s.%N)
DEMO := $(BIN)/python -m demo
# Daemons and accounts need root: `as-root` is sudo with what pip and npm need, or nothing when we are root.
AS_ROOT := $(DEMO) as-root --
TESTS := $(CURDIR)/$(BIN)/python -m pytest --numprocesses=auto
# More for pytest: make test TEST_ARGS="-k form"
TEST_ARGS ?=

.PHONY: help demo demo-down demo-status image debian-packages test test-quick test-unit test-cluster test-browser test-course test-one test-down lint docs clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: .venv/ready  ## a miniature Snowy on this machine, and a hub on http://127.0.0.1:8000; IMAGE=course, IMAGE=small
	@$(DEMO) run --image "$(or $(IMAGE),auto)" --since $(STARTED)

demo-down: .venv/ready  ## end and remove all that `make demo` made
	@$(DEMO) down

demo-status: .venv/ready  ## what of it runs
	@$(DEMO) status

image: .venv/ready  ## the course's container, with TensorFlow; a part: make image ENVIRONMENTS="tf-mkl tf-pip"
	@$(DEMO) image --environments "$(ENVIRONMENTS)" --since $(STARTED)

test: .venv/bin/python  ## everything: lint, types, and all tests (real Slurm, containers, a browser), with coverage
	@# Python's packages and Debian's at the same time: a minute each on a bare machine.
	@$(MAKE) --no-print-directory -j2 STARTED=$(STARTED) lint debian-packages
	@$(AS_ROOT) $(TESTS) --cov $(TEST_ARGS)

test-quick: .venv/ready lint  ## the same without the browser and the slow tests
	@$(DEMO) packages --since $(STARTED)
	@$(AS_ROOT) $(TESTS) -m "not slow and not browser" $(TEST_ARGS)

test-unit: .venv/ready  ## the unit tests alone; they need neither root nor Slurm
	@$(TESTS) tests/unit $(TEST_ARGS)

test-cluster: .venv/ready  ## the tests on real Slurm alone
	@$(DEMO) packages --since $(STARTED)
	@$(AS_ROOT) $(TESTS) tests/cluster $(TEST_ARGS)

test-browser: .venv/ready  ## the tests in the browser alone
	@$(DEMO) packages --browser --since $(STARTED)
	@$(AS_ROOT) $(TESTS) tests/browser $(TEST_ARGS)

test-course: .venv/ready  ## the course's exercise in its container, with real training; `make image` comes first
	@$(DEMO) packages --since $(STARTED)
	@$(AS_ROOT) $(TESTS) --numprocesses=0 tests/course $(TEST_ARGS)

test-one: .venv/ready  ## some tests, and keep their cluster up for the next time: make test-one TEST=tests/cluster/test_session.py
	@test -n "$(TEST)" || { echo 'Say which: make test-one TEST="tests/cluster/test_session.py -k default"' >&2; exit 2; }
	@$(DEMO) packages --browser --since $(STARTED)
	@$(AS_ROOT) env SNOWYSPAWNER_KEEP_CLUSTER=1 $(TESTS) --numprocesses=0 $(TEST) $(TEST_ARGS)

test-down: .venv/ready  ## end the cluster that `make test-one` has kept up
	@$(AS_ROOT) $(CURDIR)/$(BIN)/python -m tests.runs

lint: .venv/ready  ## format, style, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@# Quiet, as it has no option for that: all of it is shown when a contract is broken.
	@echo $(BIN)/lint-imports && { out=$$($(BIN)/lint-imports --no-cache --no-logo) || { echo "$$out"; exit 1; }; }

# Needs nothing but Python.
debian-packages:
	@$(PYTHON) -m demo packages --browser --since $(STARTED)

docs: .venv/ready  ## the documentation, in docs/_build/html
	$(BIN)/pip install --quiet -e '.[docs]'
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

clean:  ## remove what was made in the checkout (not the demo: `make demo-down`)
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache htmlcov docs/_build .coverage .coverage.*

# Made again when the requirements change.
.venv/ready: setup.cfg pyproject.toml | .venv/bin/python
	@echo "[   0.0 s] Python packages into .venv"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@# jsonschema imports it if it is there, for a check that Jupyter never asks for: half of a hub's start.
	@$(BIN)/pip uninstall --quiet --yes rfc3987-syntax
	@touch $@

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or newer is needed: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { test "$$(id -u)" = 0 && \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y python3-venv; } || \
		{ echo "Python's venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
