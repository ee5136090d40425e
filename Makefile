# `make demo` and `make test` work as first commands on a fresh clone: they make .venv and install what they need.

PYTHON ?= python3
export PIP_EXTRA_INDEX_URL
# Threads that wait sleep, so that other work on the machine costs little.
export OMP_WAIT_POLICY ?= PASSIVE
# The CPU build where the package index gives that one. Elsewhere, without a GPU: make PIP_EXTRA_INDEX_URL=\
# https://download.pytorch.org/whl/cpu TORCH=torch==2.13.0+cpu demo. With an NVIDIA GPU: make TORCH='torch>=2.4,<3' demo
TORCH ?= torch==2.13.0
BIN := .venv/bin
# What the compiled search kernel is built from.
KERNEL := CMakeLists.txt $(wildcard src/hashlgn/_kernel/*.?pp)

.PHONY: demo serve fuzz-serve test test-export check format clean gpu native-test sanitize soak soak-serve

demo: .venv/.demo
	$(BIN)/hashlgn demo

# A model of movies, trained where there is none; events are kept beside it.
serve: .venv/.serve
	$(BIN)/hashlgn serve --demo --journal hashlgn-demo/events.db

# The service under 100,000 made-up requests, of the shapes that its document allows and of others: half an hour.
fuzz-serve: .venv/.dev
	$(BIN)/python tests/serve/fuzz_service.py 100000

# Two files of tests at a time; a file stays in one process, which trains its models once.
test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The exports in engines whose packages are large (about 500 MB): pgvector, Qdrant, Milvus, LanceDB.
test-export: .venv/.dev
	$(BIN)/python -m pip install --quiet --editable '.[dev,engines]'
	$(BIN)/python -m pytest -m engines tests/export

# On a machine with an NVIDIA GPU: the CUDA tests, then the default training there and on the CPU beside it.
gpu: TORCH = torch>=2.4,<3
gpu: .venv/.dev
	$(BIN)/python -m pytest -m cuda tests/training
	$(BIN)/hashlgn bench gpu

check: .venv/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

format: .venv/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# The search without Python, on every instruction set of this machine, and on NEON where it can be emulated.
SCAN := src/hashlgn/_kernel
NATIVE := -std=c++20 -O2 -ffp-contract=off -Wall -Wextra -pthread tests/native/search_test.cpp $(SCAN)/search.cpp
ARM := aarch64-linux-gnu-g++
QEMU := qemu-aarch64-static

native-test:
	mkdir -p build/native
ifeq ($(shell uname -m),x86_64)
	$(CXX) -std=c++20 -O2 -ffp-contract=off -mavx2 -mbmi2 -mpopcnt -c $(SCAN)/avx2.cpp -o build/native/avx2.o
	$(CXX) -std=c++20 -O2 -ffp-contract=off -mavx512f -mavx512bw -mavx512vl -mavx512vbmi -mavx512vbmi2 -mbmi2 -mpopcnt -Wno-uninitialized -Wno-maybe-uninitialized \
		-c $(SCAN)/avx512.cpp -o build/native/avx512.o
	$(CXX) $(NATIVE) $(SCAN)/portable.cpp build/native/avx2.o build/native/avx512.o -o build/native/search_test
	build/native/search_test
	if command -v $(ARM) >/dev/null && command -v $(QEMU) >/dev/null; then \
		$(ARM) -static $(NATIVE) $(SCAN)/portable.cpp $(SCAN)/neon.cpp -o build/native/search_test_arm && \
		$(QEMU) build/native/search_test_arm; \
	else echo "NEON is not tested: $(ARM) and $(QEMU) are needed"; fi
else
	$(CXX) $(NATIVE) $(SCAN)/portable.cpp $(wildcard $(SCAN)/neon.cpp) -o build/native/search_test
	build/native/search_test
	@echo "AVX2 and AVX-512 are not tested: they need an x86-64 machine"
endif

# The tests of the kernel's callers over one that watches every address and every undefined operation. Takes minutes.
# Left out: two tests of how much memory a process has, since the sanitizer takes terabytes of addresses of its own.
SANITIZED := build/sanitized
sanitize: .venv/.dev
	$(BIN)/python -m pip install --quiet cmake ninja nanobind
	$(BIN)/cmake -S . -B $(SANITIZED) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DPython_EXECUTABLE=$(abspath $(BIN))/python -DHASHLGN_SANITIZE=ON
	$(BIN)/cmake --build $(SANITIZED)
	ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(SANITIZED) \
		LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
		$(BIN)/python -c 'import sys, kernel, pytest; sys.modules["hashlgn._kernel.kernel"] = kernel; sys.exit(pytest.main())' \
		-p no:cacheprovider -k 'not too_little_memory and not few_pages' tests/search tests/scoring tests/inference/test_direct.py \
		tests/inference/test_placement.py tests/inference/test_stored.py

# The journal of a service, killed and cut off from power a thousand times each, then longer sequences of events. Takes
# a quarter of an hour.
soak: .venv/.dev
	$(BIN)/python tests/serve/kills.py 1000
	$(BIN)/python tests/serve/power_cuts.py 1000
	SOAK=1 $(BIN)/python -m pytest tests/serve/test_journal_histories.py

# An hour of a service under load with events, deletions and swaps of models.
soak-serve: .venv/.dev
	$(BIN)/python tests/serve/soak_service.py 3600

clean:
	rm -rf .venv hashlgn-demo dist build .mypy_cache .ruff_cache .pytest_cache

.venv/.torch: Makefile
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	touch $@

.venv/.demo: .venv/.torch pyproject.toml $(KERNEL)
	$(BIN)/python -m pip install --quiet --editable '.[train,report]'
	touch $@

.venv/.serve: .venv/.torch pyproject.toml $(KERNEL)
	$(BIN)/python -m pip install --quiet --editable '.[train,serve]'
	touch $@

.venv/.dev: .venv/.torch pyproject.toml $(KERNEL)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ .venv/.demo
