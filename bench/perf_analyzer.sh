#!/usr/bin/env bash
# NVIDIA's perf_analyzer against our V2 and against Triton itself, in one interleaved run: a table with ratios.
# Options go on: --quick, --draws N, --only NAME, --json FILE; --source for the adapter as it is, not compiled.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
export PYTHON
analyzer=$(bench/get_perf_analyzer.sh)
exec "$PYTHON" -m bench.perf_analyzer --analyzer "$analyzer" "$@"
