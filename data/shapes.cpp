#include "data/shapes.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "data/random_stream.h"

namespace retort {
namespace {

constexpr int kSize = 32;
constexpr int kInnerKinds = 4;
constexpr int kOuterKinds = 5;
constexpr int kClasses = kInnerKinds * kOuterKinds;
constexpr float kPi = 3.14159265f;

enum class Figure { circle, square, triangle, cross, star };
constexpr std::array<Figure, kInnerKinds> kInner = {Figure::circle, Figure::square, Figure::triangle, Figure::cross};
constexpr std::array<Figure, kOuterKinds> kOuter = {Figure::circle, Figure::square, Figure::triangle, Figure::star,
                                                    Figure::cross};

const char* figure_name(Figure figure) {
  switch (figure) {
    case Figure::circle:
      return "circle";
    case Figure::square:
      return "square";
    case Figure::triangle:
      return "triangle";
    case Figure::cross:
      return "cross";
    case Figure::star:
      return "star";
  }
  return "";
}

struct Color {
  float r, g, b;
};

Color mix(const Color& a, const Color& b, float t) {
  return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

float luma(const Color& c) {
  return 0.299f * c.r + 0.587f * c.g + 0.114f * c.b;
}

Color random_color(RandomStream& random) {
  return {random.uniform(), random.uniform(), random.uniform()};
}

// A colour brighter than `from` by `contrast` to be seen through noise; darker for a negative one.
Color contrasting_color(RandomStream& random, const Color& from, float contrast) {
  const auto seen = [&](const Color& c) { return (luma(c) - luma(from)) * (contrast < 0 ? -1.0f : 1.0f); };
  Color best = random_color(random);
  for (int attempt = 0; attempt < 20 && seen(best) < std::fabs(contrast); ++attempt) {
    const Color color = random_color(random);
    if (seen(color) > seen(best)) best = color;
  }
  return best;
}

// A fill: two near colours in one of five patterns.
class Texture {
 public:
  Texture(RandomStream& random, const Color& base, float strength) : a_(base) {
    b_ = mix(base, random_color(random), strength);
    kind_ = random.below(5);
    const float angle = random.uniform(0, 2 * kPi);
    const float frequency = random.uniform(0.08f, 0.28f);
    ux_ = std::cos(angle) * frequency;
    uy_ = std::sin(angle) * frequency;
    phase_x_ = random.uniform();
    phase_y_ = random.uniform();
  }

  Color at(float x, float y) const {
    const float u = x * ux_ + y * uy_ + phase_x_;
    const float v = y * ux_ - x * uy_ + phase_y_;
    switch (kind_) {
      case 0:  // plain
        return a_;
      case 1:  // slow change from one side to the other
        return mix(a_, b_, triangle_wave(u * 0.15f));
      case 2:  // stripes
        return triangle_wave(u) < 0.5f ? a_ : b_;
      case 3:  // checks
        return (triangle_wave(u) < 0.5f) == (triangle_wave(v) < 0.5f) ? a_ : b_;
      default:  // dots
        return triangle_wave(u) + triangle_wave(v) < 0.75f ? b_ : a_;
    }
  }

 private:
  // 0 at whole numbers, 1 half-way between them.
  static float triangle_wave(float x) { return 1 - std::fabs(2 * (x - std::floor(x)) - 1); }

  Color a_, b_;
  std::uint32_t kind_;
  float ux_, uy_, phase_x_, phase_y_;
};

// Half-plane form of an upright equilateral triangle with this distance from centre to sides.
float triangle_distance(float x, float y, float apothem) {
  constexpr float kCos = 0.8660254f;
  return std::max(y, std::fabs(x) * kCos - y * 0.5f) - apothem;
}

// Distance to the outline, negative inside, in units of the figure's radius (the sides' distances, so corners stay
// sharp). The radii are balanced so that all figures cover about the same area.
float figure_distance(Figure figure, float x, float y) {
  switch (figure) {
    case Figure::circle:
      return std::sqrt(x * x + y * y) - 0.90f;
    case Figure::square:
      return std::max(std::fabs(x), std::fabs(y)) - 0.80f;
    case Figure::triangle:
      return triangle_distance(x, y, 0.66f);
    case Figure::cross: {
      const float ax = std::fabs(x), ay = std::fabs(y);
      return std::max(std::max(ax, ay) - 1.02f, std::min(ax, ay) - 0.40f);
    }
    case Figure::star:  // two triangles, one upside down
      return std::min(triangle_distance(x, y, 0.58f), triangle_distance(x, -y, 0.58f));
  }
  return 1;
}

struct Placement {
  float x, y, radius;
  // Image to figure coordinates.
  float xx, xy, yx, yy;
  float shrink;  // smallest scale of that map, to turn its distances into pixels

  Placement(RandomStream& random, float cx, float cy, float r, float max_turn, float stretch)
      : x(cx), y(cy), radius(r) {
    const float turn = random.uniform(-max_turn, max_turn);
    const float stretch_direction = random.uniform(0, 2 * kPi);
    const float factor = random.uniform(1 / stretch, stretch);
    const float c = std::cos(stretch_direction), s = std::sin(stretch_direction);
    const float along = 1 / (r * std::sqrt(factor)), across = std::sqrt(factor) / r;
    // R(turn) * (stretch along a direction)
    const float a = along * c * c + across * s * s, b = (along - across) * c * s, d = along * s * s + across * c * c;
    const float ct = std::cos(turn), st = std::sin(turn);
    xx = ct * a - st * b;
    xy = ct * b - st * d;
    yx = st * a + ct * b;
    yy = st * b + ct * d;
    shrink = std::min(along, across);
  }
};

class Canvas {
 public:
  explicit Canvas(const Texture& background) {
    for (int y = 0; y < kSize; ++y) {
      for (int x = 0; x < kSize; ++x) at(x, y) = background.at(static_cast<float>(x), static_cast<float>(y));
    }
  }

  void draw(Figure figure, const Placement& place, const Texture& fill) {
    const float reach = place.radius * 1.9f;
    const int y0 = std::max(0, static_cast<int>(place.y - reach)),
              y1 = std::min(kSize - 1, static_cast<int>(place.y + reach));
    const int x0 = std::max(0, static_cast<int>(place.x - reach)),
              x1 = std::min(kSize - 1, static_cast<int>(place.x + reach));
    for (int y = y0; y <= y1; ++y) {
      for (int x = x0; x <= x1; ++x) {
        const float dx = static_cast<float>(x) - place.x, dy = static_cast<float>(y) - place.y;
        const float distance =
            figure_distance(figure, place.xx * dx + place.xy * dy, place.yx * dx + place.yy * dy) / place.shrink;
        const float cover = std::clamp(0.5f - distance, 0.0f, 1.0f);
        if (cover > 0) at(x, y) = mix(at(x, y), fill.at(static_cast<float>(x), static_cast<float>(y)), cover);
      }
    }
  }

  // A straight bar through (px, py).
  void draw_bar(float px, float py, float angle, float half_width, const Texture& fill) {
    const float nx = std::cos(angle), ny = std::sin(angle);
    for (int y = 0; y < kSize; ++y) {
      for (int x = 0; x < kSize; ++x) {
        const float distance =
            std::fabs((static_cast<float>(x) - px) * nx + (static_cast<float>(y) - py) * ny) - half_width;
        const float cover = std::clamp(0.5f - distance, 0.0f, 1.0f);
        if (cover > 0) at(x, y) = mix(at(x, y), fill.at(static_cast<float>(x), static_cast<float>(y)), cover);
      }
    }
  }

  // Uneven light and noise, then rounding to bytes.
  void finish(RandomStream& random, float difficulty, std::uint8_t* rgb) const {
    const float light_angle = random.uniform(0, 2 * kPi), light = random.uniform(0, 0.012f);
    const float lx = std::cos(light_angle) * light, ly = std::sin(light_angle) * light;
    const float noise = (0.01f + 0.04f * difficulty) * 255.0f;
    for (int y = 0; y < kSize; ++y) {
      for (int x = 0; x < kSize; ++x) {
        const Color& c = at(x, y);
        const float gain =
            255.0f * (1 + lx * (static_cast<float>(x) - kSize / 2) + ly * (static_cast<float>(y) - kSize / 2));
        const float values[3] = {c.r, c.g, c.b};
        for (const float value : values) {
          // The sum of the word's four bytes is close to a normal variable with standard deviation 147.8.
          const std::uint32_t word = random.word();
          const auto sum = static_cast<float>((word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24));
          const float noisy = value * gain + noise * (sum - 510) * (1 / 147.8f);
          *rgb++ = static_cast<std::uint8_t>(std::clamp(noisy + 0.5f, 0.0f, 255.0f));
        }
      }
    }
  }

 private:
  Color& at(int x, int y) { return pixels_[static_cast<std::size_t>(y * kSize + x)]; }
  const Color& at(int x, int y) const { return pixels_[static_cast<std::size_t>(y * kSize + x)]; }

  std::array<Color, kSize * kSize> pixels_;
};

void draw_sample(RandomStream random, int label, std::uint8_t* rgb) {
  const Figure outer = kOuter[static_cast<std::size_t>(label / kInnerKinds)];
  const Figure inner = kInner[static_cast<std::size_t>(label % kInnerKinds)];

  // From plain and upright to cluttered, turned, noisy and faint: a network has something to begin with, and a better
  // one has something left to learn.
  const float difficulty = random.uniform();
  const float max_turn = (0.1f + 0.25f * difficulty) * kPi;
  const float contrast = 0.35f - 0.13f * difficulty;
  const float pattern = 0.1f + 0.3f * difficulty;

  // Dark, light, dark from the outside in; the harder the image, the more often the other way round.
  const float sign = random.uniform() < 0.5f * difficulty ? -1.0f : 1.0f;
  const Color middle{0.5f, 0.5f, 0.5f};
  const Color background = contrasting_color(random, middle, -sign * 0.1f);
  Canvas canvas(Texture(random, background, pattern));

  const auto clutter = static_cast<int>(difficulty * 4);
  for (int i = 0; i < clutter; ++i) {
    const float x = random.uniform(0, kSize - 1), y = random.uniform(0, kSize - 1);
    const Figure figure = kInner[random.below(kInnerKinds)];
    const float radius = random.uniform(3.5f, 6.0f);
    const Placement place(random, x, y, radius, kPi, 1.15f);
    const float brighter = random.uniform() < 0.5f ? 0.12f : -0.12f;
    canvas.draw(figure, place, Texture(random, contrasting_color(random, background, brighter), 0.4f));
  }

  const float outer_radius = random.uniform(10.5f, 13.5f);
  const float slack = 15.0f - outer_radius;
  const float x = 15.5f + random.uniform(-slack, slack), y = 15.5f + random.uniform(-slack, slack);
  const Color outer_color = contrasting_color(random, background, sign * contrast);
  const Placement outer_place(random, x, y, outer_radius, max_turn, 1.2f);
  canvas.draw(outer, outer_place, Texture(random, outer_color, pattern));

  const float inner_radius = outer_radius * random.uniform(0.40f, 0.48f);
  const float inner_x = x + random.uniform(-1.2f, 1.2f), inner_y = y + random.uniform(-1.2f, 1.2f);
  const Placement inner_place(random, inner_x, inner_y, inner_radius, max_turn, 1.1f);
  canvas.draw(inner, inner_place, Texture(random, contrasting_color(random, outer_color, -sign * contrast), pattern));

  if (random.uniform() < difficulty) {
    const float angle = random.uniform(0, 2 * kPi), away = random.uniform(3.0f, 10.0f);
    const Texture fill(random, random_color(random), 0.4f);
    const float tilt = random.uniform(-0.4f, 0.4f), half_width = random.uniform(0.8f, 1.8f);
    canvas.draw_bar(x + away * std::cos(angle), y + away * std::sin(angle), angle + tilt, half_width, fill);
  }
  canvas.finish(random, difficulty, rgb);
}

ImageSet draw_set(std::int64_t count, std::uint64_t seed, std::uint32_t part) {
  ImageSet set;
  set.count = count;
  set.height = set.width = kSize;
  set.images.resize(static_cast<std::size_t>(count) * kSize * kSize * 3);
  set.labels.resize(static_cast<std::size_t>(count));
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < count; ++i) {
    const int label = static_cast<int>(i % kClasses);
    set.labels[static_cast<std::size_t>(i)] = label;
    draw_sample(RandomStream(seed, kPurposeSynthetic, part, static_cast<std::uint32_t>(i)), label,
                set.images.data() + i * kSize * kSize * 3);
  }
  return set;
}

}  // namespace

std::vector<std::string> shapes_class_names() {
  std::vector<std::string> names;
  for (const Figure outer : kOuter) {
    for (const Figure inner : kInner) names.push_back(std::string(figure_name(inner)) + "_in_" + figure_name(outer));
  }
  return names;
}

Dataset make_shapes(std::int64_t train_count, std::int64_t test_count, std::uint64_t seed) {
  Dataset set;
  set.name = "shapes";
  set.class_names = shapes_class_names();
  set.train = draw_set(train_count, seed, 0);
  set.test = draw_set(test_count, seed, 1);
  return set;
}

}  // namespace retort
