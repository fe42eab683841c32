# make demo              pre-train on the embedded data and write demo_out/report.html
# make demo DATA=DIR     the same on your own images
# make demo-dense        then detection and segmentation, demo_out/report_dense.html
# make test              lint and tests
# make ops               compile mmcv's own operators; without them torchvision's serve
# TORCH=2.6.0            each with this PyTorch, in an environment of its own; PYTHON=python3.10 makes it
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
PYTHON ?= python3
ENV := .venv$(if $(TORCH),-$(TORCH))
RUN := $(ENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
MMCV := $(shell grep ^onedl-mmcv constraints.txt)
# A thread pool per core and process is enough: more of them slow each other down.
CORES := $(shell nproc)

.PHONY: demo demo-dense test ops
demo: $(ENV)/installed
	OMP_NUM_THREADS=$(CORES) $(RUN) demo/demo.py $(if $(OUT),--out '$(OUT)') \
		$(if $(DATA),--data '$(DATA)') $(if $(FORCE),--force)

demo-dense: $(ENV)/installed
	OMP_NUM_THREADS=$(CORES) $(RUN) demo/demo_dense.py $(if $(OUT),--out '$(OUT)') \
		$(if $(FORCE),--force)

test: $(ENV)/installed
	$(ENV)/bin/ruff check .
	OMP_NUM_THREADS=$(CORES) $(RUN) -m pytest -q

# mmcv is built in its own environment, without PyTorch and so, in seconds, without operators. Pip's
# cache stays out of it: a build with operators may lie there, for another PyTorch.
$(ENV)/installed: setup.cfg constraints.txt
	@echo 'Installing PyTorch and the OpenMMLab packages into $(ENV): some minutes, once.'
	test -x $(RUN) || $(PYTHON) -m venv $(ENV)
	$(PIP) install -q $(if $(TORCH),torch===$(TORCH) torchvision,$(shell grep ^torch constraints.txt))
	$(PIP) install -q --no-cache-dir --no-deps $(MMCV)
	grep -v ^torch constraints.txt > $(ENV)/constraints.txt
	$(PIP) install -q -c $(ENV)/constraints.txt -e '.[dev,det,seg]'
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
