// Ctrl-C for programs that train: the first asks the step in progress to be the last, the second ends the program.
#pragma once

#include <atomic>
#include <csignal>

namespace retort::tools {

// A lock-free atomic is what a signal handler may write and threads may read.
inline std::atomic<int> interrupts{0};

inline void on_interrupt(int signal) {
  if (interrupts.fetch_add(1) > 0) {  // the second time, at once
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

inline void catch_interrupts() {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
}

}  // namespace retort::tools
