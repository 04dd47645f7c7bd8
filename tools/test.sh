#!/usr/bin/env bash
# Set-up, build and all tests: tools/test.sh [--no-setup] [preset]     (preset: default, cpu, cuda or asan)
# CMAKE_CUDA_ARCHITECTURES in the environment chooses the CUDA architectures, for example 90; RETORT_SIMT_SANITIZE=ON
# runs the CUDA kernels on the CPU with ASan and UBSan as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; }
setup=yes
preset=default
for argument in "$@"; do
  case $argument in
    --no-setup) setup=no ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "test: unknown option $argument" >&2; usage >&2; exit 2 ;;
    *) preset=$argument ;;
  esac
done

start=$SECONDS
step() { printf '\n== %s  [%d:%02d]\n' "$1" $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)); }
trap 'echo "test: failed while: ${doing:-starting}" >&2' ERR

if [[ $setup == yes ]]; then
  doing="set-up"; step "$doing"
  tools/setup.sh
fi
doing="configuring (preset $preset)"; step "$doing"
cmake --preset "$preset" -DRETORT_TESTS=ON ${CMAKE_CUDA_ARCHITECTURES:+-DCMAKE_CUDA_ARCHITECTURES="$CMAKE_CUDA_ARCHITECTURES"} \
  ${RETORT_SIMT_SANITIZE:+-DRETORT_SIMT_SANITIZE="$RETORT_SIMT_SANITIZE"}
doing="building"; step "$doing"
cmake --build --preset "$preset" --parallel "$(nproc)"
doing="testing"; step "$doing"
# As many tests as cores side by side: with threads of their own each they wait for one another, several times as long.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} ctest --preset "$preset" --parallel "$(nproc)" --timeout 600 --no-tests=error

step "all tests passed (preset $preset)"
