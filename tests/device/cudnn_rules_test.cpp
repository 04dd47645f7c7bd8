// What the stand-in for cuDNN refuses: one case for each rule, in a graph or a call that is right but for that.
#include <gmock/gmock.h>

#include <array>
#include <functional>
#include <string>

#include "tests/device/cudnn.h"
#include "tests/device/cudnn_graphs.h"
#include "tests/device/device_array.h"

namespace retort::standin {
namespace {

using testing::HasSubstr;

std::string last_error() {
  std::array<char, 256> text{};
  cudnnGetLastErrorString(text.data(), text.size());
  return text.data();
}

// --- attributes -----------------------------------------------------------------------------------------------------

TEST(CudnnAttributes, AreCheckedWhenTheyAreSet) {
  RawDescriptor t(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  EXPECT_EQ(t.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, {2}), CUDNN_STATUS_BAD_PARAM);
  EXPECT_THAT(last_error(), HasSubstr("attribute 106 of a TENSOR descriptor"));
  EXPECT_EQ(last_error(), "");
  EXPECT_EQ(t.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_DATA_FLOAT), CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE);
  EXPECT_EQ(t.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, {1, 2}), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(t.set(CUDNN_ATTR_TENSOR_DIMENSIONS, {1, 2, 3, 4, 5, 6, 7, 8, 9}), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(t.set(CUDNN_ATTR_TENSOR_DIMENSIONS, std::vector<std::int64_t>{}), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(cudnnBackendSetAttribute(t.get(), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, nullptr),
            CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
  RawDescriptor operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
  EXPECT_EQ(operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, t), CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED);
  EXPECT_EQ(operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, operation),
            CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE);
  EXPECT_EQ(operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_TYPE_FLOAT, std::vector{1.0f}),
            CUDNN_STATUS_BAD_PARAM);
  RawDescriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  EXPECT_EQ(plan.set(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, {1}), CUDNN_STATUS_BAD_PARAM);
}

void fill_tensor(RawDescriptor& t) {
  EXPECT_EQ(t.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_FLOAT), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(t.set(CUDNN_ATTR_TENSOR_DIMENSIONS, {2, 3, 4, 5}), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(t.set(CUDNN_ATTR_TENSOR_STRIDES, {60, 1, 15, 3}), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(t.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, {7}), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(t.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {16}), CUDNN_STATUS_SUCCESS);
}

TEST(CudnnAttributes, AreSetBeforeAndReadAfterFinalize) {
  RawDescriptor t(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  fill_tensor(t);
  std::int64_t count = 0;
  Four dims{};
  const auto read = [&](std::int64_t requested) {
    return cudnnBackendGetAttribute(t.get(), CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, requested, &count,
                                    dims.data());
  };
  EXPECT_EQ(read(4), CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED);
  EXPECT_EQ(t.finalize(), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(t.finalize(), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(t.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, {8}), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(read(2), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(count, 4);
  EXPECT_EQ(dims, (Four{2, 3, 0, 0}));
  std::array<std::int64_t, 2> ids{};
  EXPECT_EQ(cudnnBackendGetAttribute(t.get(), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 2, &count, ids.data()),
            CUDNN_STATUS_BAD_PARAM);
}

TEST(CudnnAttributes, AreNeededAndMustFit) {
  const auto refused = [](const char* what, const std::function<void(RawDescriptor&)>& change) {
    RawDescriptor t(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    fill_tensor(t);
    change(t);
    EXPECT_EQ(t.finalize(), CUDNN_STATUS_BAD_PARAM) << what;
  };
  RawDescriptor empty(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  EXPECT_EQ(empty.finalize(), CUDNN_STATUS_BAD_PARAM);
  refused("fewer strides", [](RawDescriptor& t) { t.set(CUDNN_ATTR_TENSOR_STRIDES, {60, 1, 15}); });
  refused("no elements", [](RawDescriptor& t) { t.set(CUDNN_ATTR_TENSOR_DIMENSIONS, {2, 0, 4, 5}); });
  refused("stride 0", [](RawDescriptor& t) { t.set(CUDNN_ATTR_TENSOR_STRIDES, {60, 0, 15, 3}); });
  refused("alignment", [](RawDescriptor& t) { t.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {12}); });
}

TEST(CudnnDescriptorsStandIn, AreKnownWhenTheyWereDestroyed) {
  const std::size_t before = live_cudnn_descriptors();
  cudnnBackendDescriptor_t raw = nullptr;
  ASSERT_EQ(cudnnBackendCreateDescriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR, &raw), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(live_cudnn_descriptors(), before + 1);
  EXPECT_EQ(cudnnBackendDestroyDescriptor(raw), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(cudnnBackendDestroyDescriptor(raw), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(cudnnBackendFinalize(raw), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(live_cudnn_descriptors(), before);
  cudnnHandle_t handle = nullptr;
  ASSERT_EQ(cudnnCreate(&handle), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(cudnnDestroy(handle), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(cudnnDestroy(handle), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(cudnnSetStream(handle, nullptr), CUDNN_STATUS_BAD_PARAM);
}

// --- graphs ---------------------------------------------------------------------------------------------------------

TensorSpec dense(std::int64_t id, const Four& dims) {
  return {id, CUDNN_DATA_FLOAT, dims, channels_last_strides(dims), 16, false};
}

ConvSpec right() {
  ConvSpec c;
  c.stride = {2, 1};
  c.pre = {1, 2};
  c.post = {0, 1};
  c.dilation = {1, 2};
  c.x = dense(1, {2, 6, 7, 8});
  c.w = dense(2, {4, 3, 3, 2});
  c.y = dense(3, {2, 4, 3, 9});  // (7 + 1 - 3) / 2 + 1, (8 + 3 - 3) / 1 + 1
  return c;
}

cudnnStatus_t status_with(const std::function<void(ConvSpec&)>& change) {
  ConvSpec c = right();
  change(c);
  return GraphOf(c).status();
}

TEST(CudnnGraphs, ShapesMustFitTheConvolution) {
  constexpr auto kShape = CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH;
  EXPECT_EQ(status_with([](ConvSpec&) {}), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.y = dense(3, {3, 4, 3, 9}); }), kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.y = dense(3, {2, 4, 4, 9}); }), kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.y = dense(3, {2, 4, 3, 8}); }), kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.y = dense(3, {2, 5, 3, 9}); }), kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.x = dense(1, {2, 7, 7, 8}); }), kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) {
              c.w = dense(2, {5, 3, 3, 2});  // two groups
              c.y = dense(3, {2, 5, 3, 9});
            }),
            kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.pre[0] = 0; }), CUDNN_STATUS_SUCCESS);  // the last row did not count
  EXPECT_EQ(status_with([](ConvSpec& c) { c.pre[0] = 2; }), kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.post[1] = 2; }), kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.dilation = {2, 1}; }), kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.stride = {1, 2}; }), kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.dilation = {1, 20}; }), kShape);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.pre[0] = -1; }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.post[0] = -1; }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.stride[1] = 0; }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.dilation[1] = 0; }), CUDNN_STATUS_BAD_PARAM);
}

TEST(CudnnGraphs, TensorsHaveIdsAndMemoryOfTheirOwn) {
  EXPECT_EQ(status_with([](ConvSpec& c) { c.y.strides[2] -= 1; }), CUDNN_STATUS_BAD_PARAM);  // rows overlap
  EXPECT_EQ(status_with([](ConvSpec& c) { c.x.strides[2] -= 1; }), CUDNN_STATUS_SUCCESS);    // may be read twice
  EXPECT_EQ(status_with([](ConvSpec& c) { c.y.is_virtual = true; }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.x.is_virtual = true; }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(status_with([](ConvSpec& c) { c.x.type = CUDNN_DATA_INT8; }), CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE);
  ConvSpec square;  // x, w, y of one shape, so that one can be taken for another
  square.x = square.w = square.y = dense(1, {1, 1, 1, 1});
  square.w.id = 2;
  EXPECT_EQ(GraphOf(square).status(), CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES);
}

// right(), followed by residual, bias and ReLU.
struct Followed {
  ConvSpec conv = right();
  std::vector<StepSpec> steps;

  Followed() {
    const TensorSpec y = conv.y;
    conv.y.id = 10;
    conv.y.is_virtual = true;
    TensorSpec second = conv.y, third = conv.y;
    second.id = 11;
    third.id = 12;
    steps = {{CUDNN_POINTWISE_ADD, {dense(4, y.dims)}, second, {}},
             {CUDNN_POINTWISE_ADD, {dense(5, {1, y.dims[1], 1, 1})}, third, {}},
             {CUDNN_POINTWISE_RELU_FWD, {}, y, {}}};
  }
};

cudnnStatus_t followed_with(const std::function<void(Followed&)>& change) {
  Followed f;
  change(f);
  return GraphOf(f.conv, f.steps).status();
}

TEST(CudnnGraphs, ChainsHangTogether) {
  EXPECT_EQ(followed_with([](Followed&) {}), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(followed_with([](Followed& f) { f.steps[2].b = {dense(6, f.conv.y.dims)}; }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(followed_with([](Followed& f) { f.steps[1].b.clear(); }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(followed_with([](Followed& f) {
              f.steps[1].b[0] = dense(5, {1, 3, 1, 1});
            }),
            CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH);
  EXPECT_EQ(followed_with([](Followed& f) { f.steps[0].y.dims[2] = 1; }), CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH);
  EXPECT_EQ(followed_with([](Followed& f) { f.steps[0].b[0].is_virtual = true; }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(followed_with([](Followed& f) { f.steps[2].y.is_virtual = true; }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(followed_with([](Followed& f) { f.steps[2].y.id = 4; }), CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES);
}

TEST(CudnnGraphs, AnOperationThatNothingReadsIsNoGraph) {
  Followed f;
  GraphOf whole(f.conv, f.steps), alone(right());
  RawDescriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  EXPECT_EQ(graph.finalize(), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, whole.tensor(1)), CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE);
}

// --- heuristics -----------------------------------------------------------------------------------------------------

cudnnStatus_t proposed(GraphOf& graph, cudnnBackendHeurMode_t mode, std::int64_t* count = nullptr) {
  EXPECT_EQ(graph.status(), CUDNN_STATUS_SUCCESS) << graph.error();
  RawDescriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  EXPECT_EQ(heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.graph()), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, std::vector{mode}), CUDNN_STATUS_SUCCESS);
  const cudnnStatus_t status = heuristics.finalize();
  if (count != nullptr) {
    EXPECT_EQ(cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                       0, count, nullptr),
              CUDNN_STATUS_SUCCESS);
  }
  return status;
}

cudnnStatus_t engines_with(const std::function<void(Followed&)>& change) {
  Followed f;
  change(f);
  GraphOf graph(f.conv, f.steps);
  return proposed(graph, CUDNN_HEUR_MODE_A);
}

TEST(CudnnHeuristics, KnowTheChainsThatCudnnKnows) {
  constexpr auto kNone = CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN;
  EXPECT_EQ(engines_with([](Followed&) {}), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(engines_with([](Followed& f) { std::swap(f.steps[0].b, f.steps[1].b); }), kNone);  // the bias first
  EXPECT_EQ(engines_with([](Followed& f) {  // a residual without a bias
              f.steps[0].y = f.steps[2].y;
              f.steps.resize(1);
            }),
            kNone);
  EXPECT_EQ(engines_with([](Followed& f) { f.steps[2].mode = CUDNN_POINTWISE_TANH_FWD; }), kNone);
}

TEST(CudnnHeuristics, HaveRelu6AsALastResortOnly) {
  Followed f;
  f.steps[2].clips[CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP] = 6;
  GraphOf graph(f.conv, f.steps);
  std::int64_t count = -1;
  EXPECT_EQ(proposed(graph, CUDNN_HEUR_MODE_A, &count), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(count, 0);
  EXPECT_EQ(proposed(graph, CUDNN_HEUR_MODE_FALLBACK, &count), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(count, 1);
}

TEST(CudnnHeuristics, KnowOneTypeOfDataAndItsSums) {
  constexpr auto kType = CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE;
  const auto all = [](Followed& f, cudnnDataType_t type) {
    f.conv.x.type = f.conv.w.type = f.steps[2].y.type = f.steps[0].b[0].type = f.steps[1].b[0].type = type;
  };
  EXPECT_EQ(engines_with([&](Followed& f) { all(f, CUDNN_DATA_BFLOAT16); }), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(engines_with([&](Followed& f) { f.conv.w.type = CUDNN_DATA_BFLOAT16; }), kType);
  EXPECT_EQ(engines_with([&](Followed& f) {
              all(f, CUDNN_DATA_BFLOAT16);
              f.steps[1].b[0].type = CUDNN_DATA_FLOAT;  // an f32 bias
            }),
            kType);
  EXPECT_EQ(engines_with([&](Followed& f) {
              all(f, CUDNN_DATA_BFLOAT16);
              f.conv.y.type = CUDNN_DATA_BFLOAT16;  // between convolution and residual
            }),
            kType);
  EXPECT_EQ(engines_with([&](Followed& f) { f.conv.compute = CUDNN_DATA_DOUBLE; }), kType);
  EXPECT_EQ(engines_with([&](Followed& f) { all(f, CUDNN_DATA_DOUBLE); }), kType);  // sums in f32
  EXPECT_EQ(engines_with([&](Followed& f) { f.conv.x.alignment = 2; }), CUDNN_STATUS_NOT_SUPPORTED);
}

// --- execution ------------------------------------------------------------------------------------------------------

class CudnnExecution : public testing::Test {
 protected:
  CudnnExecution() {
    EXPECT_EQ(cudnnCreate(&handle_), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(cudnnSetStream(handle_, stream_.get()), CUDNN_STATUS_SUCCESS);
    memory_.write(std::vector<unsigned char>(kBytes, 0));
    pointers_ = {{1, memory_.data(0)}, {2, memory_.data(4096)}, {3, memory_.data(8192)}};
  }
  ~CudnnExecution() override { EXPECT_EQ(cudnnDestroy(handle_), CUDNN_STATUS_SUCCESS); }

  using Pointers = std::map<std::int64_t, void*>;

  cudnnStatus_t run(const std::function<void(Pointers&, void*&)>& change) {
    Pointers pointers = pointers_;
    void* workspace = workspace_;
    change(pointers, workspace);
    return plan_.execute(handle_, pointers, workspace);
  }

  static constexpr std::size_t kBytes = 32768;
  DeviceStream stream_;
  cudnnHandle_t handle_ = nullptr;
  DeviceBytes memory_{stream_, kBytes};
  GraphOf graph_{right()};
  PlanOf plan_{graph_, 8};
  Pointers pointers_;
  void* workspace_ = memory_.data(16384);
};

TEST_F(CudnnExecution, ChecksItsPointers) {
  EXPECT_EQ(run([](auto&, auto&) {}), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(run([&](auto& p, auto&) { p[2] = memory_.data(4096 + 8); }), CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER);
  EXPECT_EQ(run([](auto& p, auto&) { p[2] = nullptr; }), CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
  EXPECT_EQ(run([](auto& p, auto&) { p.erase(2); }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(run([&](auto& p, auto&) { p[4] = memory_.data(); }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(run([](auto& p, auto&) { p[3] = p[1]; }), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(run([](auto&, auto& workspace) { workspace = nullptr; }), CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
  EXPECT_EQ(run([](auto& p, auto& workspace) { workspace = p[3]; }), CUDNN_STATUS_BAD_PARAM);
}

TEST_F(CudnnExecution, NeedsThePartsThatThePlanRefersTo) {
  graph_.tensor(1).destroy();
  EXPECT_EQ(run([](auto&, auto&) {}), CUDNN_STATUS_BAD_PARAM);
  EXPECT_THAT(last_error(), HasSubstr("TENSOR descriptor that a plan refers to was destroyed"));
}

TEST_F(CudnnExecution, RefusesAPackThatNamesATensorTwice) {
  RawDescriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  EXPECT_EQ(pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, {1, 1}), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, std::vector{workspace_, workspace_}),
            CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(pack.finalize(), CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES);
  RawDescriptor uneven(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  EXPECT_EQ(uneven.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, {1, 2}), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(uneven.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, std::vector{workspace_}),
            CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(uneven.finalize(), CUDNN_STATUS_BAD_PARAM);
}

}  // namespace
}  // namespace retort::standin
