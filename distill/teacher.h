// The frozen networks that a student learns from: loaded from checkpoints, folded for inference, run once a step for
// all students, and combined where there are several.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distill/output_kind.h"
#include "distill/session.h"
#include "models/model.h"

namespace retort {

// What a network offers to losses; shapes are those of one image.
struct NetworkShape {
  std::string arch;
  std::int64_t classes = 0;
  std::map<std::string, Shape> taps;
  std::vector<std::string> stages;  // taps at the end of each stage, after the ReLU
};
// By a forward pass on one blank image of the session's size.
NetworkShape network_shape(const Model& model, const Session& session, DType dtype);

struct TeacherConfig {
  std::string where;      // of the [[teacher]] block, for errors
  std::string path;       // a run's folder (its newest version), a version's folder, or a checkpoint
  std::string precision;  // "": the run's
  bool fold = true;       // batch normalisation into the convolutions
  // For checkpoints that do not say it themselves, or not in our words.
  std::string arch, stem, shortcut;

  bool operator==(const TeacherConfig&) const = default;
};

enum class Combine : std::uint8_t {
  mean_softmax,  // the mean of the softened predictions, at the temperature that a loss asks for
  mean_logits,
  random,  // one of them, drawn anew at every step from (seed, step)
};
Combine combine_of(const std::string& name);
std::vector<std::string> combine_names();

// What the teachers said about one batch, in the students' type. Teachers are numbered from 1; 0 stands for all of
// them.
class TeacherBatch {
 public:
  TeacherBatch() = default;  // of no teacher
  TeacherBatch(std::vector<ModelOutput> outputs, Combine combine) : outputs_(std::move(outputs)), combine_(combine) {}

  // T [B, C]: of one teacher; of all of them z with softmax(z / temperature) their combination.
  Tensor logits(int teacher, double temperature) const;
  const Tensor& tap(int teacher, const std::string& name) const;
  bool empty() const { return outputs_.empty(); }
  void adopt() const;  // Tensor::adopt of all that the teachers made

 private:
  const ModelOutput& output(int teacher) const;

  std::vector<ModelOutput> outputs_;
  Combine combine_ = Combine::mean_softmax;
  mutable std::map<double, Tensor> combined_;  // by temperature
};

class Teacher {
 public:
  // Throws Error, one line, for a file that is not there, damaged, without a known arch, of another number of classes,
  // or with weights that are not finite.
  Teacher(const TeacherConfig& config, const TrainConfig& run, const Session& session);

  const std::string& file() const { return file_; }
  const NetworkShape& shape() const { return shape_; }
  const ModelSpec& spec() const { return model_->spec(); }
  std::int64_t parameter_count() const { return model_->parameters().parameter_count(); }
  std::optional<double> recorded_top1() const { return recorded_top1_; }  // on its validation split, as a fraction
  DType dtype() const { return arithmetic_.dtype; }
  const std::string& recorded_dataset() const { return recorded_dataset_; }
  const std::string& note() const { return note_; }  // what a user should know of it, or ""
  // What its outputs have shown themselves to be: from now on forward() makes logits of them, and the note says so.
  void set_output_kind(OutputKind kind);

  // `input` and the results are of the students' type; the arithmetic in between is the teacher's own.
  ModelOutput forward(const Tensor& input, const TapNames& taps) const;

 private:
  std::string file_, recorded_dataset_, note_;
  std::optional<double> recorded_top1_;
  std::unique_ptr<Model> model_;
  Arithmetic arithmetic_;
  OutputKind output_kind_ = OutputKind::logits;
  NetworkShape shape_;
  // Where it was trained on differently normalised images: its input is scale * ours + shift, channel by channel.
  Tensor scale_, shift_, zero_, one_;
};

class Teachers {
 public:
  Teachers(const std::vector<TeacherConfig>& configs, Combine combine, const TrainConfig& run, const Session& session);
  ~Teachers();
  Teachers(const Teachers&) = delete;
  Teachers& operator=(const Teachers&) = delete;

  const std::vector<Teacher>& all() const { return teachers_; }
  std::vector<Teacher>& all() { return teachers_; }
  // `teacher` (0: whichever is used) will be asked for these taps and for logits. The number of the request, which
  // holds from here on.
  std::size_t request(int teacher, const TapNames& taps);
  // Whether a request holds at the steps to come. What no request that holds asks for is not computed; a change makes
  // another recording of the step necessary.
  void hold(std::size_t request, bool holds);

  // A key of what forward() runs at a step; steps with the same key run the same work and may share a recording.
  int draw(std::int64_t step) const;
  // Queues the forward passes on a stream of their own, which await() makes the current stream wait for. Where no
  // request holds nothing is queued, and await() does nothing: a recording may not wait for a stream that is not in it.
  TeacherBatch forward(const Tensor& input, int drawn) const;
  // From then on the batch belongs to the current stream: freed on the teachers', it would be freed before the losses
  // have read it, and a recording would end with work that nobody waits for.
  void await(const TeacherBatch& batch) const;
  // Of the combination of all of them (of the random kind too: the mean), for evaluation.
  Tensor evaluation_logits(const Tensor& input) const;

 private:
  struct Request {
    int teacher;
    TapNames taps;
    bool holds;
  };

  std::vector<Teacher> teachers_;
  std::vector<Request> requests_;
  // Of each teacher, by the requests that hold.
  std::vector<bool> used_;
  std::vector<TapNames> taps_;
  Combine combine_;
  std::uint64_t seed_;
  Device device_;
  kernels::Stream stream_;  // made last: where a teacher cannot be loaded there is none to destroy
};

}  // namespace retort
