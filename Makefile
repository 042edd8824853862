# Each target does all of its set-up in a virtual environment of its own, .venv; Python 3.11 or newer is enough.
#
#   make flowers      train an AlexNet on drawn flowers; needs no download of pictures
#   make test         the tests
#   make test-deep    1,000 drawn geometries for each of convolution, pooling and normalisation; SEED=N repeats
#   make bench-test   the comparisons with PyTorch (installs PyTorch)
#   make lint         ruff and mypy
#   make clean        remove what these made, but no results: runs/ stays
#
#   make flowers PYTHON=python3.12                    a particular Python for the environment
#   make flowers FLOWERS_OUT=runs/mine FLOWERS_FLAGS="--epochs 20 --seed 1"
#   make test PYTEST_FLAGS="-k conv -x"

SHELL := /bin/sh
PYTHON ?=
FLOWERS_OUT ?=
# The drawn flowers have fewer pictures than the photographs, and their flowers stand nearer the edge: smaller
# batches give more steps, larger crops lose fewer flowers, and a falling rate may begin higher. Later options
# win, so that FLOWERS_FLAGS can differ.
FLOWERS_RECIPE := --data drawn --batch-size 16 --crop-scale 0.4 --lr 3e-4 --schedule cosine --epochs 11
FLOWERS_FLAGS ?=
PYTEST_FLAGS ?=
# Of the drawn examples: others every day, unless one is given.
SEED ?= $(shell date +%Y%m%d)

VENV := .venv
BIN := $(VENV)/bin
# An install that was interrupted can look complete to pip. This file says that one is under way.
UNFINISHED := $(VENV)/unfinished
READY := $(VENV)/ready $(VENV)/ready-test $(VENV)/ready-bench $(VENV)/ready-dev

.PHONY: help flowers test test-deep bench-test lint clean
.NOTPARALLEL:

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

flowers: $(VENV)/ready
	@out='$(FLOWERS_OUT)'; number=2; \
	if [ -z "$$out" ]; then \
	    out=runs/flowers; \
	    while [ -e "$$out" ]; do out=runs/flowers-$$number; number=$$((number + 1)); done; \
	fi; \
	$(BIN)/python examples/train_flowers.py $(FLOWERS_RECIPE) --out "$$out" $(FLOWERS_FLAGS) && \
	echo "The results are in $$out: history.png, confusion.png, mistakes.png, best.safetensors."

test: $(VENV)/ready-test
	$(BIN)/python -m pytest tests -n auto --maxprocesses 4 $(PYTEST_FLAGS)

test-deep: $(VENV)/ready-test
	@echo "The same examples again: make test-deep SEED=$(SEED)"
	$(BIN)/python -m pytest tests/deep --hypothesis-profile=deep --hypothesis-seed=$(SEED) --durations=12 \
	    $(PYTEST_FLAGS)

bench-test: $(VENV)/ready-bench
	$(BIN)/python -m pytest tests/bench $(PYTEST_FLAGS)

lint: $(VENV)/ready-dev
	@status=0; $(BIN)/python -m ruff check . || status=1; $(BIN)/python -m mypy || status=1; exit $$status

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find minialex tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/ready: EXTRA :=
$(VENV)/ready-test: EXTRA := [test]
$(VENV)/ready-bench: EXTRA := [bench]
$(VENV)/ready-dev: EXTRA := [dev]

# An environment is good only in the folder it was made for, and while the Python it was made with is there.
ifneq ($(shell cat $(VENV)/place 2>/dev/null && $(BIN)/python -c '' 2>&1),$(CURDIR))
.PHONY: $(READY)
endif

$(READY): pyproject.toml
	@set -e; \
	if [ -e $(UNFINISHED) ] || [ "$$(cat $(VENV)/place 2>/dev/null)" != '$(CURDIR)' ] || ! $(BIN)/python -c ''; then \
	    $(find_python); \
	    echo "Making $(VENV) with $$($$python --version) ($$python)"; \
	    $$python -m venv --clear $(VENV) || { \
	        echo "Could not make $(VENV). On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	    echo '$(CURDIR)' > $(VENV)/place; \
	fi; \
	echo "Installing minialex$(EXTRA) and what it needs into $(VENV) (once; a minute or two)"; \
	touch $(UNFINISHED); \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.$(EXTRA)'; \
	rm $(UNFINISHED); \
	touch $@

# Sets the shell variable `python`. A name on the PATH is not enough: version managers leave names that do not run.
define find_python
python=; names='$(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python)'; \
for name in $$names; do \
    if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python=$$name; break; fi; \
done; \
if [ -z "$$python" ]; then \
    echo "minialex needs Python 3.11 or newer, and tried in vain: $$names" >&2; \
    echo "Install one, or name it: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3" >&2; \
    exit 1; \
fi
endef
