# Two commands do everything: `make run` serves, `make test` proves. Each makes the environment it needs.
# PYTHON=... chooses the interpreter (3.11 or 3.12).
BIN := .venv/bin
RUNS := .venv/requirements.done
TESTS := .venv/requirements-dev.done

.PHONY: run test test-sqlite test-postgresql test-mongodb lint fuzz torture schema bench

run: $(RUNS)
	@exec $(BIN)/python manage.py serve --anonymous-on-loopback

# One suite on each engine, side by side: half of the time they wait, for servers and for time-outs to end.
test: lint
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target test-sqlite test-postgresql test-mongodb

# What follows = is the budget in seconds, beside the others.
test-sqlite: $(TESTS)
	@scripts/timed "tests on SQLite=720" $(BIN)/python -m pytest --engine=sqlite

test-postgresql: $(TESTS)
	@scripts/timed "tests on PostgreSQL=480" $(BIN)/python -m pytest --engine=postgresql

test-mongodb: $(TESTS)
	@scripts/timed "tests on MongoDB=600" $(BIN)/python -m pytest --engine=mongodb

lint: $(TESTS)
	@scripts/timed lint=60 scripts/lint

# Looks for requests that make the service fail; other ones with another SEED.
fuzz: ENGINE := sqlite
fuzz: REQUESTS := 100000
fuzz: SEED := 0
fuzz: $(TESTS)
	@$(BIN)/python -m pytest -x --engine=$(ENGINE) --requests=$(REQUESTS) --fuzz-seed=$(SEED) tests/test_fuzz.py

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
