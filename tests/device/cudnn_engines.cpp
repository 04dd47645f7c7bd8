#include "tests/device/cudnn_engines.h"

#include <algorithm>
#include <limits>

namespace retort::standin::cudnn {
namespace {

// Those that spoil a result or fail come first: they are taken wherever nothing forbids it. An engine with two settings
// is two entries.
const std::vector<Engine>& engines() {
  using Notes = std::vector<cudnnBackendNumericalNote_t>;
  constexpr auto kTile = CUDNN_KNOB_TYPE_TILE_SIZE;
  constexpr auto kSplit = CUDNN_KNOB_TYPE_SPLIT_K_BUF;
  static const std::vector<Engine> list{
      {0, "nondeterministic", Flaw::nondeterministic, Notes{CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, {}, 256, 131},
      {1, "half inputs", Flaw::down_converts_inputs, Notes{CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}, {}, 256},
      {2, "too big", Flaw::too_big, {}, {}, 256, (std::size_t{1} << 30) + 1},
      {3, "cannot be built", Flaw::cannot_be_built, {}, {}, 256},
      {4, "cannot run", Flaw::cannot_run, {}, {{kTile, 1}}, 256, 64},
      {5, "reduced sums", Flaw::reduced_sums, Notes{CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION}, {}, 256, 131},
      {6,
       "tensor core",
       Flaw::tensor_core,
       Notes{CUDNN_NUMERICAL_NOTE_TENSOR_CORE},
       {{kTile, 7}, {kSplit, 1}},
       64,
       131},
      {6, "tensor core", Flaw::tensor_core, Notes{CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {{kTile, 7}, {kSplit, 2}}, 24},
      {7,
       "winograd",
       Flaw::winograd,
       Notes{CUDNN_NUMERICAL_NOTE_WINOGRAD, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4},
       {},
       256,
       131},
      {8, "workspace between", Flaw::workspace_between, {}, {{kTile, 3}}, 128, 131},
      {9, "fft", Flaw::winograd, Notes{CUDNN_NUMERICAL_NOTE_FFT}, {}, 256},
      {10, "plain", Flaw::none, {}, {{kSplit, 1}}, 256},
      {10, "plain", Flaw::none, {}, {{kSplit, 3}}, 40, 131},
  };
  return list;
}
const Engine kLastResort{20, "last resort", Flaw::none, {}, {}, 512, 0};

bool is_last_resort(const Program& program) {
  return std::any_of(program.steps.begin(), program.steps.end(), [](const Pointwise& p) {
    return p.mode == CUDNN_POINTWISE_RELU_FWD && p.upper < std::numeric_limits<double>::max();
  });
}

// What cuDNN 9.19 has engines for: residual, bias, ReLU in this order, the first not without the second.
void check_pattern(const Program& program) {
  constexpr auto kNone = CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN;
  const Convolution& c = program.convolution;
  require(program.steps.empty() || c.direction == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, kNone,
          "no engine for a backward convolution with pointwise operations");
  int stage = 0;  // 1: residual added, 2: bias added, 3: activation
  for (const Pointwise& p : program.steps) {
    const bool whole = p.has_b && p.b.dims == p.y.dims;
    const bool channels = p.has_b && p.b.dims == Extents{1, p.y.dims[1], 1, 1};
    const int next = p.mode == CUDNN_POINTWISE_RELU_FWD          ? 3
                     : p.mode == CUDNN_POINTWISE_ADD && channels ? 2
                     : p.mode == CUDNN_POINTWISE_ADD && whole    ? 1
                                                                 : 0;
    require(next > stage && (next != 3 || stage != 1), kNone, "no engine for pointwise operation {} after {}",
            static_cast<int>(p.mode), stage);
    stage = next;
  }
  require(stage != 1, kNone, "no engine for a residual without a bias");
}

// Data types that engines exist for: all of one type, sums in f64 for f64 and in f32 for the others.
void check_types(const Program& program) {
  const Convolution& c = program.convolution;
  const cudnnDataType_t compute =
      c.x.type == CUDNN_DATA_DOUBLE || c.w.type == CUDNN_DATA_DOUBLE ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
  const auto fits = [&](cudnnDataType_t type, const char* what, cudnnDataType_t expected) {
    require(type == expected, CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "no engine for {} in data type {} beside {}", what,
            static_cast<int>(type), static_cast<int>(expected));
  };
  const cudnnDataType_t type =
      c.direction == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR ? c.x.type : c.y.type;
  for (const auto& [id, t] : program.tensors) {
    // Gradients of weights may be wider than what they come from.
    const bool widened = id == c.result().id && t.type == compute;
    if (!widened) fits(t.type, "a tensor", type);
  }
  fits(c.compute, "the sums", compute);
  for (const Pointwise& p : program.steps) {
    fits(p.compute, "a pointwise operation", compute);
    if (p.x.is_virtual) fits(p.x.type, "a value between operations", compute);
  }
}

void check_alignments(const Program& program) {
  for (const auto& [id, t] : program.tensors) {
    require(t.alignment >= static_cast<std::int64_t>(size_of(t.type)), CUDNN_STATUS_NOT_SUPPORTED,
            "no engine for tensor {}: aligned to {} bytes, its elements have {}", id, t.alignment, size_of(t.type));
  }
}

bool can_do(const Engine& engine, const Program& program) {
  const Convolution& c = program.convolution;
  const bool small_steps = c.stride == std::array<std::int64_t, 2>{1, 1} && c.dilation == c.stride && c.groups == 1;
  if (engine.flaw == Flaw::winograd) return c.w.dims[2] == 3 && c.w.dims[3] == 3 && small_steps;
  return true;
}

// The same for equal graphs: layers of a network begin with different engines.
std::size_t hash_of(const Program& program) {
  const Convolution& c = program.convolution;
  std::size_t hash = program.steps.size();
  for (const Extents& dims : {c.x.dims, c.w.dims, c.y.dims}) {
    for (const std::int64_t d : dims) hash = (hash ^ static_cast<std::size_t>(d)) * 0x9e3779b97f4a7c15u;
  }
  return hash >> 32;
}

std::vector<const Engine*> candidates(const Program& program, cudnnBackendHeurMode_t mode) {
  std::vector<const Engine*> list;
  if (mode == CUDNN_HEUR_MODE_FALLBACK) return {&kLastResort};
  if (is_last_resort(program)) return list;
  for (const Engine& engine : engines()) {
    if (can_do(engine, program)) list.push_back(&engine);
  }
  const auto failing = [](const Engine* e) { return e->flaw == Flaw::cannot_be_built || e->flaw == Flaw::cannot_run; };
  const std::size_t hash = hash_of(program);
  if (hash % 2 == 0) std::erase_if(list, failing);
  const auto spoilers = [&](const Engine* e) { return e->index < 5; };
  const auto good = std::find_if_not(list.begin(), list.end(), spoilers);
  std::rotate(good, good + static_cast<std::ptrdiff_t>(hash / 2 % static_cast<std::size_t>(list.end() - good)),
              list.end());
  return list;
}

DescriptorRef make(cudnnBackendDescriptorType_t type) {
  auto d = std::make_shared<Descriptor>();
  d->type = type;
  d->finalized = true;
  return d;
}

DescriptorRef configuration(const Engine& engine, const DescriptorRef& graph) {
  const DescriptorRef e = make(CUDNN_BACKEND_ENGINE_DESCRIPTOR), config = make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  e->engine = &engine;
  e->put(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, std::vector{graph});
  e->put(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, std::vector{engine.index});
  e->put(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, engine.notes);
  std::vector<DescriptorRef> knobs;
  for (const auto& [type, value] : engine.knobs) {
    knobs.push_back(make(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR));
    knobs.back()->put(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, std::vector{type});
    knobs.back()->put(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, std::vector{value});
  }
  config->put(CUDNN_ATTR_ENGINECFG_ENGINE, std::vector{e});
  config->put(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, std::move(knobs));
  return config;
}

}  // namespace

void propose(Descriptor& heuristics) {
  const DescriptorRef& graph = heuristics.part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
  const Program program = read_program(*graph);
  check_pattern(program);
  check_types(program);
  check_alignments(program);
  std::vector<DescriptorRef> results;
  for (const Engine* engine : candidates(program, heuristics.one<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE))) {
    results.push_back(configuration(*engine, graph));
  }
  heuristics.put(CUDNN_ATTR_ENGINEHEUR_RESULTS, std::move(results));
}

void choose_engine(Descriptor& d) {
  const std::int64_t index = d.number(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  const auto found =
      std::find_if(engines().begin(), engines().end(), [&](const Engine& e) { return e.index == index; });
  require(found != engines().end() || index == kLastResort.index, CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND,
          "there is no engine {}", index);
  d.engine = found != engines().end() ? &*found : &kLastResort;
  d.put(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, d.engine->notes);
}

void build_plan(Descriptor& plan) {
  const Descriptor& engine = *plan.part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->part(CUDNN_ATTR_ENGINECFG_ENGINE);
  auto program = std::make_shared<Program>(read_program(*engine.part(CUDNN_ATTR_ENGINE_OPERATION_GRAPH)));
  check_pattern(*program);
  check_types(*program);
  check_alignments(*program);
  program->engine = engine.engine;
  require(program->engine->flaw != Flaw::cannot_be_built, CUDNN_STATUS_NOT_SUPPORTED, "engine {} cannot be built",
          program->engine->index);
  program->workspace_bytes = program->engine->workspace_bytes;
  if (program->engine->flaw == Flaw::workspace_between) {
    program->workspace_bytes +=
        static_cast<std::size_t>(program->convolution.result().numel()) * size_of(program->convolution.compute);
  }
  plan.put(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, std::vector{static_cast<std::int64_t>(program->workspace_bytes)});
  plan.program = std::move(program);
}

}  // namespace retort::standin::cudnn
