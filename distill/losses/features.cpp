// Losses on feature maps, stage by stage.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "distill/losses/taps.h"
#include "engine/ops.h"
#include "models/layers.h"

namespace retort {
namespace {

Tensor total(const std::vector<Tensor>& terms) {
  Tensor sum = terms.at(0);
  for (std::size_t i = 1; i < terms.size(); ++i) sum = add(sum, terms[i]);
  return sum;
}

// A convolution from the student's channels to the teacher's; 3x3 keeps the size too.
Conv2d projector(LossContext& context, const std::string& name, std::int64_t in, std::int64_t out, int kernel,
                 int stride = 1, bool bias = false) {
  Conv2dOptions options;
  options.kernel = kernel;
  options.stride = stride;
  options.padding = kernel / 2;
  options.bias = bias;
  return Conv2d(context.parts, context.prefix + name, in, out, options);
}

void read_kernel(ConfigSection& section, int& kernel) {
  section.read("kernel", kernel, Range::closed(1, 7));
  if (kernel % 2 == 0) section.reject("kernel", "must be odd");
}

}  // namespace

// Tung & Mori, "Similarity-preserving knowledge distillation", ICCV 2019, eq. 4: G = F F^T with rows normalised;
// |G_t - G_s|² / B².
LossBuilder read_similarity_preserving(ConfigSection& section) {
  const TapChoice choice(section, DefaultTaps::last_stage);
  return [choice](LossContext& context) -> Loss {
    context.need_samples("similarity_preserving", 2);
    const std::vector<TapPair> pairs = choice.pairs(context);
    return [pairs](const LossInputs& in) {
      const auto similarities = [&](const Tensor& map) {
        const Tensor f = accumulated(flatten(map));
        return l2_normalize(matmul(f, f, false, true, in.mode.math));
      };
      std::vector<Tensor> terms;
      for (const TapPair& p : pairs) {
        terms.push_back(
            mean_squared_error(similarities(in.student_tap(p.student)), similarities(in.teacher_tap(p.teacher))));
      }
      return total(terms);
    };
  };
}

// Zagoruyko & Komodakis, "Paying more attention to attention", ICLR 2017, eq. 2, with the mean over positions as in the
// authors' code.
LossBuilder read_attention_transfer(ConfigSection& section) {
  const TapChoice choice(section, DefaultTaps::all_stages);
  double p = 2;
  section.read("p", p, Range::above(0));
  return [choice, p](LossContext& context) -> Loss {
    const std::vector<TapPair> pairs = choice.pairs(context);
    for (const TapPair& pair : pairs) need_maps(context, "attention_transfer", pair);
    return [pairs, p](const LossInputs& in) {
      std::vector<Tensor> terms;
      for (const TapPair& pair : pairs) {
        const auto [s, t] = match_spatial(in.student_tap(pair.student), in.teacher_tap(pair.teacher));
        terms.push_back(mean_squared_error(l2_normalize(channel_energy(s, p)), l2_normalize(channel_energy(t, p))));
      }
      return total(terms);
    };
  };
}

// Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, eq. 3: a regressor (convolution, and with `norm_relu`
// batch normalisation and ReLU, as RepDistiller has it) from the student's map to the teacher's. Where the student's map
// is twice as large it is a 3x3 convolution (or a larger one) with stride 2, as there. Its bias is left out in front of
// a batch normalisation, which would take it away again.
LossBuilder read_fitnet(ConfigSection& section) {
  const TapChoice choice(section, DefaultTaps::second_stage);
  std::string criterion = "mse";
  std::vector<double> weights;
  bool norm_relu = true;
  int kernel = 1;
  section.read_choice("criterion", criterion, {"mse", "smooth_l1"});
  section.read("layer_weights", weights, weight_range());
  section.read("norm_relu", norm_relu);
  read_kernel(section, kernel);
  return [=](LossContext& context) -> Loss {
    const std::vector<TapPair> pairs = choice.pairs(context);
    if (!weights.empty() && weights.size() != pairs.size()) {
      context.reject(fmt::format("layer_weights has {} entries for {} taps", weights.size(), pairs.size()));
    }
    std::vector<Conv2d> convolutions;
    std::vector<BatchNorm> norms;
    std::vector<bool> halves;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      need_maps(context, "fitnet", pairs[i]);
      const Shape &s = pairs[i].student_shape, &t = pairs[i].teacher_shape;
      const std::int64_t out = t.last();
      const std::string number = std::to_string(i + 1);
      halves.push_back(s[1] == 2 * t[1] && s[2] == 2 * t[2]);
      convolutions.push_back(projector(context, "conv" + number, s.last(), out,
                                       halves[i] ? std::max(3, kernel) : kernel, halves[i] ? 2 : 1, !norm_relu));
      if (norm_relu) norms.emplace_back(context.parts, context.prefix + "bn" + number, out);
    }
    return [=](const LossInputs& in) {
      std::vector<Tensor> terms;
      for (std::size_t i = 0; i < pairs.size(); ++i) {
        Tensor s = in.student_tap(pairs[i].student), t = in.teacher_tap(pairs[i].teacher);
        if (!halves[i]) std::tie(s, t) = match_spatial(s, t);
        s = convolutions[i](s, in.mode);
        if (norm_relu) s = norms[i](s, in.mode, Activation::relu);
        const Tensor term = criterion == "mse" ? mean_squared_error(s, t) : smooth_l1(s, t);
        terms.push_back(weights.empty() ? term : scale(term, weights[i]));
      }
      return total(terms);
    };
  };
}

// Recipe R0: the student's last map through a learned convolution; 1 - cosine with the teacher's, flattened, mean over
// the batch. For unit vectors that is half the squared distance, which does not cancel where they nearly agree.
LossBuilder read_feature_cosine(ConfigSection& section) {
  const TapChoice choice(section, DefaultTaps::last_stage);
  int kernel = 1;
  read_kernel(section, kernel);
  return [=](LossContext& context) -> Loss {
    const TapPair pair = choice.pair(context);
    need_maps(context, "feature_cosine", pair);
    const Conv2d convolution = projector(context, "conv", pair.student_shape.last(), pair.teacher_shape.last(), kernel);
    return [=](const LossInputs& in) {
      const auto [s, t] = match_spatial(in.student_tap(pair.student), in.teacher_tap(pair.teacher));
      const Tensor a = l2_normalize(flatten(convolution(s, in.mode))), b = l2_normalize(flatten(t));
      return scale(mean_squared_error(a, b), 0.5 * static_cast<double>(a.dim(1)));
    };
  };
}

// Ahn et al., "Variational information distillation for knowledge transfer", CVPR 2019, eq. 5 and 6; the mean is three
// 1x1 convolutions with ReLU between them, the variance one number a channel that starts at `initial_variance`.
LossBuilder read_vid(ConfigSection& section) {
  const TapChoice choice(section, DefaultTaps::all_stages);
  double initial_variance = 5;
  constexpr double kEpsilon = 1e-5;
  section.read("initial_variance", initial_variance, Range::above(kEpsilon));
  return [=](LossContext& context) -> Loss {
    const std::vector<TapPair> pairs = choice.pairs(context);
    struct Regressor {
      Conv2d convolutions[3];
      std::shared_ptr<Parameter> raw_variance;
    };
    std::vector<Regressor> regressors;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      need_maps(context, "vid", pairs[i]);
      const std::int64_t in = pairs[i].student_shape.last(), out = pairs[i].teacher_shape.last();
      const std::string name = "stage" + std::to_string(i + 1);
      Regressor r;
      for (int c = 0; c < 3; ++c) {
        r.convolutions[c] = projector(context, fmt::format("{}.conv{}", name, c + 1), c == 0 ? in : out, out, 1);
      }
      // The inverse of softplus.
      const double raw = std::log(std::expm1(initial_variance - kEpsilon));
      r.raw_variance = context.parts.parameter(context.prefix + name + ".raw_variance", {out},
                                               ParameterKind::norm_shift, Initializer::constant(raw));
      regressors.push_back(std::move(r));
    }
    return [=](const LossInputs& in) {
      std::vector<Tensor> terms;
      for (std::size_t i = 0; i < pairs.size(); ++i) {
        auto [mean, t] = match_spatial(in.student_tap(pairs[i].student), in.teacher_tap(pairs[i].teacher));
        for (int c = 0; c < 3; ++c) {
          mean = regressors[i].convolutions[c](mean, in.mode);
          if (c < 2) mean = relu(mean);
        }
        terms.push_back(variational_information(mean, t, regressors[i].raw_variance->data, kEpsilon));
      }
      return total(terms);
    };
  };
}

// Huang & Wang, "Like what you like: knowledge distill via neuron selectivity transfer", 2017, eq. 6 with the
// polynomial kernel (d = 2, c = 0): channels are samples, normalised over the positions.
LossBuilder read_nst(ConfigSection& section) {
  const TapChoice choice(section, DefaultTaps::all_stages);
  return [choice](LossContext& context) -> Loss {
    const std::vector<TapPair> pairs = choice.pairs(context);
    for (const TapPair& pair : pairs) need_maps(context, "nst", pair);
    return [pairs](const LossInputs& in) {
      const auto selectivities = [](const Tensor& map) {
        const Tensor x = accumulated(channels_first(map));
        return reshape(l2_normalize(reshape(x, {x.dim(0) * x.dim(1), x.dim(2)})), x.shape());
      };
      std::vector<Tensor> terms;
      for (const TapPair& pair : pairs) {
        const auto [s, t] = match_spatial(in.student_tap(pair.student), in.teacher_tap(pair.teacher));
        terms.push_back(neuron_selectivity(selectivities(s), selectivities(t)));
      }
      return total(terms);
    };
  };
}

}  // namespace retort
