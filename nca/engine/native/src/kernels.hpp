// What every instruction set's kernels offer, as plain functions on plain data.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fire.hpp"

namespace nca {

// Channels are padded to whole cache lines, so a cell's state begins on one; hidden units to pairs of them.
constexpr int kChannelQuantum = 16;
constexpr int kHiddenQuantum = 32;
constexpr std::size_t kAlignment = 64;  // bytes
constexpr int kBlock = 24;              // cells computed together; their intermediates stay in the L1 cache

// One step's weights. c and h are the padded counts; padding is zero.
struct StepWeights {
    int channels, hidden, kernel;
    const float* perceive;   // (k, k, k, c)
    const float* dense_in;   // (2c, h), normalisation folded in
    const float* bias;       // (h)
    const float* dense_out;  // (h, c), zero for the image channels
    const std::uint16_t* dense_in_pairs;   // bfloat16 (c, h, 2): pairs of inputs; null unless low precision is asked for
    const std::uint16_t* dense_out_pairs;  // bfloat16 (h / 2, c, 2): pairs of hidden units; likewise
};

// Rows [first_row, last_row) of one plane of the grid.
struct PlaneTask {
    const float* plane;          // cell (x, 0, 0)
    const std::ptrdiff_t* taps;  // (k, k): floats from a cell to (x + dx, y + dy, z - reach)
    std::ptrdiff_t row_stride;   // floats
    int first_row, last_row, depth;
    std::uint32_t index;      // of (x, first_row, 0)
    FireKey key;
    std::uint64_t threshold;  // a cell fires where its draw is below; 2^32: every cell fires
};

// New states of the cells that fired, kept aside until no neighbour needs the old ones.
struct Pending {
    int count;
    std::uint32_t* cells;  // floats from cell (x, 0, 0)
    float* values;         // (count, c)
};

template <class T>
struct TrainKernels;  // train_kernels.hpp

struct Kernels {
    const char* name;
    bool bf16;  // computes with pairs where the weights have them
    std::size_t (*scratch_bytes)(int channels, int hidden);
    void (*compute)(const StepWeights&, const PlaneTask&, Pending&, void* scratch);
    void (*commit)(const Pending&, float* plane, int channels);
    double (*multiply_adds)(long iterations);  // does them, returns how many: the machine's peak
    const TrainKernels<float>& (*train_float)(int channels, int hidden, int kernel);
    const TrainKernels<double>& (*train_double)(int channels, int hidden, int kernel);
};

}  // namespace nca
