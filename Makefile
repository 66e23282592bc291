# `make up` runs everything on this machine, `make test` tests it; both set up .venv first.
# Arguments go through: make up ARGS='--port 9000', make test ARGS='-k iris'.

VENV := .venv
BIN := $(VENV)/bin
IMAGENET := model_repository/efficientnet-lite0/1/model.onnx
FIND = for p in $(1); do $$p -c 'import sys, ensurepip; print(sys.executable)' 2>/dev/null && break; done
PYTHON ?= $(shell $(call FIND,python3.12 python3.11))
PYTHON_NUMPY2 ?= $(shell $(call FIND,python3.13 $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.13.*/bin/python))

.PHONY: up monitor test test-compiled test-numpy2 fuzz soak soak-cluster bench bench-async bench-guard overload hangups flame \
  lint audit format docs site release lock clean

up: $(VENV)/.installed $(IMAGENET)
	@$(BIN)/miaas-adapter up $(ARGS)

# Prometheus with the project's alerts beside a running `make up`: docs/operations.md.
monitor: $(VENV)/.installed
	@$(BIN)/python -m scripts.monitor $(ARGS)

test: $(VENV)/.installed $(VENV)-kserve/.installed $(IMAGENET)
	-@PYTHON=$(BIN)/python bench/get_perf_analyzer.sh >/dev/null 2>&1
	$(BIN)/python -m pytest $(ARGS)
	@$(MAKE) --no-print-directory test-numpy2

# What the container image has: the hot path compiled. Needs gcc and Python's headers.
test-compiled: $(VENV)/.installed
	$(BIN)/python -m pytest -m compiled tests/shipping $(ARGS)

# The adapter itself also runs on Python 3.13 and numpy 2, where the standalone servers do not.
ifeq ($(PYTHON_NUMPY2),)
test-numpy2:
	@echo "no python3.13 here: the unit tests were not run on numpy 2"
else
test-numpy2: $(VENV)-numpy2/.installed
	$(VENV)-numpy2/bin/python -m pytest -q $(addprefix tests/,contracts core jobs security triton)
endif

# What bytes can do to the codec, for a minute.
fuzz: $(VENV)/.installed
	PYTHONPATH=. $(BIN)/python tests/fuzz/fuzz_codec.py -max_total_time=60 -max_len=400 -print_final_stats=1

# Everything is killed in turn under load, for half an hour. ARGS='--minutes 10 --jobs 30000' for less.
soak: $(VENV)/.installed
	$(BIN)/python -m tests.soak.soak $(ARGS)

# A whole cluster under load of all contracts: each process killed, half of each kind at once. Needs haproxy.
soak-cluster: $(VENV)/.installed
	$(BIN)/python -m tests.soak.cluster $(ARGS)

# Asynchronous jobs per second, beside what JetStream alone does in the same run.
bench-async: $(VENV)/.installed
	$(BIN)/python -m bench.async_queue $(ARGS)

# The adapter beside its peers, half an hour; ARGS=--quick takes five minutes. wrk makes the load. Where there is a C
# compiler, an adapter that has changed is compiled first, into build/compiled, which takes some minutes more.
bench: $(VENV)/.bench $(VENV)-kserve/.installed $(VENV)-mlserver/.installed
	@$(BIN)/python -m bench $(ARGS)

# Has a request become dearer? At most 90 seconds.
bench-guard: $(VENV)/.installed
	@$(BIN)/python -m bench.guard $(ARGS)

# A thousand clients without a pause for a minute; ten thousand requests of clients that hang up; flame graphs.
overload hangups flame: $(VENV)/.bench
	@$(BIN)/python -m bench.$@ $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The code by bandit, the locked dependencies by pip-audit.
audit: $(VENV)/.installed
	$(BIN)/bandit -q -r adapter
	$(BIN)/python -m scripts.audit_dependencies

format: $(VENV)/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.installed
	$(BIN)/python -m scripts.document_settings
	$(BIN)/python -m scripts.document_openapi
	$(BIN)/python -m scripts.document_helm
	$(BIN)/python -m scripts.document_metrics
	$(BIN)/python -m scripts.dashboards

# docs/ as a site, in build/site.
site: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# The sdist, and the wheel, which alone is enough to run everything: dist/.
release: $(VENV)/.installed
	rm -rf dist
	$(BIN)/python -m build --installer uv

# Takes the newest versions that pyproject.toml allows, for every Python and platform.
lock: $(VENV)/.installed
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-annotate \
	  --no-header pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) $(VENV)-numpy2 $(VENV)-kserve $(VENV)-mlserver $(IMAGENET)

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 with its venv module is needed (Debian: python3-venv)"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[standalone,models,demo,test,dev,docs]'
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[standalone,bench]'
	@touch $@

$(VENV)-numpy2/.installed: pyproject.toml constraints.txt
	$(PYTHON_NUMPY2) -m venv --clear $(VENV)-numpy2
	$(VENV)-numpy2/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

$(IMAGENET): $(VENV)/.installed scripts/build_imagenet.py
	$(BIN)/python scripts/build_imagenet.py

# KServe's client has needs of its own, so it gets an environment of its own.
$(VENV)-kserve/.installed: tests/clients/kserve.txt
	$(PYTHON) -m venv --clear $(VENV)-kserve
	$(VENV)-kserve/bin/python -m pip install -q --disable-pip-version-check -r tests/clients/kserve.txt
	@touch $@

# So does MLServer, whose copy of the protocol's messages cannot live beside Triton's client.
$(VENV)-mlserver/.installed: bench/peers/mlserver.txt
	$(PYTHON) -m venv --clear $(VENV)-mlserver
	$(VENV)-mlserver/bin/python -m pip install -q --disable-pip-version-check -r bench/peers/mlserver.txt
	@touch $@
