#!/usr/bin/env bash
# What each CUDA kernel takes of a multiprocessor of compute capability 9.0, as nvcc and ptxas say; needs no device.
#   tools/kernel_resources.sh           compares with tests/cuda/kernel_resources.sm_90.txt: exit code 1 for any spill,
#                                       for a kernel that is not in the table, and where a kernel's occupancy fell;
#                                       77 where there is no such compiler
#   tools/kernel_resources.sh --renew   writes the table, to be read through and committed
#   tools/kernel_resources.sh --compare TABLE NOW    the comparison alone
set -euo pipefail
cd "$(dirname "$0")/.."
table=tests/cuda/kernel_resources.sm_90.txt

compare() {
  awk -F'\t' '
    /^#/ { next }
    FILENAME == ARGV[1] { warps[$1] = $6; next }
    { ++kernels }
    $3 > 0 { print "kernel resources: " $1 " spills " $3 " bytes; bound it to fewer blocks or shorten what it keeps"; bad = 1 }
    !($1 in warps) { print "kernel resources: " $1 " is not in the table"; bad = 1; next }
    $6 < warps[$1] {
      print "kernel resources: " $1 ": " $6 " warps fit a multiprocessor, " warps[$1] " did; it takes " $2 \
            " registers and " $4 " bytes of shared memory"
      bad = 1
    }
    END {
      if (!kernels) { print "kernel resources: no kernels"; bad = 1 }
      if (bad) print "kernel resources: where that is meant: tools/kernel_resources.sh --renew, and commit the table"
      exit bad
    }' "$1" "$2"
}
if [[ ${1:-} == --compare ]]; then
  compare "$2" "$3"
  exit
fi

nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
ptxas=$(dirname "$nvcc")/ptxas
if [[ ! -x $nvcc || ! -x $ptxas ]]; then
  echo "kernel resources: skipped: no nvcc (looked for $nvcc)"
  exit 77
fi
version=$("$nvcc" --version | sed -n 's/.*release .*, V\(.*\)/\1/p')
if [[ ${1:-} != --renew ]] && ! grep -qx "# nvcc $version" "$table"; then
  echo "kernel resources: skipped: $table is of another compiler than nvcc $version; tools/kernel_resources.sh --renew"
  exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# PTX says for how many threads a kernel is bounded, ptxas what it takes. ccache keeps the first, which is the slow one.
compile() {
  local name
  name=$(basename "$1" .cu)
  $(command -v ccache) "$nvcc" -std=c++20 -O3 -arch=compute_90 -DFMT_USE_CONSTEXPR=1 -I. -ptx "$1" -o "$2/$name.ptx"
  "$ptxas" -O3 -arch=sm_90 -v "$2/$name.ptx" -o /dev/null 2>"$2/$name.log"
}
export -f compile
export nvcc ptxas
printf '%s\0' kernels/cuda/*.cu | xargs -0 -P "${JOBS:-2}" -I{} bash -c 'compile "$1" "$2"' _ {} "$scratch"

# A multiprocessor has 65,536 registers (given out by 256 to a warp), 64 warps, 32 blocks, 228 KiB of shared memory (a KiB
# of it taken by every block).
awk -v OFS='\t' '
  FILENAME ~ /ptx$/ && /\.entry/ { match($0, /\.entry [^(]*/); entry = substr($0, RSTART + 7, RLENGTH - 7) }
  FILENAME ~ /ptx$/ && /\.maxntid/ { gsub(",", ""); threads[entry] = $2 * ($3 == "" ? 1 : $3) * ($4 == "" ? 1 : $4) }
  FILENAME ~ /log$/ && /Compiling entry function/ { split($0, quoted, "\047"); entry = quoted[2] }
  FILENAME ~ /log$/ && /spill stores/ { for (i = 2; i <= NF; ++i) if ($i == "spill" && $(i + 1) ~ /stores/) spill[entry] = $(i - 2) }
  FILENAME ~ /log$/ && /Used [0-9]+ registers/ {
    registers = shared = 0
    for (i = 2; i <= NF; ++i) {
      if ($i ~ /registers/) registers = $(i - 1)
      if ($i ~ /smem/) shared = $(i - 2)
    }
    block = entry in threads ? threads[entry] : 256
    warps = int((block + 31) / 32)
    by_registers = int(int(65536 / (int((registers * 32 + 255) / 256) * 256)) / warps)
    by_shared = int(228 * 1024 / (shared + 1024))
    blocks = 32
    if (int(64 / warps) < blocks) blocks = int(64 / warps)
    if (by_registers < blocks) blocks = by_registers
    if (by_shared < blocks) blocks = by_shared
    print entry, registers, spill[entry] + 0, shared, block, blocks * warps
  }' "$scratch"/*.ptx "$scratch"/*.log |
  c++filt | sed -E 's/\(anonymous namespace\):://g; s/retort::kernels::(cuda_device::)?//g; s/retort:://g; s/\((bool|int|Mask)\)//g' |
  awk -F'\t' -v OFS='\t' '{ name = $1; sub(/\(.*/, "", name); sub(/^void /, "", name)
    if (seen[name]++) name = name " #" seen[name]
    print name, $2, $3, $4, $5, $6 }' | sort -t $'\t' -k1,1 >"$scratch/now"

if [[ ${1:-} == --renew ]]; then
  {
    echo "# Kernels of kernels/cuda for compute capability 9.0; written by tools/kernel_resources.sh --renew"
    echo "# nvcc $version"
    echo "# kernel, registers, bytes spilled, bytes of shared memory (static), threads a block (256 where no bound says),"
    echo "# warps of 64 that fit a multiprocessor"
    cat "$scratch/now"
  } >"$table"
  echo "kernel resources: $(wc -l <"$scratch/now") kernels in $table"
  exit
fi
compare "$table" "$scratch/now"
echo "kernel resources: $(wc -l <"$scratch/now") kernels as in $table or better"
