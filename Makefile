# Needs only python3 (3.11 or newer) with venv, pip and make. Everything lives in .venv; stamps make a second call start at once.
PYTHON ?= python3
PORT ?= 8501
VENV := .venv
BIN := $(VENV)/bin
# Compiled files are kept even where others are not: each process would compile all of them anew.
export PYTHONDONTWRITEBYTECODE :=

# What is not measured after so many minutes is left out, the least important first.
bench: MINUTES ?= 7
bench-gpu: MINUTES ?= 15
BENCH = MINUTES=$(MINUTES) $(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-columns=median,iqr,rounds \
	--timeout=1200
TEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: install app test test-all lint docs bench bench-gpu report screenshots notebooks clean

install: $(VENV)/.installed
app: $(VENV)/.app
	$(BIN)/python -m plugin.explorer --server.address 127.0.0.1 --server.port $(PORT)
# Two processes, each with the files of tests it takes; `.venv/bin/python -m pytest` runs them one after the other. Sorted
# by their number of tests, the long files of the browser would come last, and one process would wait for the other.
test: install
	$(TEST)
# The slow tests too, which `make test` leaves out since quicker ones cover most of them.
test-all: install
	$(TEST) -m ''
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini
	$(BIN)/lint-imports
# Into build/site. The tutorials are executed; a cell that fails, a broken link or a broken reference ends the build.
docs: install
	$(BIN)/mkdocs build --strict
# The tutorials alone, executed, into build/notebooks.
notebooks: install
	$(BIN)/python scripts/notebooks.py
bench: install
	$(BENCH) -k "not cuda"
bench-gpu: install
	$(BENCH) -k cuda
report: install
	$(BIN)/python benchmarks/report.py
screenshots: install
	$(BIN)/python scripts/screenshots.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What the explorer needs, and nothing else; the full installation serves as well.
$(VENV)/.app: pyproject.toml | $(BIN)/python
	test -e $(VENV)/.installed || $(BIN)/python -m pip install --quiet --editable ".[app]"
	touch $@

# Each file is compiled when it is first imported: most of them never are, and all take longer than the rest of this.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[dev]"
	touch $@ $(VENV)/.app

clean:
	rm -rf $(VENV) build *.egg-info
