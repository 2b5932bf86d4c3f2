# book: the executed site in _build/html.  test: unit tests and doctests, on all cores.  lint: format, style, wording.
# site-test: the built site in a headless Chromium, on all cores.  lock: requirements.txt from pyproject.toml.
# zip: that site as one file, _build/zonb-book.zip, the same for the same site.
# again: all chapters executed again, in a random order, as they ran and on other threads, against what is stored.
# faults: chapters with faults planted in the package; which claim stops each (an hour or two; it goes on where it stopped).
# bench: the same work done by zonb and by what a reader would use instead; a table, and _build/benchmarks.
# Each target sets up .venv by itself; PYTHON names the interpreter to make it from (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PARALLEL := --numprocesses logical --dist worksteal

.PHONY: again bench faults book test lint format site-test zip lock clean

book: $(READY)
	$(BIN)/zonb book

test: $(READY)
	$(BIN)/python -m pytest $(PARALLEL)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/format_notebooks.py --check
	$(BIN)/python tools/lint_prose.py
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python tools/format_notebooks.py

site-test: $(READY)
	$(BIN)/python -m pytest $(PARALLEL) tests/site

zip: book
	$(BIN)/python tools/zip_site.py _build/html _build/zonb-book.zip
	@ls -l _build/zonb-book.zip

again: $(READY)
	$(BIN)/python tools/check_again.py

faults: $(READY)
	$(BIN)/python tools/plant_faults.py

bench: $(READY) _build/jax/.ready
	$(BIN)/python benchmarks/entk.py --jax _build/jax/bin/python
	$(BIN)/python benchmarks/nzk.py
	$(BIN)/python benchmarks/zo_lenet.py
	$(BIN)/python benchmarks/zo_step.py --batch 4
	$(BIN)/python benchmarks/zo_step.py --batch 8
	$(BIN)/python benchmarks/scaling.py

_build/jax/.ready: benchmarks/requirements-jax.txt
	$(PYTHON) -m venv _build/jax
	_build/jax/bin/python -m pip install --quiet --requirement benchmarks/requirements-jax.txt
	touch $@

lock: $(READY)
	$(BIN)/uv pip compile --universal --python-version 3.11 --all-extras --no-annotate --quiet pyproject.toml -o requirements.txt

clean:
	rm -rf _build

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'zonb needs Python 3.11 or newer: make PYTHON=python3.12 ...'; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@
