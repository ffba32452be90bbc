# make quickstart   teacher to proven student in one go         make test       everything CI runs
# make test-all     the slow tests too                          make docs       links and snippets of README and docs/
# make lint | type  one check alone                             make format     rewrite the sources in our style
# make bench        the measurements, one after the other       make teachers    play the published teachers: docs/results
# make constraints  pin the newest releases                     make control     their smallest students: docs/results
# make bench-peers  other libraries at the same work           make blind       students that see less: docs/results
# make fuzz         20,000 damaged files and 100 kills
#
# Everything is installed into $(VENV), made from $(PYTHON): `make test VENV=.venv-3.13 PYTHON=python3.13`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that tests run in.
WORKERS ?= 2
LOG := build/step.log
WHEEL := build/wheel

comma := ,
# Every extra: tests meet what they test against, and skip nothing for want of a package.
DEV_EXTRAS := dev$(comma)report$(comma)sb3$(comma)box2d$(comma)mujoco$(comma)minari$(comma)onnx

# One stamp per set of extras, renewed when the pins or the dependencies change. The developers' set holds the user's.
USER_STAMP := $(VENV)/.installed-report
DEV_STAMP := $(VENV)/.installed-dev

.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all fuzz checks lint type docs wheel bench bench-peers teachers control blind format constraints clean

# $(call check,name,command): one line when it passes; all that it printed, and its name, when it fails.
define check
@mkdir -p $(dir $(LOG))
@if $(2) > $(LOG) 2>&1; then echo 'ok      $(1)'; else cat $(LOG); echo 'FAILED  $(1)' >&2; exit 1; fi
endef

# $(call pytest,name,arguments): shown live. Each test computes on one thread, so processes may share the work.
define pytest
@$(BIN)/pytest -q -n $(WORKERS) --dist worksteal --durations=5 --durations-min=2 $(2) || { echo 'FAILED  $(1)' >&2; exit 1; }
endef

# $(call install,extras): with pip's progress where somebody watches.
define install
@echo 'installing rldistill[$(1)] into $(VENV) (the first time: some minutes, torch is large)'
@quiet=-q; if [ -t 1 ]; then quiet=; fi; $(BIN)/python -m pip install $$quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]' || { echo 'FAILED  installing into $(VENV)' >&2; exit 1; }
@touch $@
endef

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'rldistill needs Python 3.11 or newer: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo '$(PYTHON) cannot make virtual environments. On Debian: apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(USER_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,report)

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,$(DEV_EXTRAS))

quickstart: $(if $(wildcard $(DEV_STAMP)),$(DEV_STAMP),$(USER_STAMP))
	@$(BIN)/rldistill quickstart

test: checks
	$(call pytest,tests,-m "not slow")

test-all: checks
	$(call pytest,tests with the slow ones,-o faulthandler_timeout=0)

# Under half an hour on two cores; cases that are not clean are kept in build/fuzz. Other cases: `make fuzz SEED=1`
SEED ?= 0
FUZZ := $(wildcard tests/fuzz/fuzz_*.py)

fuzz: $(DEV_STAMP)
	@for file in $(notdir $(basename $(FUZZ))); do $(BIN)/python -m tests.fuzz.$$file --seed $(SEED) || { echo "FAILED  $$file" >&2; failed=1; }; done; exit $${failed:-0}

checks: lint type wheel

lint: $(DEV_STAMP)
	$(call check,ruff format,$(BIN)/ruff format --check --diff)
	$(call check,ruff check,$(BIN)/ruff check)
	$(call check,lint-imports,$(BIN)/lint-imports)

# The wrapper would ask a server whether a newer pyright exists.
type: $(DEV_STAMP)
	$(call check,pyright,PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python)

docs: $(DEV_STAMP)
	$(call pytest,docs,tests/docs)

# Run by the python of a virtual environment that holds our wheel and nothing else; its dependencies are read, by a path
# file, from $(VENV). The editable install there stays out: path files are not followed a second time.
define WHEEL_CHECK
import importlib, pkgutil, sys
from importlib.metadata import version
from pathlib import Path
import rldistill
package = Path(rldistill.__file__).parent
assert package.is_relative_to(sys.prefix), f"imported from {package}, not from the wheel"
missing = [path for path in Path("src/rldistill").rglob("*.*") if path.suffix != ".pyc" and not (package / path.relative_to("src/rldistill")).exists()]
assert not missing, f"not in the wheel: {missing}"
for module in pkgutil.walk_packages(rldistill.__path__, "rldistill."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(version("rldistill"))
endef
export WHEEL_CHECK

wheel: $(DEV_STAMP)
	@rm -rf $(WHEEL)
	$(call check,sdist and wheel build,$(BIN)/python -m build --no-isolation --outdir $(WHEEL))
	@$(BIN)/python -m venv --without-pip $(WHEEL)/venv
	@$(BIN)/python -m pip --disable-pip-version-check --python $(WHEEL)/venv/bin/python install -q --no-deps --no-index $(WHEEL)/*.whl
	@purelib='import sysconfig; print(sysconfig.get_path("purelib"))'; $(BIN)/python -c "$$purelib" > "$$($(WHEEL)/venv/bin/python -c "$$purelib")/dependencies.pth"
	$(call check,the wheel imports,$(WHEEL)/venv/bin/python -I -c "$$WHEEL_CHECK")
	$(call check,the command of the wheel answers,$(WHEEL)/venv/bin/rldistill --help)

bench: $(DEV_STAMP)
	@$(BIN)/python bench/run.py

# Every teacher of a folder of zips beside its known return: hours. `make teachers TEACHERS=DIR WORKERS=8`
TEACHERS ?= ../shared/teachers/sb3

teachers: $(DEV_STAMP)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[mujoco]'
	@$(BIN)/python scripts/teachers_page.py $(TEACHERS) --num-workers $(WORKERS)

# Each other library is installed into an environment of its own, in build/peers: gigabytes, then about ten minutes. What
# is not on PyPI comes from a folder: `make bench-peers SB3_DISTILL=~/src/sb3_distill`
SB3_DISTILL ?=

bench-peers: $(DEV_STAMP)
	@$(BIN)/python bench/peers.py --teachers $(TEACHERS) $(if $(SB3_DISTILL),--sb3-distill $(SB3_DISTILL))

# The smallest student of every teacher of such a folder: minutes for each, and it goes on where it stopped.
WITHIN ?= 300

control: $(DEV_STAMP)
	@$(BIN)/python scripts/control_page.py $(TEACHERS) --within $(WITHIN)

# Students that see less than their teachers, the Go1 quadruped's among them: minutes for each, it goes on where it stopped.
blind: $(DEV_STAMP)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps playground==0.2.0
	@$(BIN)/python scripts/blind_page.py $(TEACHERS)/..

format: $(DEV_STAMP)
	@$(BIN)/ruff check --fix --quiet --exit-zero
	@$(BIN)/ruff format

# With the oldest Python that we support, so that every pin exists for it: make constraints PYTHON=python3.11
constraints:
	@rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	@echo 'installing the newest releases that pyproject.toml allows'
	@build/constraints/bin/pip install -q --disable-pip-version-check '.[$(DEV_EXTRAS)]'
	@sed -n '/^#/!q; p' constraints.txt > build/constraints.txt
	@build/constraints/bin/pip freeze --exclude rldistill | sed 's/+[A-Za-z0-9.]*$$//' | grep -viE '^(nvidia|cuda|triton)' >> build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -r build/constraints
	@echo 'constraints.txt is new: run make test-all, then commit it'

clean:
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
