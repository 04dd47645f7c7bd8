// Names and shapes of arrays as a file has them, one "NAME ROWS COLUMNS" a line, beside those of a small residual
// network: whatever the names, each array serves once, each wanted one is found or missing, and a translation of ours
// stays what it is.
#include <cstdlib>
#include <set>
#include <sstream>

#include "engine/array_match.h"
#include "engine/weight_names.h"
#include "kernels/error.h"

namespace {

using retort::WantedArray;

const std::vector<WantedArray>& wanted() {
  static const std::vector<WantedArray> arrays = [] {
    std::vector<WantedArray> list{{"conv1.weight", {4, 2}}, {"fc.weight", {3, 4}}, {"fc.bias", {3}}};
    for (const char* norm : {"bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1", "layer2.0.downsample.1"}) {
      for (const char* part : {".weight", ".bias", ".running_mean", ".running_var"}) {
        list.push_back({std::string(norm) + part, {4}});
      }
      list.push_back({std::string(norm) + ".num_batches_tracked", {}});
    }
    for (const char* conv : {"layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.downsample.0"}) {
      list.push_back({std::string(conv) + ".weight", {4, 4}});
    }
    return list;
  }();
  return arrays;
}

bool is_ours(const std::string& name) {
  for (const WantedArray& array : wanted()) {
    if (array.name == name) return true;
  }
  return false;
}

void require(bool held) {
  if (!held) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  retort::WeightFile file;
  file.path = "fuzz";
  std::istringstream lines(std::string(reinterpret_cast<const char*>(data), size));
  for (std::string line; std::getline(lines, line) && file.arrays.size() < 200;) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    retort::NamedArray array;
    array.name = name;
    for (int extent = 0; array.shape.size() < 4 && words >> extent;) array.shape.push_back(extent & 7);
    array.bytes.resize(static_cast<std::size_t>(array.numel()) * 4);
    file.arrays.push_back(std::move(array));
    if (const std::string ours = retort::our_name(name, is_ours); !ours.empty()) {
      require(is_ours(ours) && retort::our_name(ours, is_ours) == ours);
    }
    retort::without_numbers(name);
    retort::is_bookkeeping(name);
  }
  try {
    const retort::ArrayMatch match = retort::match_arrays(file, wanted());
    std::set<const retort::NamedArray*> used;
    for (const auto& [name, array] : match.found) {
      require(is_ours(name) && array >= file.arrays.data() && array < file.arrays.data() + file.arrays.size());
      require(used.insert(array).second);
    }
    for (const std::string& name : match.missing) require(is_ours(name) && !match.found.contains(name));
    for (const WantedArray& array : wanted()) {
      const bool missing = std::find(match.missing.begin(), match.missing.end(), array.name) != match.missing.end();
      require(match.found.contains(array.name) || missing || retort::is_bookkeeping(array.name));
    }
    retort::misfit_text(file, wanted(), match);
  } catch (const retort::Error&) {
  }
  return 0;
}
