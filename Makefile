# make demo              pre-train on the embedded data and write demo_out/report.html
# make demo DATA=DIR     the same on your own images
# make test              lint and tests
# make ops               compile mmcv's operators, which detection and segmentation need
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
PYTHON ?= python3
PIP := .venv/bin/python -m pip --disable-pip-version-check
MMCV := $(shell grep onedl-mmcv constraints.txt)
# A thread pool per core and process is enough: more of them slow each other down.
CORES := $(shell nproc)

.PHONY: demo test ops
demo: .venv/installed
	OMP_NUM_THREADS=$(CORES) .venv/bin/python tools/demo.py $(if $(OUT),--out '$(OUT)') \
		$(if $(DATA),--data '$(DATA)') $(if $(FORCE),--force)

test: .venv/installed
	.venv/bin/ruff check .
	OMP_NUM_THREADS=$(CORES) .venv/bin/python -m pytest -q

# mmcv without its operators, built in seconds: pre-training and classification do not need them.
# It is not put into pip's cache, where it would hide the build with operators.
.venv/installed: setup.cfg constraints.txt
	@echo 'Installing PyTorch and the OpenMMLab packages into .venv: some minutes, once.'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP) install -q packaging $(shell grep ^torch constraints.txt)
	$(PIP) show -q onedl-mmcv 2> /dev/null || $(PIP) install -q --no-cache-dir --no-deps $(MMCV)
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@

ops: .venv/installed
	test -e .wheels/onedl_mmcv-*.whl || CFLAGS='-O2 -g0' $(PIP) wheel --no-build-isolation \
		--no-deps --no-cache-dir -w .wheels $(MMCV)
	$(PIP) install --force-reinstall --no-deps .wheels/onedl_mmcv-*.whl
