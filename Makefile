# Three commands do everything: `make run` serves, `make quick` is for every change of a line, `make test` is for what
# lands. Each creates the environment that it needs. PYTHON=... chooses the interpreter (3.11 or 3.12).
BIN := .venv/bin
RUNS := .venv/requirements.done
TESTS := .venv/requirements-dev.done
DOCS := .venv-docs/requirements-docs.done
# Processes that share the tests of a run; each has databases of its own. Tests that start processes wait a good part of
# their time: three of them use two cores fully.
WORKERS := 3
RANDOM_TESTS := tests/test_paging.py tests/test_bulk.py tests/test_mongo_queries.py tests/test_fuzz.py
PYTEST := $(BIN)/python -m pytest --dist=worksteal

# Where bytecode is not kept, each of the hundreds of processes that a run starts compiles everything anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run quick quick-lint quick-tests test test-sqlite test-postgresql test-mongodb lint docs fuzz torture schema bench

run: $(RUNS)
	@exec $(BIN)/python manage.py serve --anonymous-on-loopback

# The tests that start no process, on SQLite, and lint of the files that changed since `main`; side by side.
quick: $(TESTS)
	@scripts/timed "make quick=60" $(MAKE) --no-print-directory --jobs=2 --output-sync=target quick-lint quick-tests

quick-lint:
	@scripts/timed "lint of what changed=30" scripts/lint --changed

quick-tests:
	@scripts/timed "tests without processes=50" $(PYTEST) --numprocesses=2 --engine=sqlite -m "not process"

# The whole suite, on one engine after the other.
test: lint test-sqlite test-postgresql test-mongodb

# What follows = is the budget in seconds on 2 cores.
test-sqlite: $(TESTS)
	@scripts/timed "tests on SQLite=220" $(PYTEST) --numprocesses=$(WORKERS) --engine=sqlite

test-postgresql: $(TESTS)
	@scripts/timed "tests on PostgreSQL=130" $(PYTEST) --numprocesses=$(WORKERS) --engine=postgresql

test-mongodb: $(TESTS)
	@scripts/timed "tests on MongoDB=190" $(PYTEST) --numprocesses=$(WORKERS) --engine=mongodb

lint: $(TESTS)
	@scripts/timed lint=60 scripts/lint

# Builds the documentation site into build/site. A broken link fails the build.
docs: $(DOCS)
	@scripts/timed docs=30 .venv-docs/bin/python scripts/docs

# The long form of the tests that try random values, then requests that nobody would think of; others with another SEED.
fuzz: ENGINE := sqlite
fuzz: REQUESTS := 100000
fuzz: SEED := 0
fuzz: $(TESTS)
	@$(BIN)/python -m pytest -x --engine=$(ENGINE) --requests=$(REQUESTS) --fuzz-seed=$(SEED) $(RANDOM_TESTS)

# Writes docs/openapi.yaml anew, after a change to the API.
schema: $(RUNS)
	@$(BIN)/python manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

# How fast it is beside a yardstick (docs/performance.md): all of it takes an hour; ARGUMENTS="http --engine sqlite"
# names parts and engines, ARGUMENTS=--quick shows that it runs.
bench: $(TESTS)
	@$(BIN)/python -m bench $(ARGUMENTS)

# Kills the service, and the database, under writers: some 20 minutes an engine (docs/durability.md).
torture: $(TESTS)
	@$(BIN)/python -m tests.torture --engine=$(or $(ENGINE),sqlite) --kills=$(or $(KILLS),200) $(ARGUMENTS)

$(RUNS): requirements.txt
	@scripts/install requirements.txt
	@touch $@

$(TESTS): requirements-dev.txt $(RUNS)
	@scripts/install requirements-dev.txt
	@touch $@

$(DOCS): requirements-docs.txt
	@scripts/install requirements-docs.txt .venv-docs
	@touch $@
