# `make demo` and `make test` work from a clean checkout: each sets up .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DATA := $(CURDIR)/data
# pip, not uv: pip takes a local build of torch where there is one.
PIP := $(BIN)/python -m pip --disable-pip-version-check

export DAGSTER_DISABLE_TELEMETRY := 1
unexport VIRTUAL_ENV

.PHONY: setup lock demo test soak audit lint dev docs tutorial bench clean

setup: $(VENV)/.ready

# Only files whose SHA-256 the lock names are installed; the package itself is built from this checkout.
$(VENV)/.ready: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes --requirement requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Resolves constraints.txt, which people edit, for all platforms of pyproject.toml, with the hash of every file.
lock:
	$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11.9 --all-extras --generate-hashes --no-strip-extras \
		--no-annotate --constraint constraints.txt --custom-compile-command "make lock" --output-file requirements.lock

demo: setup
	$(BIN)/stpath-assets demo --home $(DATA)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

# Faults by the hundred: kills, failing writes, clocks that jump, thousands of damaged files. About two hours.
soak: setup
	$(BIN)/python -m pytest -m soak
	$(BIN)/python -m tests.faults.soak

# Known vulnerabilities of what the lock installs, a bill of materials in build/sbom.json, and licences.
audit: setup
	$(BIN)/python -m tools.audit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.unsafe_calls
	$(BIN)/mypy

# The UI of the demo's data root; STPATH_HOME=… make dev opens another. Run `make demo` first to see something in it.
dev: export STPATH_HOME ?= $(DATA)
dev: setup
	mkdir -p $(STPATH_HOME)/dagster
	test -e $(STPATH_HOME)/dagster/dagster.yaml || cp dagster.yaml $(STPATH_HOME)/dagster/
	DAGSTER_HOME=$(STPATH_HOME)/dagster $(BIN)/python -m stpath_assets.defs.dev

# The documentation as a site, in build/site; a warning is an error.
docs: setup
	$(BIN)/mkdocs build --quiet --strict --config-file tools/mkdocs.yml

# The tutorial, run from start to end as a notebook.
tutorial: setup
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(BIN)/jupytext --quiet --to notebook --output "$$folder/tutorial.ipynb" docs/tutorial.md && cd "$$folder" && \
	PATH="$(CURDIR)/$(BIN):$$PATH" "$(CURDIR)/$(BIN)/python" -m pytest --nbmake --nbmake-timeout=600 -p no:cacheprovider tutorial.ipynb

bench: setup
	@failed=0; $(BIN)/python -m benchmarks || failed=1; $(BIN)/python -m benchmarks.tiles || failed=1; \
	$(BIN)/python -m benchmarks.catalog || failed=1; $(BIN)/python -m benchmarks.cohort || failed=1; \
	$(BIN)/python -m benchmarks.viewer || failed=1; \
	$(BIN)/python -m benchmarks.features; $(BIN)/python -m benchmarks.serving; exit $$failed

clean:
	rm -rf $(VENV) data .pytest_cache .mypy_cache .ruff_cache .hypothesis
