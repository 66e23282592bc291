#!/usr/bin/env bash
# Prints a command that runs NVIDIA's perf_analyzer; what is on PATH already, or else the one from PyPI, put into
# build/perf_analyzer. That wheel needs glibc 2.38: on an older Debian the libraries of Debian 13 are unpacked
# beside it, and it is started through their own loader. Nothing is installed, root is not needed.
set -euo pipefail
VERSION=2.60.0
PYTHON=${PYTHON:-.venv/bin/python}
target=$PWD/build/perf_analyzer
start=$target/perf_analyzer

if found=$(command -v perf_analyzer) && "$found" --version >/dev/null 2>&1; then
  echo "$found"
  exit
fi
if [ -x "$start" ] && "$start" --version >/dev/null 2>&1; then
  echo "$start"
  exit
fi

{
  mkdir -p "$target/wheel"
  # By its platform, or pip takes an old placeholder where glibc is older.
  "$PYTHON" -m pip download -q --no-deps --only-binary=:all: --platform manylinux_2_38_x86_64 \
    -d "$target/wheel" "perf-analyzer==$VERSION"
  "$PYTHON" -m zipfile -e "$target"/wheel/*.whl "$target/wheel"
  binary=$target/wheel/perf_analyzer/bin/perf_analyzer
  chmod +x "$binary"
  if "$binary" --version >/dev/null 2>&1; then
    ln -sf "$binary" "$start"
  else
    apt=$target/apt
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/debs" "$target/root"
    # Debian's mirror is the one that this machine uses.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$')
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/sources.list"
    options=(
      -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
      -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt" -o Dir::State::status=/dev/null
      -o APT::Sandbox::User="$(id -un)" -q
    )
    apt-get "${options[@]}" update
    (cd "$apt/debs" && apt-get "${options[@]}" download libc6 libstdc++6 libgcc-s1 libssl3t64 zlib1g libzstd1)
    for deb in "$apt"/debs/*.deb; do
      dpkg-deb -x "$deb" "$target/root"
    done
    libraries=$target/root/usr/lib/x86_64-linux-gnu:$target/root/lib/x86_64-linux-gnu
    printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
      "$(find "$target/root" -name 'ld-linux-x86-64.so.2' | head -n1)" "$libraries" "$binary" >"$start"
    chmod +x "$start"
  fi
  "$start" --version
} >&2
echo "$start"
