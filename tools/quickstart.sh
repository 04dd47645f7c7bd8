#!/usr/bin/env bash
# From a fresh clone to a trained network: set-up, build, data, training, result. Under 10 minutes on two CPU cores.
#
#     tools/quickstart.sh [--set key=value ...]        passes --set on to ./train, for example --set train.epochs=2
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
echo "preset $preset; only what training needs (tools/test.sh builds the rest)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() { "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; return 1; }; }
quietly cmake --preset "$preset"
quietly cmake --build --preset "$preset" --parallel "$(nproc)" --target train dataset

step "data"
export RETORT_DATASETS=${RETORT_DATASETS:-$PWD/datasets}
chosen=()
if [[ -f $RETORT_DATASETS/cifar-100-binary/train.bin ]]; then
  echo "CIFAR-100 is in $RETORT_DATASETS"
elif build/dataset cifar100; then
  echo "CIFAR-100 fetched into $RETORT_DATASETS"
else
  echo "CIFAR-100 is neither in $RETORT_DATASETS nor to be had from its address: training on the built-in set 'shapes'"
  chosen=(--set data.dataset=shapes)
fi

step "training (configs/quickstart.cfg)"
build/train configs/quickstart.cfg "${chosen[@]}" "$@"

step "result"
run=$(ls -d runs/quickstart/v* | sort -V | tail -n 1)
echo "validation accuracy after each epoch"
# One JSON object a line; of an epoch's, the epoch and val.top1.
sed -nE '/"kind": ?"epoch"/{s/.*"epoch": ?([0-9]+)[,}].*"val": ?\{[^}]*"top1": ?([0-9.eE+-]+).*/\1 \2/p}' "$run/metrics.jsonl" |
  awk '{ bar = ""; for (i = 0; i < $2 * 60; i++) bar = bar "#"; printf "%4d  %5.2f %%  %s\n", $1, 100 * $2, bar }'
sed -nE '/"kind": ?"test"/{s/.*"checkpoint": ?"([a-z]+)".*"top1": ?([0-9.eE+-]+).*/\1 \2/p}' "$run/metrics.jsonl" |
  awk '{ printf "test accuracy of the %s checkpoint: %.2f %%\n", $1, 100 * $2 }'
echo "everything about the run is in $run"
finish_step
printf '\nfrom clone to result: %d:%02d minutes\n' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60))
