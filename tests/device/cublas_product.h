// One product of the stand-in for cuBLASLt: what it is, how it may be computed, and its work on the stream.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>

namespace retort::standin {

std::size_t size_of(cudaDataType_t type);

// What a product is, with nothing but its pointers left out: an algorithm is good for this and for nothing else.
struct Problem {
  cudaDataType_t type, scale;
  cublasComputeType_t compute;
  bool transpose_a, transpose_b, bias;
  std::int64_t m, n, k, ld_a, ld_b, ld_c, ld_d;

  bool operator==(const Problem&) const = default;
};

struct Algorithm {
  const char* name;
  std::uint32_t scheme;         // of cublasLtReductionScheme_t; in place: in no order, so other low bits at every run
  std::size_t workspace_bytes;  // beside the sums, which lie in the workspace between two kernels in COMPUTE_TYPE
  std::int64_t terms;           // of a sum that are added before the next partial sum begins
  bool runs = true;
};
std::size_t workspace_of(const Algorithm& algorithm, const Problem& p);

struct Call {
  Problem problem;
  const Algorithm* algorithm;
  double alpha, beta;
  const void *a, *b, *c, *bias;
  void *d, *workspace;
  std::size_t workspace_bytes;

  std::size_t bytes(std::int64_t rows, std::int64_t columns, std::int64_t leading) const {
    return static_cast<std::size_t>((columns - 1) * leading + rows) * size_of(problem.type);
  }
  std::size_t a_bytes() const {
    const Problem& p = problem;
    return p.transpose_a ? bytes(p.k, p.m, p.ld_a) : bytes(p.m, p.k, p.ld_a);
  }
  std::size_t b_bytes() const {
    const Problem& p = problem;
    return p.transpose_b ? bytes(p.n, p.k, p.ld_b) : bytes(p.k, p.n, p.ld_b);
  }
};

// Whether the memory of the operands lies apart where it has to: D may be C, in the same layout, and nothing else.
bool lies_apart(const Call& call);

// Queues the product.
cudaError_t queue(const Call& call, cudaStream_t stream);

}  // namespace retort::standin
