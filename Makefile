# make demo: the main job on this machine. make test: the tests. Both create what they need. make browser: Debian's
# Chromium, in which the tests open the pages that the tool writes; without one they are skipped.
PYTHON ?= python3
BIN := .venv/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
STAMP := .venv/.installed

.PHONY: demo test test-slow lint browser clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), "Python 3.11 is needed: make PYTHON=python3.11"'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar off -c constraints.txt torch==2.13.0
	$(BIN)/pip install --progress-bar off -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/deid demo

test: $(STAMP)
	$(BIN)/deid models fetch
	$(BIN)/pytest -m 'not slow'

test-slow: $(STAMP)
	$(BIN)/deid models fetch
	$(BIN)/pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

browser:
	command -v chromium && command -v chromedriver || \
	  { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends \
	    chromium chromium-driver fonts-noto-cjk; }

clean:
	rm -rf .venv .demo build dist *.egg-info
