// The discriminator of MEAL V2 (Shen & Savvides 2020, section 3.2) on logits: three linear layers that are to tell the
// student's from the teachers'. Differs from the published code in that its last layer has no ReLU, which put a floor
// of ln 2 / 2 under its loss and stopped its gradient, and in that it has a learning rate of its own where one is
// given.
#include "distill/losses/loss.h"
#include "engine/ops.h"
#include "models/layers.h"

namespace retort {
namespace {

struct Options {
  std::vector<int> hidden{125, 15};
  bool adversarial = false;  // reversed gradient to the student; as published it helps the discriminator
  double reversal = 1;       // strength of the reversed gradient
  double lr = 0;             // 0: the run's
};

// Row by row [first, second], as the targets of `rows` student rows and then as many of the teacher.
Tensor targets(std::int64_t rows, const Tensor& like) {
  std::vector<double> values;
  for (std::int64_t r = 0; r < 2 * rows; ++r) {
    values.push_back(r < rows ? 1 : 0);
    values.push_back(r < rows ? 0 : 1);
  }
  return Tensor::from(values, {2 * rows, 2}, like.device()).to(like.dtype());
}

}  // namespace

LossBuilder read_discriminator(ConfigSection& section) {
  Options o;
  section.read("hidden", o.hidden, Range::at_least(1));
  section.read("adversarial", o.adversarial);
  section.read("reversal", o.reversal, Range::above(0));
  section.read("lr", o.lr, Range::at_least(0));
  return [o](LossContext& context) -> Loss {
    std::vector<Linear> layers;
    std::int64_t width = context.student.classes;
    for (std::size_t i = 0; i <= o.hidden.size(); ++i) {
      const std::int64_t next = i < o.hidden.size() ? o.hidden[i] : 2;
      layers.emplace_back(context.parts, fmt::format("{}layer{}", context.prefix, i + 1), width, next);
      width = next;
    }
    if (o.lr > 0) {
      context.parts.set_lr_factor(o.lr / context.base_lr,
                                  [&](const Parameter& p) { return p.name.starts_with(context.prefix); });
    }
    // Made once a batch size: a captured step may not copy from the host.
    const auto wanted = std::make_shared<std::map<std::int64_t, Tensor>>();
    return [=](const LossInputs& in) {
      const Tensor& z = in.student.logits;
      const Tensor student = o.adversarial ? reverse_gradient(z, o.reversal) : z;
      Tensor x = concatenate({student, in.teacher_logits(1)}, 0);
      for (std::size_t i = 0; i < layers.size(); ++i) {
        x = layers[i](x, in.mode);
        if (i + 1 < layers.size()) x = relu(x);
      }
      Tensor& target = (*wanted)[z.dim(0)];
      if (!target) target = targets(z.dim(0), x);
      return binary_cross_entropy_with_logits(x, target);
    };
  };
}

}  // namespace retort
