#!/usr/bin/env bash
# Everything that CI checks: installs what is needed, builds, runs all tests. Arguments go to ctest (-R name, -L label).
source "$(dirname "$0")/setup.sh"

install_packages "${PACKAGES[@]}"
install_python_packages requirements.txt requirements-test-assets.txt

say "format"
scripts/check_format.sh

build engine
say "tests: engine"
ctest --preset engine -j 2 "$@"

build cpu-asan
say "tests: kernel library and file formats under AddressSanitizer and UndefinedBehaviorSanitizer"
ctest --preset cpu-asan -j 2 "$@"

if command -v nvcc >/dev/null; then
  build cuda
else
  say "no nvcc: the CUDA sources were not compiled"
fi
say "all passed"
