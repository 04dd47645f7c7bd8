// Losses on logits.
#include "distill/losses/loss.h"
#include "engine/ops.h"

namespace retort {
namespace {

struct LogitPair {
  Tensor student, teacher;
};

// Keys of every logit loss: `temperature`, and `standardize` for the logit standardisation of Sun et al. 2024.
struct LogitOptions {
  double temperature = 1;
  bool standardize = false;

  LogitOptions(ConfigSection& section, double default_temperature) : temperature(default_temperature) {
    section.read("temperature", temperature, Range::above(0));
    section.read("standardize", standardize);
  }
  LogitPair pair(const LossInputs& in) const {
    const Tensor teacher = in.teacher_logits(temperature);
    if (!standardize) return {in.student.logits, teacher};
    return {standardize_rows(in.student.logits), standardize_rows(teacher)};
  }
};

}  // namespace

LossBuilder read_cross_entropy(ConfigSection& section) {
  double own = -1;
  if (section.has("label_smoothing")) section.read("label_smoothing", own, Range::half_open(0, 1));
  return [own](LossContext& context) -> Loss {
    context.uses_teacher = false;
    const double smoothing = own < 0 ? context.label_smoothing : own;
    return [smoothing](const LossInputs& in) { return cross_entropy(in.student.logits, in.labels, smoothing); };
  };
}

LossBuilder read_soft_targets(ConfigSection& section) {
  const LogitOptions options(section, 4);
  return [options](LossContext&) -> Loss {
    return [options](const LossInputs& in) {
      const LogitPair z = options.pair(in);
      return soft_targets(z.student, z.teacher, options.temperature);
    };
  };
}

LossBuilder read_soft_cross_entropy(ConfigSection& section) {
  const LogitOptions options(section, 1);
  return [options](LossContext&) -> Loss {
    return [options](const LossInputs& in) {
      const LogitPair z = options.pair(in);
      return soft_cross_entropy(z.student, z.teacher, options.temperature);
    };
  };
}

LossBuilder read_logit_mse(ConfigSection& section) {
  bool standardize = false;
  section.read("standardize", standardize);
  return [standardize](LossContext&) -> Loss {
    return [standardize](const LossInputs& in) {
      const Tensor teacher = in.teacher_logits(1);
      if (!standardize) return mean_squared_error(in.student.logits, teacher);
      return mean_squared_error(standardize_rows(in.student.logits), standardize_rows(teacher));
    };
  };
}

LossBuilder read_dkd(ConfigSection& section) {
  const LogitOptions options(section, 4);
  double alpha = 1, beta = 8;
  section.read("alpha", alpha, Range::at_least(0));
  section.read("beta", beta, Range::at_least(0));
  return [=](LossContext& context) -> Loss {
    if (context.student.classes < 2) context.reject("dkd needs at least 2 classes");
    return [=](const LossInputs& in) {
      const LogitPair z = options.pair(in);
      return decoupled_kd(z.student, z.teacher, in.labels, alpha, beta, options.temperature);
    };
  };
}

LossBuilder read_dist(ConfigSection& section) {
  const LogitOptions options(section, 4);
  double beta = 1, gamma = 1;
  section.read("beta", beta, Range::at_least(0));
  section.read("gamma", gamma, Range::at_least(0));
  return [=](LossContext& context) -> Loss {
    context.need_samples("dist", 2);
    return [=](const LossInputs& in) {
      const LogitPair z = options.pair(in);
      const double t = options.temperature;
      const Tensor student = softmax(scale(z.student, 1 / t)), teacher = softmax(scale(z.teacher, 1 / t));
      return add(scale(pearson_distance(student, teacher, false), beta * t * t),
                 scale(pearson_distance(student, teacher, true), gamma * t * t));
    };
  };
}

}  // namespace retort
