#!/usr/bin/env bash
# Fails, naming the files, when C++ or CUDA sources differ from what clang-format makes of them.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files -- '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -r .venv/bin/clang-format --dry-run --Werror
