PYTHON ?= python3
RUN := .venv/bin
PIP := $(RUN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test test-slow test-thorough simulate chaos drill failover fuzz check sbom security demo bench bench-compare contract lock clean

run: .venv/run.stamp $(if $(filter dev,$(ANCHOR)),node_modules/stamp)  ## the server on 127.0.0.1:8080, embedded PostgreSQL, data in ./.sequencer; ANCHOR=dev: with a chain
	exec $(RUN)/sequencer serve

demo: .venv/run.stamp  ## 6,900 real orders through the running server, every receipt and proof verified offline
	$(RUN)/python -m bench.demo

test: .venv/dev.stamp  ## all tests but the slow ones
	$(RUN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: .venv/dev.stamp  ## crash, restart and chaos tests
	$(RUN)/python -m pytest -m "slow and not alone and not thorough" -n 2 --dist worksteal
	$(RUN)/python -m pytest -m alone

test-thorough: .venv/dev.stamp  ## what test-slow has some of: kills at every single point, longer runs
	$(RUN)/python -m pytest -m thorough -n 2 --dist worksteal

simulate: .venv/dev.stamp  ## the whole house in virtual time under seeded faults: SEEDS=n FIRST=k
	$(RUN)/python -m tests.simulation $(or $(SEEDS),500) --first $(or $(FIRST),1)

chaos: .venv/dev.stamp  ## a real server attacked for DURATION=60 seconds by SEED=, then audited: docs/chaos.md
	$(RUN)/python -m tests.chaos --duration $(or $(DURATION),60) $(if $(SEED),--seed $(SEED))

drill: .venv/dev.stamp  ## a real server lost under load and restored: the base, then to the last event: docs/backup.md
	$(RUN)/python -m tests.drill --load $(or $(LOAD),10)

failover: .venv/dev.stamp .venv-patroni/stamp  ## three PostgreSQL under Patroni and etcd, lost one by one under load, then audited: docs/scaling.md
	$(RUN)/python -m tests.patroni $(if $(LOSS),--loss $(LOSS)) $(if $(MODE),--mode $(MODE))

fuzz: .venv/dev.stamp  ## every parser of bytes from outside, guided by coverage, for DURATION=60 seconds in all: TARGET=
	$(RUN)/python -m tests.fuzz $(TARGET) --duration $(or $(DURATION),60)

check: .venv/dev.stamp  ## lint, format, types, import rules, secrets, known vulnerabilities (AUDIT=--required: or fail)
	$(RUN)/ruff check . && $(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/bandit --quiet --configfile pyproject.toml --recursive ves config contracts journal actors transport supervisor
	$(RUN)/python -m tests.hygiene.secrets
	$(RUN)/python -m tests.hygiene.audit $(AUDIT)

sbom: .venv/dev.stamp  ## build/sbom.json: what is in a release, as CycloneDX
	$(RUN)/python -m tests.hygiene.sbom build/sbom.json

security: .venv/dev.stamp  ## each line of the security guide: the tests that SECURITY.md names for it, and how they do
	CI=true $(RUN)/python -m tests.security_report $(if $(OUTCOMES),--outcomes $(OUTCOMES))

bench: .venv/run.stamp  ## rates, latencies and processor time beside this machine's limits, some 8 minutes; FULL=1: all shapes, about half an hour: docs/performance.md
	$(RUN)/python -m bench.suite $(if $(FULL),--full) --json build/bench.json
	$(RUN)/python -m bench.plot build/bench.json

bench-compare: .venv/run.stamp  ## this working tree against BASE=revision, round by round in turns
	$(RUN)/python -m bench.compare $(or $(BASE),$(error BASE=revision is missing))

contract: .venv/dev.stamp  ## contracts/StateSetAnchor.json and contracts/gas.md anew from the source
	node contracts/compile.mjs
	$(RUN)/python -m tests.contracts.gas

lock:  ## renew requirements/*.lock
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv
	.venv-lock/bin/uv pip compile --quiet $(LOCK) pyproject.toml requirements/build.in -o requirements/run.lock
	.venv-lock/bin/uv pip compile --quiet $(LOCK) pyproject.toml requirements/build.in --extra otel -c requirements/run.lock -o requirements/otel.lock
	.venv-lock/bin/uv pip compile --quiet $(LOCK) pyproject.toml requirements/build.in --extra kms -c requirements/run.lock -o requirements/kms.lock
	.venv-lock/bin/uv pip compile --quiet $(LOCK) pyproject.toml requirements/build.in --group dev -c requirements/run.lock -o requirements/dev.lock
	.venv-lock/bin/uv pip compile --quiet $(LOCK) requirements/patroni.in -o requirements/patroni.lock
	rm -rf .venv-lock
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock"

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run.stamp: requirements/run.lock pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes -r requirements/run.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

.venv/dev.stamp: requirements/dev.lock .venv/run.stamp node_modules/stamp
	$(PIP) --require-hashes -r requirements/dev.lock
	touch $@

.venv-patroni/stamp: requirements/patroni.lock
	$(PYTHON) -m venv .venv-patroni
	.venv-patroni/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/patroni.lock
	touch $@

node_modules/stamp: package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --silent
	touch $@

clean:
	rm -rf .venv .venv-patroni node_modules
