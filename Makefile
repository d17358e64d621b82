# Drumbeat in four words: make demo, make test, make check, make docs.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DATA   := datasets/xray_demo
JOBS   := 3  # tests at a time: one more than cores, because many of them wait
PYTEST  = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadgroup --durations 15 --durations-min 1

.PHONY: demo install test test-fast test-fuzz test-gpu test-slurm test-python check docs wheel lock audit clean

demo: install                ## train the flagship on synthetic radiographs
	@$(BIN)/drumbeat demo-data xray $(DATA)
	@$(BIN)/python launch/run.py configs/resnet50_xray_demo.yaml

install: $(VENV)/installed   ## make .venv with the versions in requirements-dev.txt; LATEST=1: the newest allowed

$(VENV)/installed: pyproject.toml requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Drumbeat needs Python 3.11 or newer ($(PYTHON) is older); use: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "error: this Python cannot make virtual environments; on Debian or Ubuntu: sudo apt install python3-venv"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch is large: some minutes the first time) ..."
	@$(if $(LATEST),,$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.txt)
	@$(BIN)/python -m pip install --quiet $(if $(LATEST),,--no-deps --no-build-isolation) --editable '.[dev]'
	@touch $@

test: install                ## the whole test suite
	$(PYTEST)

test-fast: install           ## what starts no processes and trains nothing: the loop while you work
	$(PYTEST) -m "not slow and not slurm and not gpu and not matrix"

test-fuzz: install           ## damaged and random input for all that parses, for about twenty minutes
	DRUMBEAT_FUZZ=long $(PYTEST) -m fuzz tests/fuzz

test-gpu: install            ## all that needs a GPU, in some minutes; exit code 2 where there is none
	@$(BIN)/python -m tests.gpu

test-slurm: JOBS := 6
test-slurm: install          ## all that needs a SLURM cluster; brings one up by itself, as root
	$(PYTEST) -m "slurm or matrix" tests/slurm

test-python:                 ## fast tests and a run with Python 3.13, in a Debian trixie; as root, with debootstrap
	@tests/python.sh

check: install               ## ruff, mypy, the import rule
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house.py

docs: install                ## the documentation as a site, in build/docs
	@$(BIN)/python -m docs.pages
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "the documentation: build/docs/index.html, or: $(BIN)/mkdocs serve"

wheel: install               ## the wheel of the last commit in dist/; its bytes depend on nothing else
	@rm -rf build/wheel && mkdir -p build/wheel dist
	@umask 022 && git -c tar.umask=022 archive HEAD | tar --extract --no-same-permissions --directory build/wheel && \
	  SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m pip --quiet wheel --no-deps --no-build-isolation \
	  --wheel-dir dist build/wheel
	@sha256sum dist/*.whl

# The two targets below need a network: they install their tools, and ask an index and its list of vulnerabilities.
TOOLS := build/tools

$(TOOLS)/installed:
	@$(PYTHON) -m venv $(TOOLS) && $(TOOLS)/bin/python -m pip install --quiet uv pip-audit && touch $@

lock: $(TOOLS)/installed     ## requirements-dev.txt as pyproject.toml requires; UPGRADE=1: with the newest versions
	@$(TOOLS)/bin/uv pip compile pyproject.toml --extra dev --generate-hashes --universal --python-version 3.11 \
	  --no-annotate --no-header --quiet $(if $(UPGRADE),--upgrade) --output-file requirements-dev.txt

audit: $(TOOLS)/installed    ## known vulnerabilities of the versions in requirements-dev.txt
	@$(TOOLS)/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements-dev.txt

clean:                       ## remove .venv and caches; runs/ and datasets/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build src/*.egg-info
