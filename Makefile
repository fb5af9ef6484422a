# Needs git, make and Python 3.11 or newer with venv; everything else is installed into .venv beside the code.
#   make run    sets up, builds the two demo studies if they are missing, serves the app on this computer
#   make test   sets up what the tests need and runs them
# Variables: PYTHON (interpreter for .venv), PORT, STUDIES (folder of studies), PYTEST_ARGS (more arguments for pytest),
#   MODELS (models of your own that studies may run: package.module:factory, comma separated).

PORT ?= 8501
STUDIES ?= studies
MODELS ?= $(INFLUENCE_MODELS)
PYTEST_ARGS ?=
# Two processes, a file each at a time: the tests run on one thread per process.
PARALLEL := -n 2 --dist loadfile

VENV := .venv
PY := $(VENV)/bin/python
RUN_STAMP := $(VENV)/stamp-run
DEV_STAMP := $(VENV)/stamp-dev
RIVALS := .venv-rivals
RIVALS_STAMP := $(RIVALS)/stamp
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --no-input

export INFLUENCE_STUDIES = $(abspath $(STUDIES))
export INFLUENCE_MODELS := $(MODELS)
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup dev browser run demo test test-slow test-rivals check bench screenshots clean

help:
	@echo 'make setup        a .venv beside the code with what the app needs'
	@echo 'make run          build the demo studies if missing and serve the app on http://127.0.0.1:$(PORT)'
	@echo 'make demo         the same, read-only: visitors share a scratch copy that can be reset'
	@echo 'make test         install what the tests need and run them'
	@echo 'make test-slow    the crash series, load and big data'
	@echo 'make test-rivals  beside other libraries, in .venv-rivals of their own'
	@echo 'make check        format, lint, types, layers, tests'
	@echo 'make bench        speed beside a floor measured in the same run'
	@echo 'make screenshots  pictures of each screen for the README'
	@echo 'make clean        remove .venv and caches; studies are kept'

# ---- setup -----------------------------------------------------------------------------------------------------

setup: $(RUN_STAMP)

dev: $(DEV_STAMP)

$(RUN_STAMP): requirements.txt
	@command -v git >/dev/null 2>&1 || echo 'note: git is not on PATH; the app runs without it, fetching updates needs it (apt-get install git).'
	@set -e; \
	if [ -x $(PY) ] && $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	   && $(PY) -m pip --version >/dev/null 2>&1; then \
		echo 'setup: using the existing $(VENV)'; \
	else \
		chosen=; \
		for candidate in $(if $(PYTHON),"$(PYTHON)",python3.11 python3); do \
			if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
				chosen=$$candidate; break; \
			fi; \
		done; \
		if [ -z "$$chosen" ]; then \
			echo 'error: $(if $(PYTHON),PYTHON=$(PYTHON) does not run or,no python3.11 on PATH and python3 is missing or) is older than 3.11; install Python 3.11 (Debian: apt-get install python3.11 python3.11-venv) or name one: make PYTHON=/path/to/python3.11' >&2; \
			exit 1; \
		fi; \
		version=$$("$$chosen" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		if ! "$$chosen" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
			echo "error: $$chosen cannot make virtual environments, its venv module is not installed; install it (Debian: apt-get install python$$version-venv) and run make again" >&2; \
			exit 1; \
		fi; \
		echo "setup: making $(VENV) with $$chosen (Python $$version)"; \
		"$$chosen" -m venv --clear $(VENV) || { rm -rf $(VENV); \
			echo "error: $$chosen -m venv $(VENV) failed, the reason is printed above" >&2; exit 1; }; \
	fi
	@echo 'setup: installing requirements.txt (PyTorch is large: several minutes on a first run)'
	@$(PIP) -r requirements.txt
	@touch $@
	@echo 'setup: done'

$(DEV_STAMP): requirements-dev.txt $(RUN_STAMP)
	@echo 'setup: installing requirements-dev.txt (tests, checks, benchmarks)'
	@$(PIP) -r requirements-dev.txt
	@touch $@

# In CI a missing browser ends the run here; elsewhere it is said and the browser tests are skipped.
browser: $(DEV_STAMP)
	@bash .ci/browser.sh

# ---- the app ---------------------------------------------------------------------------------------------------

# study.toml is what marks a study as finished, so a demo is built once and never again.
$(STUDIES)/%/study.toml: | $(RUN_STAMP)
	@echo 'demo: building the $* study'
	@$(PY) -m influence_core demo $* --out "$(STUDIES)/$*"

run: $(RUN_STAMP) $(STUDIES)/digits/study.toml $(STUDIES)/breast-cancer/study.toml
	@echo 'run: serving on http://127.0.0.1:$(PORT) (stop with Ctrl-C)'
	@exec $(PY) -m streamlit run app.py --server.address 127.0.0.1 --server.port $(PORT) --server.headless true

# Nothing is written to STUDIES; docs/sharing.md says how to let others in.
demo: export INFLUENCE_DEMO = 1
demo: run

# ---- tests and checks ------------------------------------------------------------------------------------------

test: $(DEV_STAMP) browser
	@echo 'test: running the tests'
	@$(PY) -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-slow: $(DEV_STAMP) browser
	@echo 'test: running the slow tests'
	@$(PY) -m pytest -m slow $(PYTEST_ARGS)

# An environment of its own: other libraries never come near the app's.
$(RIVALS_STAMP): requirements-rivals.txt requirements.txt $(RUN_STAMP)
	@echo 'rivals: making $(RIVALS) with other libraries (several minutes)'
	@$(PY) -m venv --clear $(RIVALS)
	@$(RIVALS)/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r requirements-rivals.txt
	@touch $@

test-rivals: $(RIVALS_STAMP)
	@echo 'test: beside other libraries'
	@$(RIVALS)/bin/python -m pytest -m rivals $(PYTEST_ARGS) tests/rivals

check: $(DEV_STAMP) browser
	@echo 'check: format' && $(PY) -m ruff format --check .
	@echo 'check: lint' && $(PY) -m ruff check .
	@echo 'check: types' && $(PY) -m pyright influence_core
	@echo 'check: layers' && $(VENV)/bin/lint-imports
	@echo 'check: tests' && $(PY) -m pytest $(PARALLEL) $(PYTEST_ARGS)

bench: $(DEV_STAMP)
	@$(PY) -m benchmarks

screenshots: $(DEV_STAMP) browser
	@$(PY) -m tests.e2e.screenshots

# Studies hold people's reviews and trained models: no target removes them.
clean:
	@rm -rf $(VENV) $(RIVALS) .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -type d -not -path './$(STUDIES)/*' -prune -exec rm -rf {} +
	@echo 'clean: removed $(VENV), $(RIVALS) and caches; $(STUDIES)/ is untouched'
