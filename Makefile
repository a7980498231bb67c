# `make up`: a cluster on this machine. `make test`: all tests. Both install what is missing first.
SHELL := /bin/sh
KEELSON_IMAGE_DIR ?= $(CURDIR)/target/images
export KEELSON_IMAGE_DIR

.PHONY: up down test images bench

up: deps-up rust
	@cargo build --release --locked --package keelson
	@exec target/release/keelson up $(ARGS)

down: rust
	@cargo run --quiet --release --locked --package keelson -- down $(ARGS)

test: deps-test rust images
	@cargo xtask ci

images: deps-test
	@images/build.sh

bench: rust
	@cargo run --release --locked --package bench -- $(ARGS)

.PHONY: deps-up deps-test rust
deps-up:
	@scripts/deps up
deps-test:
	@scripts/deps test
rust:
	@command -v cargo >/dev/null 2>&1 || { echo "Rust is missing: install it from https://rustup.rs or with your distribution (1.90 or newer)" >&2; exit 1; }
