// The engines that the stand-in offers. They differ in how they could hurt: each is something that a real one may be, and
// whoever chooses against the rules, or hands over a bad workspace, sees it in the result.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "tests/device/cudnn_descriptor.h"
#include "tests/device/cudnn_program.h"

namespace retort::standin::cudnn {

enum class Flaw {
  none,
  nondeterministic,      // other low bits at every run
  down_converts_inputs,  // to the next narrower type
  reduced_sums,          // partial sums in the next narrower type
  tensor_core,           // f32 inputs lose their lower 13 bits (tf32), as the hardware drops them
  winograd,              // sums as exact as Winograd's transforms leave them: 17 bits
  too_big,               // wants more workspace than anybody allows
  cannot_be_built,       // cudnnBackendFinalize of a plan fails
  cannot_run,            // cudnnBackendExecute fails
  workspace_between,     // keeps its sums in the workspace between two kernels, and fills all the rest of it
};

struct Engine {
  std::int64_t index;
  const char* name;
  Flaw flaw;
  std::vector<cudnnBackendNumericalNote_t> notes;
  std::vector<std::pair<cudnnBackendKnobType_t, std::int64_t>> knobs;
  std::int64_t terms;               // of a sum that are added before the next partial sum begins
  std::size_t workspace_bytes = 0;  // of all graphs; `workspace_between` needs more
};

// Of cudnnBackendFinalize: heuristics, engines and plans.
void propose(Descriptor& heuristics);
void choose_engine(Descriptor& engine);
void build_plan(Descriptor& plan);

}  // namespace retort::standin::cudnn
