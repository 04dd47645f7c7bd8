#!/usr/bin/env bash
# Fills a folder with the Debian packages that Retort needs, without installing anything: for a build on a machine
# where nothing can be installed, which then gets the folder as RETORT_PREFIX (see tools/gpu_check.sh).
#
#     tools/unpack_debs.sh FOLDER [PACKAGE ...]
#
# PACKAGE: instead of all those of the list below, those that the other machine lacks. Boost's headers are cut down to
# those that Boost.Context needs: all of them are 140 MB. Run it on the Debian release that the packages are to be of.
set -euo pipefail

fail() { echo "unpack_debs: $*" >&2; exit 1; }
[[ $# -ge 1 && $1 != -* ]] || { sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
folder=$1
shift

packages=(
  libdnnl-dev libdnnl2 opencl-c-headers ocl-icd-opencl-dev ocl-icd-libopencl1  # oneDNN, whose CMake config wants OpenCL
  libfmt-dev libfmt9 nlohmann-json3-dev libtomlplusplus-dev libtomlplusplus3 libcli11-dev libstb-dev libstb0
  libonnx-dev libonnx1 libprotobuf-dev libprotobuf32
  libjpeg62-turbo-dev libjpeg62-turbo libpng-dev libpng16-16 zlib1g-dev  # photographs
  libboost1.74-dev libboost-context1.74-dev libboost-context1.74.0
  libgtest-dev googletest libgmock-dev libbenchmark-dev libbenchmark1debian
)
[[ $# -eq 0 ]] || packages=("$@")

command -v apt-get >/dev/null && command -v dpkg >/dev/null || fail "apt-get and dpkg are needed (this is made for Debian)"
mkdir -p "$folder"
folder=$(realpath "$folder")
downloads=$(mktemp -d)
trap 'rm -rf "$downloads"' EXIT
chmod 755 "$downloads"
log=$downloads/log

wanted=()
for package in "${packages[@]}"; do
  if apt-cache show "$package" >/dev/null 2>&1; then
    wanted+=("$package")
  else
    echo "unpack_debs: this release has no package $package; left out" >&2
  fi
done
[[ ${#wanted[@]} -gt 0 ]] || fail "none of the packages is known; run apt-get update first"
(cd "$downloads" && apt-get -q download "${wanted[@]}" >"$log" 2>&1) || { tail -n 5 "$log" >&2; fail "apt-get download failed"; }
for deb in "$downloads"/*.deb; do
  dpkg -x "$deb" "$folder"
done

# Documentation and sources are of no use to a build; googletest's libraries lie beside its headers.
rm -rf "$folder"/usr/share/{doc,man,lintian,bug} "$folder"/usr/src

boost=$folder/usr/include/boost
if [[ -d $boost ]]; then
  printf '#include <boost/context/fiber.hpp>\n#include <boost/context/fixedsize_stack.hpp>\n#include <boost/context/pooled_fixedsize_stack.hpp>\n#include <boost/context/preallocated.hpp>\n#include <boost/context/protected_fixedsize_stack.hpp>\n#include <boost/version.hpp>\n' >"$downloads/boost.cpp"
  # With every switch that brings further headers in; BOOST_USE_UCONTEXT is what AddressSanitizer builds use.
  for switches in "" "-DBOOST_USE_ASAN -DBOOST_USE_UCONTEXT"; do
    # shellcheck disable=SC2086
    g++ -std=c++20 $switches -I "$folder/usr/include" -M "$downloads/boost.cpp" | tr ' \\' '\n\n' | grep "^$boost/" || true
  done | sort -u >"$downloads/keep"
  [[ -s $downloads/keep ]] || fail "no Boost header found to keep"
  find "$boost" -type f | sort | comm -23 - "$downloads/keep" | xargs -r rm -f
  find "$boost" -type d -empty -delete
fi

echo "unpack_debs: $(ls "$downloads"/*.deb | wc -l) packages, $(du -sm "$folder" | cut -f1) MB in $folder"
