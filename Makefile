# Each target makes what it needs in .venv; only python3 (3.11 or newer), make and, for speed, a C compiler are assumed.
# Options of the command behind a target go through ARGS: make sim ARGS="--seeds 1..50"

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?=
# What touches nothing outside its process is tested by as many processes as there are processors.
TESTS  := $(BIN)/python -m pytest -n auto --dist worksteal
# Real processes spend their tests waiting, so two files of them share the machine; no more, since they also watch the time.
FIELD  := $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-full bench-redis sim sim-long model model-deep mutants virtual fuzz powercut redis-diff docs clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml setup.py $(wildcard ext/*.pyx ext/*.pxd ext/*.pxi)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench,dev]'
	@$(BIN)/epaxos --version
	@$(BIN)/epaxos --version | grep -q compiled || echo "no compiled extensions (is there a C compiler?): going on in pure Python, slower and otherwise the same" >&2
	@touch $@

demo: $(STAMP)  ## replicas on emulated wide-area links, and a table (PROTOCOL=epaxos MATRIX=gryff5)
	@$(BIN)/epaxos demo $(if $(PROTOCOL),--protocol $(PROTOCOL)) $(if $(MATRIX),--matrix $(MATRIX)) $(ARGS)

test: $(STAMP)  ## every test; the fast ones once more in pure Python; seeds of the simulator
	EPAXOS_PURE=1 $(TESTS) -q tests/unit -m "not slow" $(ARGS)
	$(BIN)/epaxos sim --seeds 1..1000 --jobs 2
	$(TESTS) -m "not field" $(ARGS)
	$(FIELD) -m "field and not alone" $(ARGS)
	$(BIN)/python -m pytest -m alone $(ARGS)

lint: $(STAMP)  ## ruff, mypy and cython-lint: no finding is let through
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint ext

bench: $(STAMP)  ## EPaxos beside Raft, when a site dies, and at saturation: tables, and bench.html (six minutes)
	@$(BIN)/python -m bench compare --seconds 12 --out bench.json $(ARGS)
	@$(BIN)/python -m bench failover --out bench-failover.json
	@$(BIN)/python -m bench throughput --out bench-throughput.json
	@$(BIN)/python -m bench report bench.json bench-failover.json bench-throughput.json --out bench.html

bench-full: $(STAMP)  ## the same under every leader at six conflict rates: about an hour
	@$(BIN)/python -m bench compare --out bench-full.json --leaders all --conflicts 0,2,10,25,50,100 --seconds 60 $(ARGS)
	@$(BIN)/python -m bench report bench-full.json --out bench-full.html

bench-redis: $(STAMP)  ## what three durable replicas do on this machine, by redis-benchmark (needs redis-tools)
	@$(BIN)/python -m bench redis $(ARGS)

sim: $(STAMP)  ## 20 000 seeds of the simulator: thirteen minutes on two fast processors, 20 on slow ones
	@$(BIN)/epaxos sim --seeds 1..20000 $(ARGS)

sim-long: $(STAMP)  ## five times as many: an hour on fast processors, 1 h 48 on slow ones
	@$(BIN)/epaxos sim --seeds 1..100000 $(ARGS)

model: $(STAMP)  ## every state of small scopes, and a million walks: some twenty minutes on two processors
	@$(BIN)/epaxos model --scope commit --scope recovery --scope same-lane --scope restart --scope same-lane-restart --scope three
	@$(BIN)/epaxos model --walks 1000000 --replicas 5 --jobs 2
	@$(BIN)/epaxos model --walks 100000 --replicas 7 --jobs 2

model-deep: $(STAMP)  ## two recoveries, and a disk that takes its time, to the end or to 100 million states (16 GB)
	@$(BIN)/epaxos model --scope three-recovery --scope recovery-restart --scope slow-disk --scope deep --states-max 100000000

mutants: $(STAMP)  ## known bugs put in on purpose: the simulator must find each
	@$(BIN)/epaxos mutants $(ARGS)

virtual: $(STAMP)  ## the tests of the shell in virtual time, each in many orders (SEEDS=20)
	EPAXOS_SEEDS=$(or $(SEEDS),20) $(TESTS) -q tests/shell $(ARGS)

fuzz: $(STAMP)  ## nonsense for the Redis front end, drawn anew each time (SECONDS=300)
	@EPAXOS_FUZZ_SECONDS=$(or $(SECONDS),300) $(BIN)/python -m pytest -q tests/shell/test_fuzz_gateway.py -k whatever $(ARGS)

powercut: $(STAMP)  ## the power of a machine with five replicas, cut 20 times under load (needs user-mode-linux)
	@$(BIN)/python -m bench powercut $(ARGS)

redis-diff: $(STAMP)  ## 200 000 random commands to Redis and to replicas: every reply equal (needs redis-server)
	@$(BIN)/python -m tests.field.redis_diff $(ARGS)

docs: $(STAMP)  ## write docs/reference/ anew from the code
	@$(BIN)/python -m epaxos.reference

clean:  ## remove everything that make has made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	rm -f epaxos/_ext/*.so bench.html bench.json bench-failover.json bench-throughput.json bench-full.html bench-full.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
