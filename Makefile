# Needs cargo, a C compiler, make and Python 3 with pip. Everything else is fetched by `make setup`.

.PHONY: help setup build demo test bench fuzz lint clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Fetch ONNX Runtime, PostgreSQL with pgvector and the default model into .runtime/
	@scripts/setup.sh

build: setup ## Build target/release/lantern-cli
	cargo build --release --bins

demo: setup ## Watch the daemon at work on a private PostgreSQL
	cargo build --release --bins --features demo
	@cargo run --quiet --release --features demo --bin demo

test: setup ## Run all tests
	cargo test

bench: setup ## Run the benchmarks
	cargo bench

SECONDS ?= 60

fuzz: ## Fuzz what reads from servers and users, SECONDS=60 each (needs nightly Rust and cargo-fuzz)
	@scripts/fuzz.sh $(SECONDS)

lint: ## Check formatting and run clippy, warnings denied
	cargo fmt --check
	cargo clippy --all-targets --all-features -- --deny warnings

clean: ## Remove what was built and fetched
	cargo clean
	rm -rf .runtime
