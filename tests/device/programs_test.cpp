// The programs on the stand-in device say what they say on the CPU, and end with nothing left on the device.
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/safetensors.h"
#include "tests/support/program_test.h"

namespace retort::standin {
namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;

const fs::path kImages = fs::absolute("tests/fixtures/images");
const Arguments kShort = {"--set", "train.max_steps=3", "--set", "train.evaluate_test=false"};

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class ProgramsOnADevice : public test::TinyRunTest {
 protected:
  // With leaks as an error.
  std::string output(const std::string& program, const Arguments& arguments, const std::string& order = "late") const {
    const test::ProgramResult result = call(program, arguments, [order] {
      setenv("RETORT_STANDIN_LEAKS", "1", 1);
      setenv("RETORT_STANDIN_ORDER", order.c_str(), 1);
    });
    EXPECT_EQ(result.exit_code, 0) << program << ": " << result.out << result.err;
    return result.out;
  }

  void train_on_device() const {
    output("train", Arguments{config().string(), "--set", "device=cuda", "--set", "output.root=runs"} + kShort);
  }

  std::vector<float> logits(const std::string& network, const Arguments& options, const std::string& order) const {
    output("predict",
           Arguments{network, (kImages / "420.jpg").string(), (kImages / "rgb.png").string(), "--logits",
                     "logits.safetensors"} +
               options,
           order);
    for (const NamedArray& array : read_safetensors(folder_ / "logits.safetensors").arrays) {
      if (array.name != "logits") continue;
      std::vector<float> values(array.bytes.size() / sizeof(float));
      std::memcpy(values.data(), array.bytes.data(), array.bytes.size());
      return values;
    }
    ADD_FAILURE() << "no logits";
    return {};
  }

  void expect_same_predictions(const std::string& network, const std::string& precision, double bound) const {
    SCOPED_TRACE(network + " " + precision);
    const Arguments type = {"--precision", precision};
    const std::vector<float> cpu = logits(network, Arguments{"--device", "cpu"} + type, "late");
    const std::vector<float> late = logits(network, Arguments{"--device", "cuda"} + type, "late");
    ASSERT_EQ(late.size(), cpu.size());
    for (std::size_t i = 0; i < cpu.size(); ++i) EXPECT_NEAR(late[i], cpu[i], bound * std::max(1.0f, std::abs(cpu[i])));
    EXPECT_EQ(logits(network, Arguments{"--device", "cuda"} + type, "others_first"), late);
  }
};

TEST_F(ProgramsOnADevice, EvaluatePredictAndExportAsOnTheCpu) {
  train_on_device();
  const auto evaluation = [&](const std::string& device, const std::string& precision) {
    return nlohmann::json::parse(output("evaluate", {"runs/tiny", "--split", "validation", "--json", "--no-speed",
                                                     "--device", device, "--precision", precision}));
  };
  const auto cpu = evaluation("cpu", "f32"), device = evaluation("cuda", "f32");
  EXPECT_EQ(device["top1"], cpu["top1"]);
  EXPECT_EQ(device["top5"], cpu["top5"]);
  EXPECT_NEAR(device["loss"].get<double>(), cpu["loss"].get<double>(), 1e-4);
  EXPECT_NEAR(evaluation("cuda", "bf16")["loss"].get<double>(), cpu["loss"].get<double>(), 0.05);

  output("export", {"runs/tiny", "--onnx", "plain.onnx"});
  output("export", {"runs/tiny", "--onnx", "folded.onnx", "--fold", "--normalize-input"});
  for (const std::string network : {"runs/tiny", "plain.onnx", "folded.onnx"}) {
    expect_same_predictions(network, "f32", 1e-4);
  }
  expect_same_predictions("runs/tiny", "tf32", 2e-2);
  expect_same_predictions("runs/tiny", "bf16", 0.1);
}

TEST_F(ProgramsOnADevice, DistilFromAnOnnxFileAsOnTheCpu) {
  train_on_device();
  output("export", {"runs/tiny", "--onnx", "teacher.onnx"});
  const fs::path student = distill_config("[[loss]]\ntype = \"soft_targets\"\n[[loss]]\ntype = \"cross_entropy\"\n");
  std::string text = test::read_file(student);
  const std::string run = "teachers/tiny";
  ASSERT_NE(text.find(run), std::string::npos);
  test::write_file(student, text.replace(text.find(run), run.size(), "teacher.onnx"));
  const auto distil = [&](const std::string& device, const std::string& order) {
    const std::string root = device + order;
    output("distill", Arguments{student.string(), "--set", "device=" + device, "--set", "output.root=" + root} + kShort,
           order);
    return root;
  };
  const fs::path cpu = student_run(distil("cpu", "late")), late = student_run(distil("cuda", "late"));
  expect_same_folders(late, student_run(distil("cuda", "seed:4")));
  const std::vector<std::string> expected = test::logged_lines(cpu), actual = test::logged_lines(late);
  ASSERT_EQ(actual.size(), expected.size());
  int steps = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto a = nlohmann::json::parse(actual[i]), e = nlohmann::json::parse(expected[i]);
    if (e["kind"] != "step") continue;
    ++steps;
    EXPECT_NEAR(a["loss"].get<double>(), e["loss"].get<double>(), 1e-3);
  }
  EXPECT_EQ(steps, 3);
}

}  // namespace
}  // namespace retort::standin
