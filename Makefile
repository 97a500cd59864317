# The front doors. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LIBRARIES := libglib2.0-0 libosmesa6 libegl1 libegl-mesa0 libgles2 libgl1 libgl1-mesa-dri libglx-mesa0 libglu1-mesa
TEST_MINUTES := 40
# Many tests wait for daemons, and leave one of two cores idle.
TWO := -n 2 --dist loadscope --no-loadscope-reorder
.DEFAULT_GOAL := help
.PHONY: help venv libraries images images-down locks demo test test-all check fix coverage fuzz licences bench cluster-up cluster-down docs clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  \1\t/' | expand -t 18

venv: $(VENV)/.installed ## make .venv with everything (CPU)

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "Python 3.11 to 3.13 is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): some minutes, in which pip prints nothing"
	@# torch first and alone: a looser requirement of another package would take a CUDA build
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[all,dev,docs]'
	$(BIN)/python -c 'import torch; assert torch.version.cuda is None, "a CUDA build of torch was installed"'
	touch $@

libraries: $(VENV)/.installed
	@$(BIN)/python -c 'import sys; from launcher.simulator_checks import rendering; sys.exit(rendering(None, None)[0].severity == "error")' || \
	if [ "$$(id -u)" = 0 ]; then \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(LIBRARIES); \
	else \
	  echo "Headless rendering needs system libraries. Run this once, then make demo again:"; \
	  echo "  sudo apt-get install -y $(LIBRARIES)"; exit 1; \
	fi

demo: venv libraries ## the whole road on this machine (10 to 15 minutes)
	$(BIN)/rdtl demo

images: venv ## a private Docker engine (root) and the image that tests and demo run in
	$(BIN)/python -m tests.images.engine up
	$(BIN)/rdtl image build all-cpu --with docker
	$(BIN)/rdtl image build all-cpu --with apptainer --from docker
	$(BIN)/rdtl image clean --days 3

images-down: ## stop that engine; built images stay
	$(BIN)/python -m tests.images.engine down

locks: venv ## resolve the packages of all images anew (configs/images/locks)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python containers/locks.py

test: venv libraries ## all tests but the slow ones; fails above 40 minutes
	timeout --signal=INT --kill-after=60 $(TEST_MINUTES)m $(BIN)/python -m pytest -m 'not slow' $(TWO)

test-all: test ## and then the slow ones, without a limit of time
	$(BIN)/python -m pytest -m slow $(TWO)

check: venv ## lint, format, types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m docs.generate --check

fix: venv ## apply what lint and format can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: venv libraries ## lines and branches that all tests reach (slower than make test-all)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(TWO)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --include='launcher/*,jobs/*' --fail-under=90
	$(BIN)/coverage report --include='rdt/*' --fail-under=85

FUZZ_SECONDS := 120
fuzz: venv ## FUZZ_SECONDS of coverage-guided fuzzing for each target of tests/fuzz
	$(BIN)/pip install -q -c constraints.txt '.[fuzz]'
	for target in $$($(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)'); do \
	  $(BIN)/python -m tests.fuzz $$target $(FUZZ_SECONDS); \
	done

licences: venv ## docs/licences.md from the metadata of what is installed
	$(BIN)/python -m containers.licences

bench: venv libraries ## all benchmarks; writes benchmarks/results and docs/benchmarks.md
	$(BIN)/python -m benchmarks

cluster-up: venv ## start a real Slurm on this machine (root); site minislurm
	$(BIN)/python -m tests.cluster.minislurm up

cluster-down: ## stop it and leave nothing behind
	$(BIN)/python -m tests.cluster.minislurm down

docs: venv ## regenerate the generated pages of docs/ and build the site (site/)
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove caches (runs/ and .venv stay)
	rm -rf .ruff_cache .mypy_cache .pytest_cache .coverage .coverage.* build dist site
