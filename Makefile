# Two commands matter: `make demo` shows the product, `make test` proves it. Both install what they need.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help install lint test test-all sim prove-cuts prove-hostile prove-nodes bench bench-ingest bench-deliver bench-decode bench-catchup bench-categorize bench-analytics bench-leaderboard run demo lock clean

help: ## Show what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

install: .venv/installed node_modules/installed ## Install everything from the lock files

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

node_modules/installed: package.json package-lock.json
	npm ci --silent --ignore-scripts
	@touch $@

lint: .venv/installed ## Format, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

test: install lint ## Lint, types, layers and all tests on real engines
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test-all: install lint ## The same with the slow tests
	$(BIN)/pytest -n 2 --dist worksteal

SEEDS ?= 200
sim: install ## The seeded simulation of the whole pipeline; SEEDS=2000 runs many
	$(BIN)/python -m tests.sim --seeds $(SEEDS)

prove-cuts: install ## Official clients cut 200 times over two servers: nothing lost, nothing doubled
	$(BIN)/python -m tests.load.cuts

prove-hostile: install ## 100,000 hostile packets beside honest clients
	$(BIN)/python -m tests.load.hostile

prove-nodes: install ## Three nodes that fail, lag and lie, each way 100 times: no block skipped, no event doubled
	$(BIN)/python -m tests.load.nodes

bench: bench-ingest bench-deliver bench-decode ## Figures of the hot paths, with machine and commit

bench-ingest: install ## Events per second through decode, commit and publish
	$(BIN)/python -m tests.load.ingest

bench-deliver: install ## Events per second from Redis to sockets, beside stock python-socketio
	$(BIN)/python -m tests.load.deliver

bench-decode: install ## Decoded logs per second, beside web3
	$(BIN)/python -m tests.load.decode

bench-catchup: install ## Blocks per second while catching up
	$(BIN)/python -m tests.load.catchup

bench-categorize: install ## Transactions categorized without a key: speed, memory, held-out accuracy
	$(BIN)/python -m tests.load.categorize

bench-analytics: install ## Analytics and history over HTTP on five million events of ten thousand users; ten minutes
	$(BIN)/python -m tests.load.analytics

bench-leaderboard: install ## A leaderboard of 100,000: from a block's commit to the sockets of those concerned
	$(BIN)/python -m tests.load.leaderboard

run: install ## Embedded engines, migrations, the devnet and every process of the Procfile
	$(BIN)/expendi run

demo: install ## One user's live feed on a chain of its own; CHECK=1 runs it headless and checks every invariant
	$(BIN)/expendi demo $(if $(CHECK),--check,)

lock: .venv/installed ## Write requirements.lock anew (needs uv)
	printf 'redis>=8.1\n' > .venv/override.txt
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra embedded --extra dev --override .venv/override.txt \
		--no-header --no-annotate --no-emit-package pandas --no-emit-package pyarrow -o requirements.lock

clean: ## Remove the environment, the embedded engines' files and caches
	rm -rf .venv node_modules .expendi .mypy_cache .ruff_cache .pytest_cache .hypothesis
