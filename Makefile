# make demo              pre-train on the embedded data and write demo_out/report.html
# make demo DATA=DIR     the same on your own images
# make demo-dense        then detection and segmentation, demo_out/report_dense.html
# make benchmark         after make demo: random, CAE and MAE in six tasks, demo_out/benchmark/report.html
# make test              lint and tests
# make chaos             an hour of accidents and attacks: docs/reliability.md
# make docs              these pages as a site, in site/; strict: a broken link fails
# make dist              sdist and wheel in dist/, checked
# make ops               compile mmcv's own operators; without them torchvision's serve
# TORCH=2.6.0            each with this PyTorch, in an environment of its own; PYTHON=python3.10 makes it
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
PYTHON ?= python3
# A thread pool per core and process is enough: more of them slow each other down.
CORES ?= $(shell nproc)
# What is given is data. Make would run the $(shell ...) in it, here or on its way to the commands, which get it
# from their environment: a shell would run what stands in the text of a command.
$(foreach name,DATA OUT FORCE TORCH PYTHON FORCE_CUDA,$(eval override $(name) := $$(value $(name))))
override CORES := $(if $(filter file,$(origin CORES)),$(CORES),$(value CORES))
MAKEOVERRIDES :=
export DATA OUT PYTHON FORCE_CUDA
without = $(if $(2),$(call without,$(subst $(firstword $(2)),,$(1)),$(wordlist 2,11,$(2))),$(1))
DIGITS := 1 2 3 4 5 6 7 8 9 0
$(if $(call without,$(TORCH),. $(DIGITS)),$(error TORCH is a version of PyTorch, such as 2.13.0))
$(if $(filter 0,$(CORES))$(call without,$(CORES),$(DIGITS)),$(error CORES is a whole number from 1 on))
ENV := .venv$(if $(TORCH),-$(TORCH))
RUN := $(ENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
DOCS := .venv-docs
MMCV := $(shell grep ^onedl-mmcv constraints.txt)

# On CPUs: glibc would give large tensors back to the kernel, and wait for each of their pages anew.
ifeq ($(wildcard /dev/nvidiactl),)
demo demo-dense benchmark: export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
demo demo-dense benchmark: export MALLOC_TRIM_THRESHOLD_ ?= 17179869184
endif

.PHONY: demo demo-dense benchmark test chaos docs dist ops
demo: $(ENV)/installed
	OMP_NUM_THREADS=$(CORES) $(RUN) demo/demo.py $(if $(OUT),--out="$$OUT") \
		$(if $(DATA),--data="$$DATA") $(if $(FORCE),--force)

demo-dense: $(ENV)/installed
	OMP_NUM_THREADS=$(CORES) $(RUN) demo/demo_dense.py $(if $(OUT),--out="$$OUT") \
		$(if $(FORCE),--force)

benchmark: $(ENV)/installed
	OMP_NUM_THREADS=$(CORES) $(RUN) demo/benchmark.py $(if $(OUT),--out="$$OUT")

test: $(ENV)/logs
	$(ENV)/bin/ruff check .
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist worksteal

chaos: $(ENV)/installed
	$(RUN) -W ignore -m tests.chaos --out chaos.json

# The names of API pages are read from the source: no PyTorch is needed.
docs: $(DOCS)/installed
	$(DOCS)/bin/zensical build --strict --clean

dist: $(DOCS)/installed
	rm -rf dist
	$(DOCS)/bin/python -m build
	$(DOCS)/bin/python -m twine check --strict dist/*

$(DOCS)/installed: constraints.txt
	test -x $(DOCS)/bin/python || "$$PYTHON" -m venv $(DOCS)
	$(DOCS)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt \
		zensical mkdocstrings-python build twine
	touch $@

# mmcv is built in its own environment, without PyTorch and so, in seconds, without operators. Pip's
# cache stays out of it: a build with operators may lie there, for another PyTorch.
$(ENV)/installed: setup.cfg constraints.txt
	@echo 'Installing PyTorch and the OpenMMLab packages into $(ENV): some minutes, once.'
	test -x $(RUN) || "$$PYTHON" -m venv $(ENV)
	$(PIP) install -q $(if $(TORCH),torch===$(TORCH) torchvision,$(shell grep ^torch constraints.txt))
	$(PIP) install -q --no-cache-dir --no-deps $(MMCV)
	grep -v ^torch constraints.txt > $(ENV)/constraints.txt
	$(PIP) install -q -c $(ENV)/constraints.txt -e '.[dev,det,seg]'
	touch $@

# What only the tests of --log need.
$(ENV)/logs: $(ENV)/installed
	$(PIP) install -q -c $(ENV)/constraints.txt -e '.[log]'
	touch $@

# With CUDA where PyTorch has it and nvcc is there, a GPU or not; FORCE_CUDA=0 where none is wanted.
ops: $(ENV)/installed
	$(PIP) install -q 'setuptools<81' wheel packaging ninja
	export FORCE_CUDA=$${FORCE_CUDA:-$$($(RUN) -W ignore -c 'import torch.utils.cpp_extension as cpp; \
		print(int(bool(cpp.torch.version.cuda and cpp.CUDA_HOME)))')}; \
	echo "Compiling mmcv's operators, FORCE_CUDA=$$FORCE_CUDA: 6 minutes on 2 cores, longer with CUDA."; \
	CFLAGS='-O2 -g0' $(PIP) install --force-reinstall --no-deps --no-cache-dir --no-build-isolation \
		$(MMCV); \
	$(RUN) -W ignore -c 'import os, mmcv.ops; cuda = mmcv.ops.get_compiling_cuda_version(); \
		print("mmcv.ops is compiled, CUDA:", cuda); \
		exit("FORCE_CUDA=1 had no effect" if os.environ["FORCE_CUDA"] == "1" and cuda[0] == "n" else 0)'
