// Losses on the relations between the samples of a batch, by default of the pooled features.
#include "distill/losses/taps.h"
#include "engine/ops.h"
#include "models/layers.h"

namespace retort {
namespace {

// Rows of features in the type that the relational kernels work in.
Tensor features(const Tensor& tap) {
  return accumulated(flatten(tap));
}

}  // namespace

// Park et al., "Relational knowledge distillation", CVPR 2019, eq. 7 to 10.
LossBuilder read_rkd(ConfigSection& section) {
  const TapChoice choice(section, DefaultTaps::pooled);
  double distance = 25, angle = 50;
  section.read("distance_weight", distance, weight_range());
  section.read("angle_weight", angle, weight_range());
  if (distance == 0 && angle == 0) section.reject("distance_weight and angle_weight are both 0: nothing is left");
  return [=](LossContext& context) -> Loss {
    context.need_samples("rkd", 2);
    const TapPair pair = choice.pair(context);
    return [=](const LossInputs& in) {
      const Tensor s = pairwise_squared_distances(features(in.student_tap(pair.student)));
      const Tensor t = pairwise_squared_distances(features(in.teacher_tap(pair.teacher)));
      if (angle == 0) return scale(distance_loss(s, t), distance);
      if (distance == 0) return scale(angle_loss(s, t), angle);
      return add(scale(distance_loss(s, t), distance), scale(angle_loss(s, t), angle));
    };
  };
}

// The distance half alone, without the division by the mean distance (recipe R4).
LossBuilder read_distance_metric(ConfigSection& section) {
  const TapChoice choice(section, DefaultTaps::pooled);
  std::string criterion = "smooth_l1";
  DistanceLossOptions options;
  options.normalize = false;
  section.read_choice("criterion", criterion, {"smooth_l1", "mse"});
  section.read("normalize", options.normalize);
  options.squared = criterion == "mse";
  return [=](LossContext& context) -> Loss {
    context.need_samples("distance_metric", 2);
    const TapPair pair = choice.pair(context);
    return [=](const LossInputs& in) {
      return distance_loss(pairwise_squared_distances(features(in.student_tap(pair.student))),
                           pairwise_squared_distances(features(in.teacher_tap(pair.teacher))), options);
    };
  };
}

// Passalis & Tefas, "Learning deep representations with probabilistic knowledge transfer", ECCV 2018, eq. 4 to 6, with
// the cosine kernel.
LossBuilder read_pkt(ConfigSection& section) {
  const TapChoice choice(section, DefaultTaps::pooled);
  return [choice](LossContext& context) -> Loss {
    context.need_samples("pkt", 2);
    const TapPair pair = choice.pair(context);
    return [pair](const LossInputs& in) {
      const auto similarities = [&](const Tensor& tap) {
        const Tensor x = l2_normalize(features(tap));
        return matmul(x, x, false, true, in.mode.math);
      };
      return probability_transfer(similarities(in.student_tap(pair.student)),
                                  similarities(in.teacher_tap(pair.teacher)));
    };
  };
}

// Peng et al., "Correlation congruence for knowledge distillation", ICCV 2019, in RepDistiller's form: both features go
// through a learned linear layer.
LossBuilder read_cc(ConfigSection& section) {
  const TapChoice choice(section, DefaultTaps::pooled);
  int dimension = 128;
  section.read("dimension", dimension, Range::at_least(1));
  return [=](LossContext& context) -> Loss {
    context.need_samples("cc", 2);
    const TapPair pair = choice.pair(context);
    const auto embedding = [&](const char* name, const Shape& shape) {
      return Linear(context.parts, context.prefix + name, shape.numel(), dimension);
    };
    const Linear student = embedding("student", pair.student_shape), teacher = embedding("teacher", pair.teacher_shape);
    return [=](const LossInputs& in) {
      const auto embed = [&](const Linear& layer, const Tensor& tap) {
        return accumulated(layer(flatten(tap), in.mode));
      };
      return correlation_congruence(embed(student, in.student_tap(pair.student)),
                                    embed(teacher, in.teacher_tap(pair.teacher)));
    };
  };
}

}  // namespace retort
