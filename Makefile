# make demo and make test do all their own set-up; everything else builds on the same two environments.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: demo test check format bench restart-check caps-check replay-check pacing-check ramp-check pictures chaos lock help

help:                ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "adserve needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime.stamp: requirements/runtime.txt pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/runtime.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

demo: $(VENV)/runtime.stamp   ## ads in a sample Status feed on 127.0.0.1:8080 (ARGS="--once --json" runs without a person)
	@$(BIN)/adserve demo $(ARGS)

test: check browser redis  ## everything that must pass, make check included
	$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

check: $(VENV)/dev.stamp      ## format, lint, types, import rules, tidiness
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q tests/test_tidy.py

format: $(VENV)/dev.stamp     ## put the code into shape
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

bench: $(VENV)/dev.stamp      ## what slots and events cost beside their ceilings, into loadtest/results/latest.json
	$(BIN)/python -m loadtest $(ARGS)

restart-check: $(VENV)/dev.stamp  ## whether ads come soon after a start with 5,000,000 events behind it (ARGS="--events 100000")
	$(BIN)/python -m loadtest.restart $(ARGS)

caps-check: $(VENV)/dev.stamp     ## millions of decisions of clients at once, judged by the stored events
	ADSERVE_CAPS_DECISIONS=1000000 ADSERVE_SHARED_CAPS_DECISIONS=500000 $(BIN)/pytest -q -n 4 tests/oracle $(ARGS)

replay-check: $(VENV)/dev.stamp   ## whole real logs through the service (they lie in ADSERVE_SHARED_DATA)
	ADSERVE_WHOLE_LOGS=1 $(BIN)/pytest tests/journeys/test_replay_of_real_logs.py $(ARGS)

pacing-check: $(VENV)/dev.stamp   ## simulated days of pacing with short steps and five seeds (docs/pacing.md)
	ADSERVE_WHOLE_DAYS=1 $(BIN)/pytest tests/limits/test_pacing_days.py $(ARGS)

ramp-check: $(VENV)/dev.stamp redis   ## whole ramps by the hundred and the kill switch under load, into loadtest/results/ramp.json (ten minutes)
	$(BIN)/python -m loadtest.ramps $(ARGS)
	ADSERVE_KILL_ROUNDS=20 $(BIN)/pytest -q tests/chaos/test_kill_switch.py

pictures: $(VENV)/dev.stamp browser   ## docs/images of the demo and the console anew (look at them before you keep them)
	ADSERVE_PICTURES=1 $(BIN)/pytest -q tests/browser/test_pictures.py

chaos: $(VENV)/dev.stamp redis    ## kills, power cuts, lost answers and more in full, into loadtest/results/chaos.json (SHARE=0.1 for a tenth, MINUTES=30 at the most for each flood)
	ADSERVE_CHAOS=$(or $(SHARE),1) ADSERVE_CHAOS_MINUTES=$(MINUTES) $(BIN)/pytest tests/chaos tests/seeded tests/metering/test_tickets.py tests/store/test_secrets.py $(ARGS)

# The browser tests need Debian's Chromium; where it cannot be installed they are skipped, and say so.
.PHONY: browser
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	  chromium fonts-noto-core fonts-noto-color-emoji >/dev/null; } || echo "chromium is not installed: browser tests will be skipped"

# The tests of shared counters need redis-server (or valkey-server); where it cannot be installed they are skipped, and say so.
.PHONY: redis
redis:
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || { [ "$$(id -u)" = 0 ] && \
	  command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-server >/dev/null; } || \
	  echo "redis-server is not installed: tests of shared counters will be skipped"

lock:                ## pin every dependency again, with hashes
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --python-version 3.11 \
	  pyproject.toml --extra build -o requirements/runtime.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --python-version 3.11 \
	  pyproject.toml --extra dev -c requirements/runtime.txt -o requirements/dev.txt
