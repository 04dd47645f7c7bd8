#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can tell: builds with CUDA, runs all tests on the device, the
# compute-sanitizer tools on the kernel tests, then benchmarks with PyTorch in the same run. Writes ONE JSON.
#
#     tools/gpu_check.sh [--output FILE] [STAGE ...]
#
# STAGE: build, test, sanitize, bench (all, in this order, when none is named). The file gathers the stages' results
# over several calls, so that a machine with a time limit can take them one by one.
#
# Environment:
#   RETORT_PREFIX             folder of unpacked Debian packages (tools/unpack_debs.sh), where none can be installed
#   RETORT_GPU_BUILD          build folder (build-gpu)
#   CMAKE_CUDA_ARCHITECTURES  instead of the device's own
#   RETORT_BENCH_ARGUMENTS    passed on to tests/bench/compare_gpu.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "gpu_check: $*" >&2; exit 1; }
usage() { sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

build=${RETORT_GPU_BUILD:-build-gpu}
output=
stages=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --output) [[ $# -ge 2 ]] || { usage >&2; exit 2; }; output=$2; shift ;;
    build | test | sanitize | bench) stages+=("$1") ;;
    -h | --help) usage; exit 0 ;;
    *) echo "gpu_check: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
[[ ${#stages[@]} -gt 0 ]] || stages=(build test sanitize bench)

# --- what must be there ------------------------------------------------------------------------------------------
command -v nvidia-smi >/dev/null || fail "no NVIDIA GPU here: nvidia-smi was not found; run this on a machine with a GPU and its driver"
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader 2>/dev/null | head -n 1) || true
[[ -n $gpu && $gpu != *"No devices"* ]] || fail "no NVIDIA GPU here: nvidia-smi lists no device"
command -v python3 >/dev/null || fail "python3 was not found: it writes the report and runs the benchmarks"
capability=$(sed 's/.*, *//; s/\.//' <<<"$gpu")

if [[ -n ${RETORT_PREFIX:-} ]]; then
  [[ -d $RETORT_PREFIX/usr ]] || fail "RETORT_PREFIX=$RETORT_PREFIX has no usr folder: fill it with tools/unpack_debs.sh"
  prefix=$(realpath "$RETORT_PREFIX")/usr
  libraries=$prefix/lib/$(uname -m)-linux-gnu
  export CMAKE_PREFIX_PATH=$prefix${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
  export CPATH=$prefix/include${CPATH:+:$CPATH}
  export LIBRARY_PATH=$libraries${LIBRARY_PATH:+:$LIBRARY_PATH}
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
mkdir -p "$build/gpu_check"
results=$(realpath "$build/gpu_check")
output=${output:-tests/bench/results/gpu_check.json}

# cuDNN and cuBLAS often come with PyTorch instead of the toolkit: as Python packages without the names that a linker
# looks for. Gives them those names in a folder of ours.
libraries_of_python() {
  local packages=$1 links=$results/lib library name
  mkdir -p "$links"
  for library in "$packages"/*/lib/lib{cudnn,cublas,cublasLt,nvrtc}*.so.*; do
    [[ -e $library ]] || continue
    ln -sf "$library" "$links/"
    name=$(basename "$library")
    ln -sf "$library" "$links/${name%%.so*}.so"
  done
  for folder in "$packages"/*/include; do
    [[ -d $folder ]] && export CPATH=${CPATH:+$CPATH:}$folder
  done
  export CMAKE_LIBRARY_PATH=$links${CMAKE_LIBRARY_PATH:+:$CMAKE_LIBRARY_PATH}
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$links
}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[[ -x $nvcc ]] || fail "nvcc was not found: put the CUDA toolkit's bin folder on PATH"
toolkit=$(dirname "$(dirname "$(realpath "$nvcc")")")
cuda_options=()
if ! compgen -G "$toolkit/include/cudnn_version.h" >/dev/null && [[ ! -e /usr/include/cudnn_version.h &&
  ! -e /usr/include/$(uname -m)-linux-gnu/cudnn_version.h ]]; then
  packages=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null) || packages=
  header=$(compgen -G "$packages/*/include/cudnn_version.h" | head -n 1) || true
  [[ -n $packages && -n $header ]] || fail "cuDNN was not found beside $nvcc, in /usr/include or in python3's packages"
  libraries_of_python "$packages"
  cuda_options=("-DCUDNN_INCLUDE_DIR=$(dirname "$header")" "-DCUDNN_LIBRARY=$results/lib/libcudnn.so")
fi

# --- stages: each leaves $results/<stage>.json -----------------------------------------------------------------------
# write <stage> key=value ...: values that read as JSON are taken as such.
write() {
  python3 - "$results/$1.json" "${@:2}" <<'PYTHON'
import json, sys
document = {}
for pair in sys.argv[2:]:
    key, _, value = pair.partition("=")
    try:
        document[key] = json.loads(value)
    except ValueError:
        document[key] = value
with open(sys.argv[1], "w") as file:
    json.dump(document, file)
PYTHON
}

stage_build() {
  cmake --preset cuda -B "$build" -DCMAKE_CUDA_ARCHITECTURES="${CMAKE_CUDA_ARCHITECTURES:-$capability}" "${cuda_options[@]}" \
    >"$results/configure.log" 2>&1 || { tail -n 20 "$results/configure.log" >&2; fail "configuring failed (see above)"; }
  grep "Retort:" "$results/configure.log"
  local start=$SECONDS
  cmake --build "$build" --parallel "$(nproc)" >"$results/build.log" 2>&1 || { tail -n 40 "$results/build.log" >&2; fail "the build failed (see above; all of it in $results/build.log)"; }
  local warnings
  warnings=$(grep -c "warning" "$results/build.log" || true)
  echo "built in $((SECONDS - start)) s, $warnings warnings"
  write build seconds=$((SECONDS - start)) warnings="$warnings" \
    cuda="$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')" \
    architectures="\"${CMAKE_CUDA_ARCHITECTURES:-$capability}\""
}

stage_test() {
  local start=$SECONDS status=0
  (cd "$build" && ctest --output-junit "$results/tests.xml" --parallel 4 --timeout 600 --no-tests=error) >"$results/tests.log" 2>&1 || status=$?
  tail -n 15 "$results/tests.log"
  python3 - "$results/tests.xml" "$results/test.json" $((SECONDS - start)) <<'PYTHON'
import json, sys, xml.etree.ElementTree as tree
cases = tree.parse(sys.argv[1]).getroot().findall("testcase")
def names(status):
    return sorted(c.get("name") for c in cases if c.get("status") == status)
skipped = sorted(c.get("name") for c in cases if c.get("status") in ("notrun", "disabled") or c.find("skipped") is not None)
json.dump({"tests": len(cases), "failed": names("fail"), "skipped": skipped, "seconds": int(sys.argv[3])}, open(sys.argv[2], "w"))
PYTHON
  return $status
}

stage_sanitize() {
  local sanitizer tool options filter="Table/*:CudaBackendTest.*" status=0 entries=() begun outcome
  sanitizer=$(command -v compute-sanitizer || echo "$toolkit/bin/compute-sanitizer")
  [[ -x $sanitizer ]] || fail "compute-sanitizer was not found: it comes with the CUDA toolkit"
  for tool in memcheck racecheck synccheck initcheck; do
    # Our kernels only: cuDNN's read padding that nobody wrote. Errors of calls are the tests' business.
    options=(--tool "$tool" --error-exitcode 9 --kernel-name kernel_substring=retort)
    [[ $tool == memcheck ]] && options+=(--report-api-errors no)
    begun=$SECONDS outcome=clean
    "$sanitizer" "${options[@]}" "$build/tests/retort_tests" --gtest_filter="$filter" --gtest_brief=1 \
      >"$results/$tool.log" 2>&1 || { outcome=problems; status=1; tail -n 30 "$results/$tool.log" >&2; }
    echo "$tool: $outcome, $((SECONDS - begun)) s"
    entries+=("$tool={\"outcome\": \"$outcome\", \"seconds\": $((SECONDS - begun))}")
  done
  write sanitize "${entries[@]}"
  return $status
}

stage_bench() {
  local bench
  bench=$(find "$build" -name step_bench -type f -perm -u+x | head -n 1)
  [[ -n $bench ]] || fail "step_bench was not built: run the stage build first"
  # shellcheck disable=SC2086
  python3 tests/bench/compare_gpu.py --build "$(dirname "$bench")" --output "$results/bench.json" ${RETORT_BENCH_ARGUMENTS:-}
}

# --- the report -------------------------------------------------------------------------------------------------------
report() {
  mkdir -p "$(dirname "$output")"
  python3 - "$results" "$output" "$gpu" <<'PYTHON'
import datetime, glob, json, os, re, subprocess, sys
results, output, gpu = sys.argv[1:4]
name, driver, memory, capability = (field.strip() for field in gpu.split(","))
def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
def stage(name):
    path = os.path.join(results, name + ".json")
    return json.load(open(path)) if os.path.exists(path) else None
cudnn = None
cache = os.path.join(os.path.dirname(results), "CMakeCache.txt")
if os.path.exists(cache):
    folder = re.search(r"^CUDNN_INCLUDE_DIR:PATH=(.*)$", open(cache).read(), re.M)
    header = folder and os.path.join(folder.group(1), "cudnn_version.h")
    for path in [header] + (glob.glob(os.path.join(folder.group(1), "cudnn_version_v*.h")) if folder else []):
        text = open(path).read() if path and os.path.exists(path) else ""
        numbers = [re.search(rf"#define CUDNN_{part}\s+(\d+)", text) for part in ("MAJOR", "MINOR", "PATCHLEVEL")]
        if all(numbers):
            cudnn = ".".join(n.group(1) for n in numbers)
build = stage("build") or {}
document = {
    "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    "commit": run("git", "rev-parse", "HEAD"),
    "device": {"gpu": name, "memory": memory, "compute_capability": capability, "driver": driver},
    "versions": {"cuda": build.get("cuda"), "cudnn": cudnn,
                 "pytorch": run("python3", "-c", "import torch; print(torch.__version__)")},
    "build": build or None, "tests": stage("test"), "sanitizer": stage("sanitize"), "benchmarks": stage("bench"),
}
with open(output + ".part", "w") as file:
    json.dump(document, file, indent=1)
    file.write("\n")
os.replace(output + ".part", output)
print("written:", output)
PYTHON
}

echo "gpu_check: $gpu"
failed=()
for stage in "${stages[@]}"; do
  printf '\n== %s\n' "$stage"
  rm -f "$results/$stage.json"
  # A stage that fails is in the report, and the others still have their turn; without a build nothing has.
  set +e  # not as a condition: inside one, set -e of the stage would count for nothing
  (set -e; "stage_$stage")
  status=$?
  set -e
  if [[ $status -ne 0 ]]; then
    failed+=("$stage")
    [[ $stage != build ]] || break
  fi
done
echo
report
[[ ${#failed[@]} -eq 0 ]] || fail "failed: ${failed[*]}"
echo "gpu_check: all stages passed"
