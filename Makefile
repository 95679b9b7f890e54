# Every target sets up what it needs in .venv; a stamp file there makes the second call start at once.
# A path with spaces is fine: everything here is relative.

PORT ?= 8000
PYTHON ?=
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
SITE_READY := $(VENV)/site.ready
READY := $(VENV)/ready
SITE := _build/html/ready
SITE_SOURCES := _config.yml data/claims.yml $(wildcard book/*.md book/*.yml book/_ext/*.py book/_ext/house/*.py book/_static/*.* book/_static/fonts/* \
	book/_static/vendor/* minimodels/ledger.py minimodels/drawings/* minimodels/explorables/* chapters/*.ipynb)
NBVAL := --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout=600 --nbval-current-env

.DEFAULT_GOAL := help
.PHONY: help book site test train lab bench clean

help:
	@echo "make book     build the site and serve it on http://localhost:$(PORT) (PORT=8001 for another port); needs no torch"
	@echo "make site     only build it, into _build/html"
	@echo "make train    train the cpu preset on Python's own standard library, into runs/cpu; goes on where it was stopped"
	@echo "make lab      open the chapters in JupyterLab"
	@echo "make test     run every test: package, notebooks, site"
	@echo "make bench    measure speed against Hugging Face Transformers"
	@echo "make clean    remove .venv and _build; runs/ stays"

book: $(SITE)
	@$(PY) book/_tools/site.py serve --port $(PORT)

site: $(SITE)
	@echo "make book serves it."

$(SITE): $(SITE_READY) $(SITE_SOURCES)
	@$(PY) book/_tools/site.py build
	@touch $@

test: $(READY)
	$(PY) book/_tools/execute.py --check
	$(PY) -m pytest -q -n 2 --dist loadgroup
	OMP_NUM_THREADS=1 $(PY) -m pytest -q $(NBVAL) -n 2 --dist loadfile chapters/*.ipynb

train: $(READY)
	@if [ -e runs/cpu/config.json ]; then $(PY) -m minimodels train --out runs/cpu --resume; \
	else $(PY) -m minimodels train --preset cpu --data stdlib --out runs/cpu; fi

lab: $(READY)
	@$(PY) -m jupyter lab --notebook-dir=chapters

bench: $(READY)
	@$(PY) tests/bench.py

clean:
	rm -rf $(VENV) _build build minimodels.egg-info .pytest_cache .hypothesis

# The smaller of the two set-ups: what the site needs.
$(SITE_READY): requirements-site.txt constraints.txt | $(PY)
	@echo "Installing the site's tools into $(VENV) (once, about half a minute) ..."
	@$(PIP) --requirement requirements-site.txt
	@touch $@

$(READY): requirements.txt constraints.txt pyproject.toml | $(PY)
	@echo "Installing the book's tools and torch into $(VENV) (once, some minutes) ..."
	@$(PIP) --requirement requirements.txt --editable .
	@touch $@ $(SITE_READY)

$(PY):
	@found=""; \
	for name in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python); do \
	  if "$$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then found="$$name"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "This book needs Python 3.11, 3.12 or 3.13 with venv$(if $(PYTHON),; $(PYTHON) is none of them)." >&2; \
	  echo "Install one (Debian, Ubuntu: apt install python3-venv; macOS: brew install python@3.13), or name one: make ... PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	"$$found" -m venv $(VENV)
