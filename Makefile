# Each target sets up what it needs: on a fresh machine `make demo` and `make test` work as they stand.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
PYTEST_ARGS ?=

# An OpenMP pool that spins while others want the cores makes a step many times slower (docs/footguns.md).
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo test browser lint types unit slow test-vision fix clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: $(VENV)/.base ## evaluate the embedded editor on the embedded benchmark: a table here, and the path of report.html
	$(BIN)/mteval run

test: browser lint types unit ## lint, format check, strict types, tests

# What tests/browser drives: installed where that needs no question, and otherwise those tests are skipped.
browser:
	@for program in chromium chromium-browser google-chrome; do command -v $$program >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for tests/browser ..."; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >/dev/null \
			|| echo "Chromium could not be installed: tests/browser is skipped"; \
	else \
		echo "No Chromium here, so tests/browser is skipped. On Debian and Ubuntu: sudo apt install chromium"; \
	fi

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# A process a core; each test runs on one thread (tests/conftest.py).
unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 8 $(PYTEST_ARGS)

slow: $(VENV)/.dev ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# Families whose image processors need torchvision, which has to fit torch: an environment of their own, several gigabytes.
VISION := .venv-vision
test-vision: $(VISION)/.dev ## what needs torchvision, in an environment of its own
	OMP_NUM_THREADS=1 $(VISION)/bin/python -m pytest tests/parity tests/mteval/editors tests/mteval/perception \
		tests/mteval/judges/test_transformers.py tests/mttrain/test_policy.py tests/mttrain/test_families.py $(PYTEST_ARGS)

fix: $(VENV)/.dev ## format the code and apply the linter's safe repairs
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and every cache; runs/ stays
	rm -rf $(VENV) $(VISION) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

# .base is what `mteval run` needs, .dev what the tests need on top.
$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing mteval into $(VENV); the first time this takes some minutes ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing mteval and what its tests need into $(VENV); the first time this takes some minutes ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[train,dev]"
	@touch $@ $(VENV)/.base

$(VISION)/.dev: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing mteval with torchvision into $(VISION); the first time this takes many minutes ..."
	$(BIN)/python -m venv $(VISION)
	sed -e 's/^torch==.*/torch==2.14.1/' -e 's/^torchvision==.*/torchvision==0.29.1/' constraints.txt > $(VISION)/constraints.txt
	$(VISION)/bin/python -m pip install --quiet --disable-pip-version-check -c $(VISION)/constraints.txt -e ".[train,dev,vision]" torchao
	@touch $@

# pip is the last thing that venv makes, so a half-made environment is made again.
$(BIN)/pip:
	@found=; for candidate in $(PYTHON) python3.13 python3.12 python3.11; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "mteval needs Python 3.11 or newer, and $(PYTHON) is not. Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$found cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; \
	fi; \
	"$$found" -m venv --clear $(VENV)
