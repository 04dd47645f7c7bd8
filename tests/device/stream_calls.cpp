// Streams, events, and waiting for them.
#include <unordered_set>

#include "tests/device/capture.h"
#include "tests/device/memory.h"
#include "tests/device/standin.h"

namespace retort::standin {
namespace {

struct Event {
  bool timed = true;
  std::shared_ptr<Work> work;  // of its last record, where that was not captured
  std::uint64_t capture = 0;   // in which it was recorded last, and the node
  std::size_t node = 0;
};

std::unordered_set<Event*>& events() {
  static auto* const instance = new std::unordered_set<Event*>;
  return *instance;
}

Event& event_of(cudaEvent_t handle) {
  auto* const event = reinterpret_cast<Event*>(handle);
  if (!events().contains(event)) finding("an event that does not exist, or was destroyed, is used");
  return *event;
}

void create(cudaEvent_t* event, unsigned flags) {
  auto* const made = new Event;
  made->timed = (flags & cudaEventDisableTiming) == 0;
  events().insert(made);
  *event = reinterpret_cast<cudaEvent_t>(made);
}

// Programming guide, "Cross-stream Dependencies and Events".
void wait(Stream& stream, const Event& event) {
  check_legacy_use(stream);
  if (event.capture != 0) {
    Capture* const capture = find_capture(event.capture);
    if (capture == nullptr) {  // that recording has ended: its event stands for nothing
      if (stream.capture != nullptr) invalidate_and_refuse(*stream.capture, cudaErrorStreamCaptureIsolation);
      refuse(cudaErrorInvalidValue);
    }
    join_capture(stream, *capture, event.node);
    return;
  }
  if (!event.work) return;  // never recorded: nothing to wait for
  if (stream.capture != nullptr) invalidate_and_refuse(*stream.capture, cudaErrorStreamCaptureIsolation);
  push(stream, {.what = "cudaStreamWaitEvent"}, {event.work});
}

void record_event(Event& event, Stream& stream) {
  check_legacy_use(stream);
  event.work.reset();
  event.capture = 0;
  if (stream.capture != nullptr) {
    event.node = record(stream, {.what = "cudaEventRecord"});
    event.capture = stream.capture->id;
  } else {
    event.work = push(stream, {.what = "cudaEventRecord"});
  }
}

}  // namespace

Left left() {
  const std::scoped_lock lock(mutex());
  Left result{live_allocations(), pinned_count(), 0, events().size(), graph_count()};
  for (const auto& stream : all_streams()) {
    if (!stream->legacy && !stream->replays && !stream->destroyed) ++result.streams;
  }
  return result;
}

}  // namespace retort::standin

using namespace retort::standin;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call("cudaStreamCreateWithFlags", [&] {
    if ((flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) != 0) refuse(cudaErrorInvalidValue);
    Stream& made = new_stream("");
    made.blocking = flags != cudaStreamNonBlocking;
    *stream = handle_of(made);
  });
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return call("cudaStreamDestroy", [&] {
    Stream& stream = stream_of(handle);
    if (stream.legacy) refuse(cudaErrorInvalidResourceHandle);
    forget_in_capture(stream);
    forget_stream(stream);
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return call("cudaStreamSynchronize", [&] {
    Stream& stream = stream_of(handle);
    check_legacy_use(stream);
    if (stream.capture != nullptr) invalidate_and_refuse(*stream.capture, cudaErrorStreamCaptureUnsupported);
    check_unsafe_call();
    synchronize(stream);
  });
}

cudaError_t cudaDeviceSynchronize() {
  return call("cudaDeviceSynchronize", [&] {
    check_no_capture();
    synchronize_all();
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call("cudaStreamWaitEvent", [&] { wait(stream_of(stream), event_of(event)); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call("cudaEventCreateWithFlags", [&] { create(event, flags); });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return call("cudaEventCreate", [&] { create(event, cudaEventDefault); });
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return call("cudaEventDestroy", [&] {
    Event& event = event_of(handle);
    events().erase(&event);
    delete &event;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call("cudaEventRecord", [&] { record_event(event_of(event), stream_of(stream)); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return call("cudaEventSynchronize", [&] {
    const Event& event = event_of(handle);
    if (event.capture != 0) {
      if (Capture* const capture = find_capture(event.capture)) capture->valid = false;
      refuse(cudaErrorCapturedEvent);
    }
    check_unsafe_call();
    if (!event.work) return;
    run_until(event.work);
    host_waited_for(event.work->clock);
    release_above_threshold();
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  return call("cudaEventElapsedTime", [&] {
    const Event &from = event_of(start), &to = event_of(stop);
    if (from.capture != 0 || to.capture != 0) refuse(cudaErrorCapturedEvent);
    if (!from.timed || !to.timed || !from.work || !to.work) refuse(cudaErrorInvalidResourceHandle);
    if (!from.work->done || !to.work->done) refuse(cudaErrorNotReady);
    *milliseconds = static_cast<float>((to.work->time - from.work->time) * 0.01);
  });
}
