// Which instruction sets' kernels were built, and which of them this machine runs.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace nca {

// Those that run here, fastest first; never empty.
const std::vector<const Kernels*>& available();

// The kernels of one instruction set, or the fastest ones for an empty name; throws std::invalid_argument.
const Kernels& kernels_of(const std::string& name);

// Multiply-adds per second (float32) and bytes per second (a = b + s * c on arrays larger than caches), measured.
double peak_multiply_adds(int threads, double seconds);
double memory_bandwidth(int threads, double seconds);

}  // namespace nca
