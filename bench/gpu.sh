#!/usr/bin/env bash
# bench/perf_analyzer.sh on a machine with a GPU, and then the same loads with their tensors in CUDA shared memory.
# Options go on to bench/perf_analyzer.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L | grep -q '^GPU'; then
  echo "There is no NVIDIA GPU on this machine: nothing was measured."
  exit 0
fi
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
bench/perf_analyzer.sh "$@"
bench/perf_analyzer.sh --shared-memory cuda "$@"
