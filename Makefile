# Needs cargo, a C compiler, make and Python 3 with pip. Everything else is fetched by `make setup`.

.PHONY: help setup setup-gpu build demo test chaos test-matrix bench bench-full bench-parts bench-frameworks bench-serve reference-vectors fuzz \
  lint lint-packaging release clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Fetch ONNX Runtime, PostgreSQL with pgvector and the default model into .runtime/
	@scripts/setup.sh

setup-gpu: ## Fetch ONNX Runtime with the CUDA provider and the libraries of NVIDIA, too (fetches 1.4 GB)
	@scripts/setup.sh setup_gpu.py

build: setup ## Build target/release/lantern-cli
	cargo build --release --bins

demo: setup ## Watch the daemon at work on a private PostgreSQL
	cargo build --release --package lantern-cli --package demo --bins
	@cargo run --quiet --release --package demo

# The same schedules each time, in less than three minutes.
TEST_CHAOS = --seed 150 --schedules 40

# A test waits for its servers most of the time.
TEST_THREADS = $$((2 * $$(getconf _NPROCESSORS_ONLN)))

test: setup ## Run the tests that every change must pass
	@scripts/setup_clients.sh
	RUST_TEST_THREADS=$(TEST_THREADS) cargo test
	cargo test --features failpoints --test killed_swap --test killed_documents --test watchdog \
	  --test execution_provider
	cargo test --features failpoints --test chaos -- $(TEST_CHAOS)

SEED ?= $(shell date +%s)
SCHEDULES ?= 40

chaos: setup ## Run SCHEDULES=40 schedules of faults, from SEED=n on; a failed one says how to replay it
	cargo test --features failpoints --test chaos -- --seed $(SEED) --schedules $(SCHEDULES)

test-matrix: setup ## Run the integration tests and some chaos on PostgreSQL 14 to 18
	@scripts/setup.sh setup_matrix.py
	@scripts/test-matrix.sh

# Prints tables and bars, and writes docs/benchmarks/results.json and plots of it.
WRITE_LOAD = cargo bench --profile measured --features failpoints --bench write_load -- --into docs/benchmarks
PLOTS = PYTHONPATH=.runtime/plots $${PYTHON:-python3} -S benches/write_load/plots.py docs/benchmarks

bench: setup ## Compare the cost of capturing changes and the freshness of vectors with triggers (about 30 minutes)
	@scripts/setup.sh setup_plots.py
	$(WRITE_LOAD)
	$(PLOTS)

bench-full: setup ## The same with more clients, loads and sizes (an hour)
	@scripts/setup.sh setup_plots.py
	$(WRITE_LOAD) --full
	$(PLOTS)

bench-parts: setup ## Benchmarks of the parts, of memory and of the idle daemon
	cargo bench

# An environment with sentence-transformers, PyTorch and fastembed. REFERENCE_PYTHON names another one.
REFERENCE_PYTHON ?= .runtime/reference/bin/python

.runtime/reference/bin/python: scripts/reference-requirements.txt
	$${PYTHON:-python3} -m venv --clear .runtime/reference
	$@ -m pip install --quiet --requirement $<
	@touch $@

bench-frameworks: setup $(REFERENCE_PYTHON) ## Compare the embedder with sentence-transformers and fastembed (fetches 5 GB)
	cargo bench --bench embedder -- frameworks=$(REFERENCE_PYTHON)

bench-serve: setup $(REFERENCE_PYTHON) ## Compare serve with the engine, and with others behind uvicorn (fetches 5 GB)
	cargo bench --bench serve -- frameworks=$(REFERENCE_PYTHON)

reference-vectors: $(REFERENCE_PYTHON) ## Make tests/data/tiny again, with sentence-transformers (fetches 5 GB)
	HF_HUB_OFFLINE=1 $(REFERENCE_PYTHON) scripts/reference_vectors.py tests/data/tiny

SECONDS ?= 60

fuzz: ## Fuzz what reads from servers and users, SECONDS=60 each (needs nightly Rust and cargo-fuzz)
	@scripts/fuzz.sh $(SECONDS)

lint: ## Check formatting, run clippy with warnings denied, and check the dependencies with cargo-deny
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- --deny warnings
	@scripts/deny.sh

lint-packaging: ## Check the image, compose file, manifest, workflows, unit and shell scripts (needs npm)
	@scripts/lint_packaging.sh

release: ## Make the archive, the .deb and the crate in target/dist/
	@scripts/release.sh

clean: ## Remove what was built and fetched
	cargo clean
	rm -rf .runtime
