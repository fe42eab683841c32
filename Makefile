# make demo              pre-train on the embedded data and write demo_out/report.html
# make demo DATA=DIR     the same on your own images
# make demo-dense        then detection and segmentation, demo_out/report_dense.html
# make test              lint and tests
# make ops               mmdet, mmseg and mmcv's operators, which detection and segmentation need
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
PYTHON ?= python3
PIP := .venv/bin/python -m pip --disable-pip-version-check
MMCV := $(shell grep onedl-mmcv constraints.txt)
# A thread pool per core and process is enough: more of them slow each other down.
CORES := $(shell nproc)

# mmcv's operators take minutes to compile: wheels are kept here.
WHEELS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cae_mm

.PHONY: demo demo-dense test ops
demo: .venv/installed
	OMP_NUM_THREADS=$(CORES) .venv/bin/python demo/demo.py $(if $(OUT),--out '$(OUT)') \
		$(if $(DATA),--data '$(DATA)') $(if $(FORCE),--force)

demo-dense: .venv/dense
	OMP_NUM_THREADS=$(CORES) .venv/bin/python demo/demo_dense.py $(if $(OUT),--out '$(OUT)') \
		$(if $(FORCE),--force)

test: .venv/dense
	.venv/bin/ruff check .
	OMP_NUM_THREADS=$(CORES) .venv/bin/python -m pytest -q

ops: .venv/dense

# mmcv without its operators, built in seconds: pre-training and classification do not need them.
# It is not put into pip's cache, where it would hide the build with operators.
.venv/installed: setup.cfg constraints.txt
	@echo 'Installing PyTorch and the OpenMMLab packages into .venv: some minutes, once.'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP) install -q packaging $(shell grep ^torch constraints.txt)
	$(PIP) show -q onedl-mmcv 2> /dev/null || $(PIP) install -q --no-cache-dir --no-deps $(MMCV)
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@

# A wheel is for one version of Python and PyTorch, with CUDA or without.
.venv/dense: .venv/installed
	@kind=$$(.venv/bin/python -c 'import sys, torch; print("py%d%d" % sys.version_info[:2], "torch" \
		+ torch.__version__, "cuda" if torch.cuda.is_available() else "cpu", sep="-")'); \
	folder='$(WHEELS)'/$(subst ==,-,$(MMCV))-$$kind; \
	ls "$$folder"/*.whl &> /dev/null || { \
		echo "Compiling mmcv's operators into $$folder: six minutes on 2 cores, once."; \
		CFLAGS='-O2 -g0' $(PIP) wheel --no-build-isolation --no-deps --no-cache-dir -w "$$folder" \
			$(MMCV); \
	}; \
	$(PIP) install -q --force-reinstall --no-deps "$$folder"/*.whl
	$(PIP) install -q -c constraints.txt -e '.[dev,det,seg]'
	.venv/bin/python -W ignore -c 'import mmcv.ops, mmdet.models, mmseg.models'
	touch $@
