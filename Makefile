# `make up` runs everything on this machine; `make test` tests it. Both set up .venv first.

PYTHON ?= $(firstword $(foreach v,3.12 3.11,$(shell python$(v) -c 'import sys; print(sys.executable)' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
IMAGENET := model_repository/efficientnet-lite0/1/model.onnx

.PHONY: up test lint format lock clean

up: $(VENV)/.installed $(IMAGENET)
	$(BIN)/miaas-adapter up $(ARGS)

test: $(VENV)/.installed $(IMAGENET)
	$(BIN)/python -m pytest $(ARGS)
	$(MAKE) --no-print-directory test-numpy2

