// Convolutions through cuDNN. A plan (an engine of cuDNN's with its settings) is chosen once for every ConvKey:
//  - only deterministic engines, of the exactness that Math asks for, with at most kWorkspaceLimit bytes of workspace;
//  - in the order of cuDNN's heuristics. With RETORT_CUDNN_PLANS=FILE the first few are measured instead, and FILE
//    remembers the outcome. Never measured without remembering: a resumed run would pick other engines than the run
//    it continues, and end with other bits;
//  - a plan that cannot be built or run gives way to the next; after the last come the direct kernels of
//    direct_convolution.cu, which can do everything, slowly.
// RETORT_CUDNN_LOG=1 prints every choice to stderr.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/choice_file.h"
#include "kernels/cuda/conv_key.h"
#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/memory.h"

namespace retort::kernels {

class Convolutions {
 public:
  // `kernels` converts; `context` is the device and the versions that a remembered choice holds for.
  Convolutions(Backend& kernels, DeviceMemory& memory, const std::string& context);

  void forward(ConstView x, ConstView w, const ConvEpilogue& epilogue, const ConvParams& params, View y, Stream stream);
  // dx = the gradient, or with `accumulate` dx += it.
  void backward_data(ConstView dy, ConstView w, const ConvParams& params, bool accumulate, View dx, Stream stream);
  void backward_weights(ConstView x, ConstView dy, const ConvParams& params, View dw, Stream stream);

  // A stream has a cuDNN handle of its own: some engines keep internal streams and events in it.
  void add_stream(cudaStream_t stream);
  void remove_stream(cudaStream_t stream) noexcept;

 private:
  static constexpr std::size_t kWorkspaceLimit = std::size_t{1} << 30;
  static constexpr int kMeasured = 8;

  // One convolution to do: x, w and y by their roles in the forward pass.
  struct Call {
    ConvKey key;
    ConvParams params;
    View x, w, y;
    ConvEpilogue epilogue;
    Stream stream;
  };
  struct Candidate {
    EngineConfig engine;
    bool fused;  // with all that follows the convolution; else a kernel of ours does that
    std::string tag() const { return (fused ? "fused " : "") + engine.tag; }
  };
  // What was chosen for a key. The candidates after the current one wait until it has run.
  struct Choice {
    std::vector<ConvGraph> graphs;
    std::vector<Candidate> candidates;
    std::size_t next = 0;
    std::optional<Plan> plan;  // none: the direct kernels
    bool fused = false;
    std::string tag = "direct";
    bool proven = false;

    void drop_the_others();
  };

  void run(const Call& call);
  Choice choose(const Call& call, cudnnHandle_t handle);
  void collect_candidates(Choice& choice, const ConvKey& key, cudnnHandle_t handle);
  std::optional<std::string> measure(Choice& choice, Call call, cudnnHandle_t handle);
  bool take_next(Choice& choice);  // false: no candidate is left
  cudnnStatus_t execute(const Choice& choice, const Call& call, cudnnHandle_t handle);
  cudnnHandle_t handle_for(cudaStream_t stream);

  Backend& kernels_;
  DeviceMemory& memory_;
  ChoiceFile choices_;
  bool log_;
  std::mutex mutex_;
  std::unordered_map<cudaStream_t, CudnnHandle> handles_;
  std::unordered_map<ConvKey, Choice, ConvKeyHash> plans_;
};

}  // namespace retort::kernels
