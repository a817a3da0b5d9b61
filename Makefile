# `make demo` and `make test` do everything on a fresh machine: Python >= 3.10, a C++ compiler, no GPU needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc kernels python -type f ! -name '*.pyc') CMakeLists.txt pyproject.toml constraints.txt

.PHONY: demo test lint format bench clean

demo: $(VENV)/demo.stamp
	$(BIN)/spectrafuse demo --output demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(PYTEST_ARGUMENTS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy python/spectrafuse
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc -type f)

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find csrc -type f)

bench: $(VENV)/test.stamp
	$(BIN)/python -m pytest benchmarks/bench_*.py --benchmark-columns=median,iqr,rounds

clean:
	rm -rf $(VENV) build dist demo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/demo.stamp: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[demo]"
	touch $@

$(VENV)/test.stamp: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[test,lint]"
	touch $@
