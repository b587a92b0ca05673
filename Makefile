# Every target sets up .venv from requirements.lock when it is missing or older than the lock.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast lint bench docs docs-serve release lock clean

demo: .venv/ready
	$(BIN)/python -m autograder.demo

# File by file in their order: near the end stand those that use both cores by themselves.
test: .venv/ready
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Without the tests that are marked `slow`; for daily work.
test-fast: .venv/ready
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/autograder release --check

bench: .venv/ready
	$(BIN)/python -m benchmarks

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The search works only with a server, because browsers do not let a page on disk read its index.
docs-serve: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

release: .venv/ready
	$(BIN)/autograder release

.venv/ready: requirements.lock pyproject.toml autograder/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e autograder
	touch $@

# The CUDA packages exist for Linux only; torch runs without them elsewhere.
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --upgrade torch==2.14.1 torchvision==0.29.2 editables hatchling
	build/lock/bin/python -m pip install --quiet --no-build-isolation -e ".[notebook,autograder,cluster,dev]"
	build/lock/bin/python -m pip freeze --exclude-editable \
	  | sed -E 's/^((nvidia|cuda|triton)[^ ]*)$$/\1 ; sys_platform == "linux"/' > requirements.lock

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
