# SPDX-License-Identifier: Apache-2.0
.PHONY: help lib demo experiments wheel deb arm64 wheel-arm64 wheel-torch wasm live install uninstall test test-quick test-peers \
	test-frameworks test-install test-wheel test-deb test-runtimes test-mpi test-arm64 test-wasm test-faults fuzz soak coverage mutants \
	test-live check docs bench bench-kernels clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lib: ## build the shared library, .build/release/libbatchnorm.so
	@scripts/library

demo: ## train a network with and without batch norm, and a layer from C
	@scripts/demo

experiments: ## what batch norm does, and when it does not: pictures and numbers, in .build-experiments
	@scripts/experiments

wheel: ## build the Python package: a wheel for every Python and glibc 2.17, and a source distribution, in .build-wheel
	@scripts/wheel

deb: ## Debian packages, libbatchnorm2 and libbatchnorm-dev, in .build-deb
	@scripts/deb

arm64: ## build the library for arm64 Linux on another machine, .build-arm64/libbatchnorm.so
	@scripts/arm64

wheel-torch: ## the operators of batchnorm.torch, compiled, as a wheel for every Python and PyTorch: .build-wheel-torch
	@scripts/wheel-torch

wheel-arm64: ## the wheel with that library, in .build-wheel-arm64
	@scripts/wheel arm64

wasm: ## WebAssembly for browsers and Node: batchnorm.wasm and its ES module, in .build-wasm
	@scripts/wasm

live: ## the live page, one HTML file that trains in the browser, .build-live/batchnorm-live.html
	@scripts/live

test: ## run the Swift, C and Python tests; the last line counts them
	@echo "Twenty to thirty minutes on two processors; make test-quick takes a few." >&2
	@scripts/test

test-quick: ## run those of the C and Python tests that find most in a few minutes
	@scripts/test --quick c python

test-peers: ## compare with PyTorch, Keras, flax, equinox, haiku and ONNX, which are installed first
	@scripts/test-peers

test-frameworks: ## layers for PyTorch and other frameworks, also over several processes; the last line counts
	@scripts/test-frameworks

install: ## header, libraries, pkg-config, CMake and manual page, to DESTDIR PREFIX (/usr/local) and LIBDIR (PREFIX/lib)
	@scripts/install

uninstall: ## take them away
	@scripts/install uninstall

test-install: ## install into an empty prefix, and build programs against it
	@scripts/test-install

test-wheel: ## look at the wheel, and run the Python tests with it in an older Debian
	@scripts/test-wheel

test-runtimes: ## run the examples, in C and eleven other languages; the last line counts
	@scripts/test-runtimes

test-mpi: ## run the examples over MPI, by MPICH and Open MPI, with 1, 2 and 4 processes; the last line counts
	@scripts/test-mpi

test-deb: ## build the Debian packages, install them into an empty root, and build a program against that
	@scripts/test-deb

test-arm64: ## run the C tests on arm64, under qemu, and compare the bits with this machine's
	@scripts/test-arm64

test-wasm: ## run batchnorm.wasm in Node and in headless Chromium, beside the native library; the last line counts
	@scripts/test-wasm

test-live: ## the live page: its network against NumPy's and finite differences, its lessons; the last line counts
	@scripts/test-live

test-faults: ## calls while memory, threads, files and signals fail them; for SECONDS, or in a short form
	@scripts/test-faults $(or $(SECONDS),0)

fuzz: ## random calls of every function, for SECONDS (60) from SEED (1); from 300 seconds on guided by coverage as well
	@scripts/fuzz $(or $(SECONDS),60) $(or $(SEED),1)

coverage: ## lines, regions and branches that the tests reach; PART=engine or PART=package alone; half an hour
	@scripts/coverage $(PART)

mutants: ## break the engine, its loops and the Python package one place at a time, and see the tests notice; hours; PART, SAMPLE
	@for part in $(or $(PART),engine package); do scripts/mutants $$part $(if $(SAMPLE),--sample $(SAMPLE)) || exit 1; done

soak: ## training beside twins in float64, C and Python, for SECONDS (3600) from SEED (1): memory, bits, drift
	@scripts/soak $(or $(SECONDS),3600) $(or $(SEED),1)

check: ## look at the sources and at the library for what tests do not see
	@scripts/check $(if $(WITHOUT),--without "$(WITHOUT)")

docs: ## build the site of docs/, the header and the docstrings, .build-docs/html, and look for dead links
	@scripts/docs

bench: ## measure the library beside its peers; a quarter of an hour on an idle machine
	@scripts/bench

bench-kernels: ## bytes per cycle of each loop, beside what memory allows
	@scripts/bench-kernels

clean: ## remove everything that was built or installed here
	rm -rf .build .build-* .venv-* .swiftpm python/dist
