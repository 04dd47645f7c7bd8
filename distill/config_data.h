// The [data] section; see distill/config.h.
#pragma once

#include "distill/config.h"

namespace retort {

DataConfig read_data_config(ConfigSection section);
ConfigTable to_table(const DataConfig& config);

}  // namespace retort
