// Losses on logits.
#include "distill/losses/loss.h"
#include "engine/ops.h"

namespace retort {
namespace {

struct LogitPair {
  Tensor student, teacher;
};

// Keys of every logit loss: `standardize` for the logit standardisation of Sun et al. 2024, and `temperature` where the
// loss has one.
struct LogitOptions {
  double temperature = 1;
  bool standardize = false;

  explicit LogitOptions(ConfigSection& section) { section.read("standardize", standardize); }
  LogitOptions(ConfigSection& section, double default_temperature) : LogitOptions(section) {
    temperature = default_temperature;
    section.read("temperature", temperature, Range::closed(1e-4, 1e4));  // where f32 is known to hold
  }
  LogitPair pair(const LossInputs& in) const {
    const Tensor teacher = in.teacher_logits(temperature);
    if (!standardize) return {in.student.logits, teacher};
    return {standardize_rows(in.student.logits), standardize_rows(teacher)};
  }
  // For builders.
  void check_classes(const LossContext& context) const {
    if (!standardize || context.student.classes > 1) return;
    context.reject("standardize needs at least 2 classes: one logit alone has no standard deviation");
  }
  // The loss that `of` says of the two, their temperature with them.
  LossBuilder loss(Tensor (*of)(const LogitPair&, double temperature)) const {
    return [*this, of](LossContext& context) -> Loss {
      check_classes(context);
      return [*this, of](const LossInputs& in) { return of(pair(in), temperature); };
    };
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
  return LogitOptions(section, 4).loss([](const LogitPair& z, double temperature) {
    return soft_targets(z.student, z.teacher, temperature);
  });
}

LossBuilder read_soft_cross_entropy(ConfigSection& section) {
  return LogitOptions(section, 1).loss([](const LogitPair& z, double temperature) {
    return soft_cross_entropy(z.student, z.teacher, temperature);
  });
}

LossBuilder read_logit_mse(ConfigSection& section) {
  return LogitOptions(section).loss(
      [](const LogitPair& z, double) { return mean_squared_error(z.student, z.teacher); });
}

LossBuilder read_dkd(ConfigSection& section) {
  const LogitOptions options(section, 4);
  double alpha = 1, beta = 8;
  section.read("alpha", alpha, weight_range());
  section.read("beta", beta, weight_range());
  return [=](LossContext& context) -> Loss {
    if (context.student.classes < 2) context.reject("dkd needs at least 2 classes");
    if (context.student.classes == 2) {
      context.notes.push_back(context.where +
                              ": of two classes one is left beside the target, so the divergence of the rest is 0 and "
                              "beta counts for nothing; soft_targets says the same as the other term");
    }
    return [=](const LossInputs& in) {
      const LogitPair z = options.pair(in);
      return decoupled_kd(z.student, z.teacher, in.labels, alpha, beta, options.temperature);
    };
  };
}

LossBuilder read_dist(ConfigSection& section) {
  const LogitOptions options(section, 4);
  double beta = 1, gamma = 1;
  section.read("beta", beta, weight_range());
  section.read("gamma", gamma, weight_range());
  return [=](LossContext& context) -> Loss {
    context.need_samples("dist", 2);
    options.check_classes(context);
    return [=](const LossInputs& in) {
      const LogitPair z = options.pair(in);
      const double t = options.temperature;
      // In f64: at a high temperature softmax leaves differences in the last digits, and Pearson makes them large again.
      const auto softened = [t](const Tensor& logits) { return softmax(scale(cast(logits, DType::f64), 1 / t)); };
      const Tensor student = softened(z.student), teacher = softened(z.teacher);
      const Tensor loss = add(scale(pearson_distance(student, teacher, false), beta * t * t),
                              scale(pearson_distance(student, teacher, true), gamma * t * t));
      return cast(loss, accumulation_type(z.student.dtype()));
    };
  };
}

}  // namespace retort
