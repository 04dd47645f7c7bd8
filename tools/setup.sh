#!/usr/bin/env bash
# Installs the Debian packages that Retort is built from and nothing else: only those that are missing.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache                   # compiler and build
  libdnnl-dev ocl-icd-opencl-dev                 # oneDNN (its CMake config asks for OpenCL)
  libfmt-dev nlohmann-json3-dev libtomlplusplus-dev libcli11-dev libstb-dev
  libarchive-dev                                 # tests: zip archives of every kind
  libonnx-dev libprotobuf-dev                    # ONNX files
  libjpeg62-turbo-dev libpng-dev                 # photographs
  libboost-context-dev libgtest-dev libgmock-dev libbenchmark-dev  # tests and benchmarks
  libonnx-testdata                               # the ONNX project's own node tests
  tmux                                           # the test of the progress bar in a real terminal
  curl ca-certificates xz-utils libssl-dev       # fetching and verifying data sets
)

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done

if [[ ${#missing[@]} -eq 0 ]]; then
  say "all ${#packages[@]} packages are there, nothing to install"
  exit 0
fi
command -v apt-get >/dev/null || fail "apt-get not found (this is made for Debian 12); install what stands for: ${missing[*]}"

as_root=()
if [[ $EUID -ne 0 ]]; then
  command -v sudo >/dev/null || fail "neither root nor sudo; as root run: apt-get install --no-install-recommends ${missing[*]}"
  as_root=(sudo)
fi

say "installing ${#missing[@]} Debian packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 && return
  tail -n 15 "$log" >&2
  fail "apt-get $1 failed (its last lines are above)"
}
apt update
apt install -y --no-install-recommends "${missing[@]}"
say "done"
