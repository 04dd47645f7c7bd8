// How a matrix [rows, channels] is cut for per-channel sums and tables. The cut depends on the shape alone.
//
// A tile holds about 32K elements: enough to make setting up and merging its sums cheap, few enough for f32 sums to
// stay accurate (some hundred additions a channel and lane) and for small tensors to give every thread work. Rows
// narrower than a few vector registers are joined, `fold` at a time, into one wide row of `lanes` = fold * channels
// elements; lane j then belongs to channel j % channels. Wide matrices are cut along the channels too, so that a tile's
// accumulators stay in the L1 cache.
#pragma once

#include <algorithm>
#include <cstdint>

namespace retort::kernels::cpu {

inline constexpr std::int64_t kTileElements = 32768;
inline constexpr std::int64_t kMaxLanes = 512;

struct Tile {
  std::int64_t index;        // row tile
  std::int64_t channel;      // first channel
  std::int64_t width;        // channels of the tile
  std::int64_t rows;         // rows of the tile
  std::int64_t offset;       // of its first element
  std::int64_t fold, lanes;  // rows in a wide row, elements in a wide row
  std::int64_t stride;       // between wide rows
};

struct RowTiles {
  std::int64_t rows, channels;
  std::int64_t fold, block, blocks, tile_rows, row_tiles;

  RowTiles(std::int64_t rows_in, std::int64_t channels_in) : rows(rows_in), channels(channels_in) {
    fold = channels < 16 ? 16 : channels < 64 ? 4 : 1;
    blocks = (channels + kMaxLanes - 1) / kMaxLanes;
    block = std::min(channels, ((channels + blocks - 1) / blocks + 15) / 16 * 16);
    tile_rows = (kTileElements / std::max<std::int64_t>(block, 1) + 63) / 64 * 64;
    row_tiles = (rows + tile_rows - 1) / tile_rows;
  }

  std::int64_t count() const { return row_tiles * blocks; }
  std::int64_t work() const { return std::min(rows, tile_rows) * block; }  // elements of a tile

  Tile operator[](std::int64_t i) const {
    const std::int64_t row_tile = i / blocks, channel = i % blocks * block;
    const std::int64_t width = std::min(block, channels - channel);
    return {row_tile,
            channel,
            width,
            std::min(tile_rows, rows - row_tile * tile_rows),
            row_tile * tile_rows * channels + channel,
            fold,
            fold * width,
            fold * channels};
  }
};

// Visits a tile's wide rows: four(offset) for four at a time, one(offset, lanes) for each of the rest. Four at a time
// because a running sum then costs one load and one store of the accumulator for four elements.
template <typename Four, typename One>
void for_wide_rows(const Tile& tile, const Four& four, const One& one) {
  std::int64_t offset = tile.offset, left = tile.rows;
  for (; left >= 4 * tile.fold; left -= 4 * tile.fold, offset += 4 * tile.stride) four(offset);
  for (; left >= tile.fold; left -= tile.fold, offset += tile.stride) one(offset, tile.lanes);
  if (left > 0) one(offset, left * tile.width);
}

// The sum over the wide row's copies of channel c, in f64.
template <typename A>
double fold_lanes(const Tile& tile, const A* lanes, std::int64_t c) {
  double total = 0;
  for (std::int64_t k = 0; k < tile.fold; ++k) total += static_cast<double>(lanes[k * tile.width + c]);
  return total;
}

// A per-channel table laid out for the tile's lanes.
template <typename A>
void spread_lanes(const Tile& tile, const A* channels, A* lanes) {
  for (std::int64_t k = 0; k < tile.fold; ++k) {
    std::copy_n(channels + tile.channel, tile.width, lanes + k * tile.width);
  }
}

}  // namespace retort::kernels::cpu
