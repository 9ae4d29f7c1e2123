// Which cells update: the counter-based draws of nca/randomness.py, bit for bit.
#pragma once

#include <cstdint>

namespace nca {

// always_inline: a shared copy could carry the instructions of a set that the machine lacks.
struct FireKey {
    std::uint32_t low, high;
};

static inline __attribute__((always_inline)) std::uint32_t mix(std::uint32_t v) {
    v ^= v >> 16;
    v *= 0x7FEB352Du;
    v ^= v >> 15;
    v *= 0x846CA68Bu;
    return v ^ (v >> 16);
}

// The draw of one voxel, by its C-order index in the level's grid.
static inline __attribute__((always_inline)) std::uint32_t draw(std::uint32_t index, FireKey key) { return mix(mix(index ^ key.low) ^ key.high); }

}  // namespace nca
