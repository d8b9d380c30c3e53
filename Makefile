# The one way in. `make` alone lists the targets.
#
# Every target makes the environments it needs, and again only when pyproject.toml or the version changed.
# ARGS is handed on:   make test ARGS="tests/core -x"     make bench ARGS=--quick

# The first Python that is new enough; another one: make test PYTHON=/path/to/python
PYTHON ?= $(or $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
  $(if $(shell $(name) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(name)))),python3)
PYENV_ROOT ?= $(HOME)/.pyenv

# The tests run on these, where they are present, whichever of them made .venv: `make test-pythons`.
TESTED := 3.11 3.12 3.13
# `test-elsewhere` runs on the oldest and on the newest: what one between has, one of the two has.
ENDS := $(firstword $(TESTED)) $(lastword $(TESTED))

VENV := .venv
BIN := $(VENV)/bin
# Where it stands: what is installed names it.
VERSION := limiter_core/__init__.py
# Without arq, which needs redis-py 5: it has an environment of its own.
EXTRAS := .[aiohttp,asgi,celery,cli,docket,httpx,httpx2,otel,pydantic-ai,redis,top,web]
# The adapters for these can be imported all the same, and the checkers see their types.
SEEN := 'arq>=0.28,<0.29' croniter 'saq>=0.26.4,<0.27'
# The oldest releases of frameworks that pyproject.toml allows; on the other Python they are tried.
OLDEST := 'aiohttp==3.12.0' 'celery==5.5.0' 'fastapi==0.118.0' \
  'httpx==0.27.0' 'jinja2==3.1.0' 'pydocket==0.27.0' 'sse-starlette==2.1.3' 'starlette==0.46.0'
PIP := -m pip --quiet --disable-pip-version-check
VERSION_OF := -c 'import sys; print("%d.%d" % sys.version_info[:2])'

# $(call found,3.13) is a Python of that version, on the PATH or from pyenv, or nothing. (Asking
# each for its version sorts out pyenv's shims, which are there for versions that are not active.)
found = $(firstword $(foreach python,python$(1) $(wildcard $(PYENV_ROOT)/versions/$(1)*/bin/python3),\
  $(if $(filter $(1),$(shell $(python) $(VERSION_OF) 2>/dev/null)),$(python))))

# More workers than cores, since most tests wait. One process, as for a debugger: make test WORKERS=0
WORKERS ?= 6
PARALLEL = --numprocesses $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo environments environments-elsewhere chromium test test-browser test-cluster test-docs test-elsewhere test-exhaustive test-faults-short test-servers test-rabbitmq test-fastmcp test-prefect test-fast test-here test-pythons test-redis-5 test-slow test-faults test-containers test-wheel docs docs-serve lint types bench fix clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## replay a log of calls under limits, and show who held what when
	$(BIN)/limiter demo $(ARGS)

test: environments test-here test-redis-5 ## run the tests of the package; what CI runs besides: test-docs, -faults-short, -exhaustive, -cluster, -elsewhere, -browser

# What `test` needs, at the same time; and, with it, what `test-elsewhere` needs.
environments:
	@$(MAKE) --no-print-directory --jobs $(VENV)/.tools $(VENV)-redis-5/.installed
OTHERS = $(filter-out $(shell $(PYTHON) $(VERSION_OF)),$(ENDS))
environments-elsewhere:
	@$(MAKE) --no-print-directory --jobs $(VENV)/.tools $(VENV)-fastmcp/.installed \
	  $(foreach version,$(OTHERS),$(if $(call found,$(version)),$(VENV)-$(version)/.installed))

test-elsewhere: environments-elsewhere test-servers test-rabbitmq test-fastmcp $(ENDS:%=test-%) ## run what depends on it on another server or broker, on the other of Python 3.11 and 3.13, and with FastMCP

test-servers: $(VENV)/.tools
	@if command -v $(OTHER_SERVERS) >/dev/null; \
	then $(call tested,$(BIN)/python,tests/redis -k $(OTHER_SERVERS)); \
	else echo "$(OTHER_SERVERS) is not installed: the tests ran on Valkey alone"; fi

# Where it is not installed they are skipped, and say so.
test-rabbitmq: $(VENV)/.tools
	$(call tested,$(BIN)/python,tests/celery_ -m rabbitmq)

# For the tests of the page. Where it cannot be had they are skipped, and name it.
chromium:
	@for name in chromium chromium-browser google-chrome chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing chromium (Debian's package)"; \
	  { apt-get install -yqq chromium || { apt-get update -qq && apt-get install -yqq chromium; }; } >/dev/null 2>&1; \
	fi || echo "chromium cannot be installed: the tests of the page in a browser are skipped"

# $(call tested,PYTHON,TESTS): what fails beside others is tried once more, alone, and the output
# names it. A test that fails twice, a crash, or an error at collection fails the run.
tested = $(1) -m pytest $(PARALLEL) $(2) || \
  { [ $$? = 1 ] && echo "Once more, alone:" && \
    $(1) -m pytest --last-failed --last-failed-no-failures none $(2); }

# What takes minutes, or is of no use before each commit, has a target of its own.
IN_BROWSER := tests/web/test_browser.py
OF_DOCS := $(addprefix tests/project/test_,examples.py page_commands.py page_shell.py pages.py reference.py)
UNDER_LOAD := tests/faults tests/agents/test_processes.py tests/core/test_stress.py
# The servers other than the one of the tests' requirements that are installed.
OTHER_SERVERS := redis-server
ON_ONE_SERVER := -k "not $(OTHER_SERVERS)"
# What these markers say stands in pyproject.toml.
PLAIN := -m "not (exhaustive or cluster or rabbitmq)"

# Many of these wait for a process or the end of a lease; with eight workers two cores are busy.
test-here: WORKERS = 8
test-here: $(VENV)/.tools
	$(call tested,$(BIN)/python,$(or $(ARGS),$(addprefix --ignore ,$(IN_BROWSER) $(OF_DOCS) $(UNDER_LOAD)) $(ON_ONE_SERVER) $(PLAIN)))

test-docs: $(VENV)/.tools ## run the examples, and the code and the commands of the docs
	$(call tested,$(BIN)/python,$(or $(ARGS),$(OF_DOCS)))

test-faults-short: $(VENV)/.tools ## try what each fault does, under load, for a moment
	$(call tested,$(BIN)/python,$(or $(ARGS),$(UNDER_LOAD)))

test-exhaustive: $(VENV)/.tools ## try at each line, in each order and at random what other tests try once
	$(call tested,$(BIN)/python,$(or $(ARGS),-m "exhaustive and not cluster" $(ON_ONE_SERVER)))

test-cluster: $(VENV)/.tools ## run the contract of a store, and all else, on a cluster of six servers
	$(call tested,$(BIN)/python,$(or $(ARGS),-m cluster $(ON_ONE_SERVER)))

test-browser: $(VENV)/.tools chromium ## run the tests of the page in a browser
	$(call tested,$(BIN)/python,$(IN_BROWSER) $(ARGS))

test-pythons: $(TESTED:%=test-%) ## run what depends on it on Python 3.11, 3.12 and 3.13

# For the inner loop.
FAST := tests/core tests/stores $(wildcard $(addprefix tests/redis/test_,bookkeeping.py \
  cancellation.py contract.py durable.py names.py text.py waking.py)) $(ON_ONE_SERVER) $(PLAIN)
test-fast: $(VENV)/.tools ## run the tests of the core, of the memory store, and on one server
	$(BIN)/python -m pytest $(PARALLEL) $(FAST) $(ARGS)

# What needs redis-py 5 (arq, and SAQ needs one below 8), and the Redis store on that redis-py.
ON_REDIS_5 := tests/arq tests/saq $(addprefix tests/redis/test_,contract.py connections.py \
  event_loops.py access_rights.py) \
  tests/faults/test_policies.py tests/project/test_page_shell.py \
  "tests/project/test_examples.py::test_example[arq_one_per_customer]" $(ON_ONE_SERVER)
test-redis-5: $(VENV)-redis-5/.installed
	$(call tested,$(VENV)-redis-5/bin/python,$(or $(ARGS),$(ON_REDIS_5)))

# FastMCP forbids the newest py-key-value, which Docket has, and the newest redis-py.
test-fastmcp: $(VENV)-fastmcp/.installed
	$(call tested,$(VENV)-fastmcp/bin/python,tests/fastmcp_ \
	  "tests/project/test_examples.py::test_example[fastmcp_tools]" \
	  tests/project/test_pages.py tests/project/test_reference.py -k fastmcp)

# Prefect brings 250 MB, and one page is about it.
test-prefect: $(VENV)-prefect/.installed ## run what the page for users of Prefect says of it
	$(VENV)-prefect/bin/python -m pytest tests/project/test_prefect.py $(ARGS)

# What depends on the Python, or on the release of a framework: not once more what kills and restarts processes for minutes.
ELSEWHERE := tests/core tests/stores tests/project tests/redis/test_contract.py \
  tests/redis/test_durable.py tests/otel tests/docket/test_limits.py tests/docket/test_hooks.py \
  tests/celery_/unit tests/celery_/test_basics.py tests/celery_/test_hooks.py \
  tests/celery_/test_waiting.py tests/asgi tests/agents/test_shared_limiter.py \
  $(filter-out $(IN_BROWSER),$(wildcard tests/web/test_*.py)) \
  $(ON_ONE_SERVER)

# One of the tested versions, unless .venv has run it already.
test-%: $(VENV)/.tools
	@ran="$$($(BIN)/python $(VERSION_OF))"; \
	if [ "$$ran" = "$*" ]; then :; \
	elif [ -n "$(call found,$*)" ]; then \
	  { $(MAKE) --no-print-directory --question $(VENV)-$*/.installed || $(MAKE) --no-print-directory $(VENV)-$*/.installed; } && \
	  echo "$(VENV)-$*/bin/python -m pytest $(PARALLEL) $(or $(ARGS),$(ELSEWHERE))" && \
	  { $(call tested,$(VENV)-$*/bin/python,$(or $(ARGS),$(ELSEWHERE))); }; \
	else echo "Python $* not found: the tests ran on $$ran, not on $*"; fi

test-slow: $(VENV)/.tools $(VENV)-redis-5/.installed ## run the long tests as well
	LIMITER_SLOW_TESTS=1 $(BIN)/python -m pytest $(PARALLEL) tests/core tests/redis tests/docket tests/celery_ $(ARGS)
	LIMITER_SLOW_TESTS=1 $(VENV)-redis-5/bin/python -m pytest $(PARALLEL) tests/arq tests/saq $(ARGS)

# Each trial keeps a core busy.
test-faults: WORKERS = 3
test-faults: $(VENV)/.tools $(VENV)-redis-5/.installed ## try what each fault does, under load, for long
	LIMITER_FAULT_SECONDS=20 $(BIN)/python -m pytest $(PARALLEL) tests/faults $(ARGS)
	LIMITER_FAULT_SECONDS=20 $(VENV)-redis-5/bin/python -m pytest $(addprefix tests/faults/test_,\
	  jobs.py absent_workers.py policies.py) -k "arq or saq"

# The servers that the Redis store promises to run on.
IMAGES := redis:6.2,redis:7,redis:8,valkey/valkey:8,valkey/valkey:9

test-containers: $(VENV)/.tools ## run the tests of the Redis store on servers in containers (needs Docker)
	$(BIN)/python $(PIP) install testcontainers
	images="$$($(BIN)/python tests/redis/container_images.py $(IMAGES))" && \
	TESTCONTAINERS_RYUK_DISABLED=true LIMITER_TEST_CONTAINERS="$$images" \
	  $(BIN)/python -m pytest $(PARALLEL) tests/redis -m every_server $(ARGS)

test-wheel: $(VENV)-build/.installed ## build sdist and wheel, and use the wheel as a user does
	$(VENV)-build/bin/python .ci/try_wheel.py

docs: $(VENV)-docs/.installed ## build the site of the docs, strictly; list its external links
	$(VENV)-docs/bin/zensical build --clean --strict
	$(VENV)-docs/bin/python .ci/check_site.py

docs-serve: $(VENV)-docs/.installed ## show the site, and build again what changes
	$(VENV)-docs/bin/zensical serve

lint: $(VENV)/.tools ## check style and formatting (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.tools $(VENV)-fastmcp/.installed ## check types (pyright and mypy, both strict)
	$(BIN)/pyright
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 -p limiter_core -p limiter_memory -p limiter_redis
	$(BIN)/pyright --project .ci/pyright-fastmcp.json
	$(BIN)/mypy --python-executable $(VENV)-fastmcp/bin/python -p limiter_fastmcp

bench: $(VENV)/.bench ## measure speed and memory beside peers; a table of ratios
	$(BIN)/python benchmarks/run.py $(ARGS)

fix: $(VENV)/.tools ## format the code, and repair what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove environments, caches and builds
	rm -rf .venv .venv-* build dist site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- environments ----------------------------------------------------------------------------------

# pip learnt dependency groups in 25.1; a Python of 2023 brings an older one.
$(VENV)/.pip: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not. Name one: make test PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed: $(VENV)/.pip $(VERSION)
	$(BIN)/python $(PIP) install --editable '$(EXTRAS)'
	@touch $@

$(VENV)/.tools: $(VENV)/.installed
	$(BIN)/python $(PIP) install --group dev
	$(BIN)/python $(PIP) install --no-deps $(SEEN)
	@touch $@

# A peer that cannot be had here (some are compiled) is no reason not to measure the others.
$(VENV)/.bench: $(VENV)/.tools
	@$(BIN)/python $(PIP) install --group bench && touch $@ || \
	  echo "not all peers could be installed; going on without them"

# The other environments have no pip of their own: .venv's installs into them.
$(VENV)-redis-5/.installed: $(VENV)/.pip $(VERSION)
	$(PYTHON) -m venv --without-pip $(VENV)-redis-5
	$(BIN)/python $(PIP) --python $(@D)/bin/python install --editable '.[arq,cli,otel,saq]' --group test
	@touch $@

$(VENV)-fastmcp/.installed: $(VENV)/.pip $(VERSION)
	$(PYTHON) -m venv --without-pip $(VENV)-fastmcp
	$(BIN)/python $(PIP) --python $(@D)/bin/python install --editable '.[docket,fastmcp]' 'fastmcp[tasks]' --group test
	@touch $@

$(VENV)-prefect/.installed: $(VENV)/.pip $(VERSION)
	$(PYTHON) -m venv --without-pip $(VENV)-prefect
	$(BIN)/python $(PIP) --python $(@D)/bin/python install --editable '.[redis]' 'prefect>=3,<4' --group test-core
	@touch $@

$(VENV)-build/.installed: $(VENV)/.pip
	$(PYTHON) -m venv --without-pip $(VENV)-build
	$(BIN)/python $(PIP) --python $(@D)/bin/python install --group build
	@touch $@

$(VENV)-docs/.installed: $(VENV)/.pip
	$(PYTHON) -m venv --without-pip $(VENV)-docs
	$(BIN)/python $(PIP) --python $(@D)/bin/python install --group docs
	@touch $@

$(VENV)-%/.installed: $(VENV)/.pip $(VERSION)
	$(call found,$*) -m venv --without-pip $(VENV)-$*
	$(BIN)/python $(PIP) --python $(@D)/bin/python install --editable '$(EXTRAS)' $(OLDEST) --group test
	$(BIN)/python $(PIP) --python $(@D)/bin/python install --no-deps $(SEEN)
	@touch $@

# Made on the way by a pattern, yet to be kept.
.PRECIOUS: $(VENV)-%/.installed
