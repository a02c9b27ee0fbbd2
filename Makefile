# Two commands matter: `make quickstart` runs the main job, `make test` passes the tests. Each prepares .venv by itself.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup quickstart test lint check docs notebooks parity hostile audit load clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@test -d .venv || $(PYTHON) -m venv .venv
	@echo "Installing skillweave and its libraries into .venv (two to three minutes on a fresh machine) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: setup
	@$(BIN)/skillweave quickstart

test: setup
	@$(BIN)/python -m pytest -n 2

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/ty check src
	@$(BIN)/lint-imports

docs: setup
	@$(BIN)/python docs/build_reference.py
	@$(BIN)/python docs/build_site.py

notebooks: setup
	@$(BIN)/python notebooks/run_notebooks.py

parity: setup
	@$(BIN)/python benchmarks/parity.py
	@$(BIN)/python benchmarks/parity_random.py

hostile: setup
	@$(BIN)/python tests/hostile/hostile.py

# Known vulnerabilities of the pinned packages; skips, and says so, where no advisory database can be reached.
audit: setup
	@$(BIN)/python .ci/audit.py

# The service under load for ten minutes: give the machine nothing else to do.
load: setup
	@mkdir -p runs
	@$(BIN)/python benchmarks/service.py --clients 200 --seconds 600 --json runs/load.json

clean:
	rm -rf .venv build dist *.egg-info
