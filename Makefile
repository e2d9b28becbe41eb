# Everything a person does with a checkout. `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
LS_ENV := .venv-label-studio
BIN := .venv/bin

.PHONY: help install run demo test test-stack check check-imports check-types check-unit format doctor env-example bench bench-speed shots clean \
  secrets urls backup restore upgrade

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed $(LS_ENV)/.installed ## Install everything from the lock files (run and test do it by themselves).

run: install ## Start Closedloop on this machine and print where it answers.
	@exec $(BIN)/closedloop run

demo: install ## Turn the loop in front of you, offline, in five minutes.
	@exec $(BIN)/python -m demo

test: install ## Run every test; nothing else needs to be prepared.
	@exec $(BIN)/pytest

test-stack: install ## Build the images, start a whole stack in Docker, kill its containers, and count.
	@exec $(BIN)/python -m tests.stack

check: install ## ruff, pyright, import-linter and the unit tests, in two minutes.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j3 --output-sync=target check-imports check-types check-unit

check-imports:
	$(BIN)/lint-imports

check-types:
	$(BIN)/pyright

check-unit:
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/unit -q -p no:schemathesis -p no:faker # pyright has the other core; two plug-ins that are slow to load

format: install ## Put the code into shape.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

doctor: ## Look at every part of the running installation: of the stack in Docker where one runs, else of `make run`.
	@if [ -e .env ] && docker compose version >/dev/null 2>&1 && ! docker compose config -q; then \
	  echo "✗ .env or docker-compose.yaml cannot be read: the line above says where. Mend it and try again." >&2; exit 1; fi
	@if [ -n "$$(docker compose ps -q 2>/dev/null)" ]; then exec docker compose run --rm -T --no-deps cli doctor; \
	elif [ -n "$$(docker compose ps -aq 2>/dev/null)" ]; then \
	  docker compose logs --no-log-prefix --tail 5 secrets buckets setup; \
	  echo "✗ The stack is made and does not run. Start it with: docker compose up -d --wait" >&2; exit 1; \
	elif [ -x $(BIN)/closedloop ]; then exec $(BIN)/closedloop doctor; \
	else echo "✗ Nothing runs here. Start it with make run, or on a server with: docker compose up -d --wait" >&2; exit 1; fi

secrets: ## Fill every empty secret of .env with a random value (docker compose).
	@$(PYTHON) -m scripts.make_secrets

urls: ## Print where the stack in Docker answers, and with which login.
	@$(PYTHON) -m scripts.urls

backup: ## Copy all that the stack in Docker keeps into BACKUP=folder (backups/<now> by default).
	@scripts/backup.sh "$(BACKUP)"

restore: ## Bring BACKUP=folder back into an empty stack.
	@scripts/restore.sh "$(BACKUP)"

upgrade: ## Build the images of this checkout, migrate, and start them.
	@scripts/upgrade.sh

env-example: install ## Write .env.example anew from the settings.
	$(BIN)/python -c "from closedloop.settings import env_example; print(env_example(), end='')" >.env.example

bench: install ## Measure every figure of README and docs, an hour and a half. FOLDER=path (one sub-folder per class): accuracy, and whether backends agree; DATA=path: quality on real answers.
	@$(BIN)/python -m bench.gate --into docs/gate.md
	@$(BIN)/python -m bench.heads
	@$(BIN)/python -m bench.pages
	@$(MAKE) --no-print-directory bench-speed
	@if [ -n "$(FOLDER)" ]; then $(BIN)/python -m bench.accuracy "$(FOLDER)"; $(BIN)/python -m bench.agreement "$(FOLDER)"; fi
	@if [ -n "$(DATA)" ]; then $(BIN)/python -m bench.quality "$(DATA)"; fi

bench-speed: install ## Measure how fast pictures are answered, beside peers and the machine's limit, for docs/speed.md; an hour.
	@$(BIN)/python -m bench.serving
	@$(BIN)/python -m bench.serving --backend openvino-int8
	@$(BIN)/python -m bench.serving --encoder embedded
	@$(BIN)/python -m bench.serving --megapixels 12 --rounds 3
	@$(BIN)/python -m bench.serving.start
	@$(BIN)/python -m bench.serving.front
	@$(BIN)/python -m bench.serving.reload
	@$(BIN)/python -m bench.serving.idle
	@$(BIN)/python -m bench.serving.memory
	@$(BIN)/python -m bench.backfill --rounds 3
	@$(BIN)/python -m bench.similar
	@$(BIN)/python -m bench.serving.profile
	@$(BIN)/python -m bench.serving.report --into docs/speed.md

shots: install ## Make the pictures of README and docs again, from a demo of its own (Chromium wanted).
	@exec $(BIN)/python -m demo.shots

clean: ## Remove what was installed; var/ (your data) stays.
	rm -rf .venv $(LS_ENV) .uv

.uv/bin/uv:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: install it and try again." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Install a newer one, or name it: make PYTHON=python3.12 run" >&2; exit 1; }
	@echo "Fetching uv …"
	@$(PYTHON) scripts/get_uv.py .uv

.venv/.installed: pyproject.toml uv.lock | $(if $(filter .uv/%,$(UV)),$(UV))
	@echo "Installing Closedloop (about 6 GB with PyTorch, once) …"
	@$(UV) sync --locked --extra local --compile-bytecode $(if $(filter-out python3,$(PYTHON)),--python $(PYTHON))
	@touch $@

$(LS_ENV)/.installed: label_studio/requirements.lock | .venv/.installed
	@echo "Installing Label Studio into an environment of its own (about 1 GB, once) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(LS_ENV)
	@$(UV) pip install --python $(LS_ENV)/bin/python --compile-bytecode --require-hashes -r label_studio/requirements.lock
	@touch $@
