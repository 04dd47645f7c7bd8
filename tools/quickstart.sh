#!/usr/bin/env bash
# From a fresh clone to a distilled network: set-up, build, data, a teacher, and two students, one taught and one not.
# Under 10 minutes on two CPU cores.
#
#     tools/quickstart.sh [--set key=value ...]   passes --set on to ./train and ./distill: --set train.epochs=2
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

start=$SECONDS
begun=$SECONDS
heading=
finish_step() { [[ -z $heading ]] || printf -- '-- %s: %d s\n' "$heading" $((SECONDS - begun)); }
step() {
  finish_step
  heading=$1 begun=$SECONDS
  printf '\n== %s\n' "$heading"
}
trap 'echo "quickstart: failed in step: $heading" >&2' ERR

step "set-up"
tools/setup.sh

step "build"
preset=cpu
if command -v nvcc >/dev/null && nvidia-smi -L >/dev/null 2>&1; then preset=default; fi
echo "preset $preset; the programs (tools/test.sh builds tests and benchmarks too)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() { "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; return 1; }; }
precompile=()
if [[ ! -d build ]]; then precompile=(-DRETORT_PRECOMPILE=ON); fi # nothing is in a compiler cache yet
quietly cmake --preset "$preset" "${precompile[@]}"
quietly cmake --build --preset "$preset" --parallel "$(nproc)" --target train distill evaluate predict export runs dataset

step "data"
export RETORT_DATASETS=${RETORT_DATASETS:-$PWD/datasets}
teacher=() students=()
if [[ -f $RETORT_DATASETS/cifar-100-binary/train.bin ]]; then
  echo "CIFAR-100 is in $RETORT_DATASETS"
elif build/dataset cifar100; then
  echo "CIFAR-100 fetched into $RETORT_DATASETS"
else
  echo "CIFAR-100 is neither in $RETORT_DATASETS nor to be had from its address: training on the built-in set 'shapes'"
  teacher=(--set data.dataset=shapes --set data.validation=1000 --set optimizer.lr=0.1 --set train.epochs=6)
  students=("${teacher[@]}" --set data.fraction=0.5 --set train.epochs=8) # a fifth of so few images is not enough
fi

step "teacher (configs/quickstart_teacher.cfg)"
build/train configs/quickstart_teacher.cfg "${teacher[@]}" "$@"

step "students, one without and one with the teacher (configs/quickstart.cfg)"
build/distill configs/quickstart.cfg "${students[@]}" "$@"

step "validation accuracy after each epoch"
run=$(ls -d runs/quickstart/v* | sort -V | tail -n 1)
# curves.csv: group, epoch, ..., val_top1_mean, val_top1_sd
awk -F, 'NR > 1 { bar = sprintf("%*s", 60 * $10, ""); gsub(/ /, "#", bar); printf "%-10s %3d  %5.2f %%  %s\n", $1, $2, 100 * $10, bar }' "$run/curves.csv"
echo "everything about the run is in $run: results.txt is the table above"
finish_step
printf '\nfrom clone to result: %d:%02d minutes\n' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60))
