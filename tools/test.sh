#!/usr/bin/env bash
# Set-up, build and all tests: tools/test.sh [--no-setup] [preset]     (preset: default, cpu, cuda, asan or standin)
# Behind the preset default comes standin, the CUDA backend on a stand-in device, where the headers of the CUDA toolkit
# and of cuDNN are found. CMAKE_CUDA_ARCHITECTURES in the environment chooses the CUDA architectures, for example 90;
# RETORT_SIMT_SANITIZE=ON runs the CUDA kernels on the CPU with ASan and UBSan as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}"; }
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
configure() {
  cmake --preset "$1" -DRETORT_TESTS=ON ${CMAKE_CUDA_ARCHITECTURES:+-DCMAKE_CUDA_ARCHITECTURES="$CMAKE_CUDA_ARCHITECTURES"} \
    ${RETORT_SIMT_SANITIZE:+-DRETORT_SIMT_SANITIZE="$RETORT_SIMT_SANITIZE"}
}
# Of the stand-in device only what needs it: all else is the same as in the other builds.
build_and_test() {
  local targets=() tests=()
  [[ $1 != standin ]] || { targets=(--target retort_device_tests); tests=(--tests-regex '^device\.'); }
  doing="building (preset $1)"; step "$doing"
  cmake --build --preset "$1" --parallel "$(nproc)" "${targets[@]}"
  doing="testing (preset $1)"; step "$doing"
  # As many tests as cores side by side: with threads of their own each they wait for one another, several times as long.
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} ctest --preset "$1" --parallel "$(nproc)" --timeout 600 --no-tests=error "${tests[@]}"
}

doing="configuring (preset $preset)"; step "$doing"
configure "$preset"
build_and_test "$preset"
if [[ $preset == default ]]; then
  doing="configuring (preset standin)"; step "$doing"
  if output=$(configure standin 2>&1); then
    grep 'Retort: ' <<<"$output"
    build_and_test standin
    preset="$preset and standin"
  elif grep -q 'RETORT_CUDA=STANDIN needs' <<<"$output"; then
    echo "test: no tests on the stand-in device: $(grep -A2 'RETORT_CUDA=STANDIN needs' <<<"$output" | tr -s '\n ' ' ')"
  else
    echo "$output"
    false
  fi
fi

step "all tests passed (preset $preset)"
