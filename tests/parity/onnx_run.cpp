// Runs an ONNX classifier on images of a file, for onnx_parity.py:
//
//     onnx_run MODEL.onnx INPUT.safetensors OUTPUT.safetensors [TAP ...]
//
// INPUT holds "input", f32 [N, 3, H, W], normalised; OUTPUT gets "logits" [N, classes] and the taps, feature maps as
// [N, H, W, C]. --list instead of INPUT prints the taps' names, stages marked.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "engine/autograd.h"
#include "engine/safetensors.h"
#include "models/onnx_model.h"

namespace {

using namespace retort;

NamedArray to_array(const std::string& name, const Tensor& tensor) {
  NamedArray array;
  array.name = name;
  for (int k = 0; k < tensor.rank(); ++k) array.shape.push_back(tensor.dim(k));
  array.bytes.resize(static_cast<std::size_t>(tensor.numel()) * sizeof(float));
  tensor.copy_to_host(array.bytes.data());
  return array;
}

void list(const OnnxModel& model) {
  const std::vector<std::string> stages = model.stage_names();
  for (const std::string& name : model.tap_names()) {
    const bool stage = std::find(stages.begin(), stages.end(), name) != stages.end();
    std::printf("%s%s\n", name.c_str(), stage ? "  (stage)" : "");
  }
}

void run(int count, char** arguments) {
  const auto model = read_onnx_model(arguments[1]);
  if (std::strcmp(arguments[2], "--list") == 0) {
    list(*model);
    return;
  }
  const WeightFile file = read_safetensors(arguments[2]);
  const NamedArray* input = file.find("input");
  check(input != nullptr && input->dtype == FileType::f32 && input->shape.size() == 4,
        "{}: holds no f32 array \"input\" [N, 3, H, W]", arguments[2]);
  const auto& d = input->shape;
  // [N, 3, H * W] -> [N, H * W, 3]
  const Tensor planes = Tensor::from_bytes(input->bytes.data(), {d[0], d[1], d[2] * d[3]}, DType::f32, {});
  const Tensor pixels = Tensor::empty({d[0], d[2], d[3], d[1]}, DType::f32, {});
  planes.backend().transpose_inner(planes, pixels.reshaped({d[0], d[2] * d[3], d[1]}).view(), {});
  const TapNames taps(arguments + 4, arguments + count);
  const ModelOutput output = model->forward(pixels, {}, taps);
  std::vector<NamedArray> arrays = {to_array("logits", output.logits)};
  for (const auto& [name, tap] : output.taps) arrays.push_back(to_array(name, tap));
  write_safetensors(arguments[3], arrays);
}

}  // namespace

int main(int count, char** arguments) {
  const bool listing = count == 3 && std::strcmp(arguments[2], "--list") == 0;
  if (count < 4 && !listing) {
    std::fprintf(stderr,
                 "usage: onnx_run MODEL.onnx INPUT.safetensors OUTPUT.safetensors [TAP ...] | MODEL.onnx --list\n");
    return 2;
  }
  try {
    run(count, arguments);
  } catch (const Error& error) {
    std::fprintf(stderr, "onnx_run: %s\n", error.what());
    return 1;
  }
  return 0;
}
