#include "engine/version.h"

namespace retort {

const char* version() {
  return RETORT_VERSION;
}

}  // namespace retort
