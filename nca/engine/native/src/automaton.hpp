// A level's weights and a grid of cells, and the steps that update it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"
#include "team.hpp"

namespace nca {

using Grid = std::array<int, 3>;  // voxels along x, y, z

// The weights of one level, folded and padded (nca/engine/native/packing.py), for one instruction set.
class Level {
   public:
    Level(const Kernels& kernels, int channels, int hidden, int kernel, int steps, const float* perceive,
          const float* dense_in, const float* bias, const float* dense_out, bool low_precision);

    StepWeights step(int index) const;
    const Kernels& kernels() const { return *kernels_; }
    int channels() const { return channels_; }
    int hidden() const { return hidden_; }
    int reach() const { return (kernel_ - 1) / 2; }
    int steps() const { return steps_; }

   private:
    const Kernels* kernels_;
    int channels_, hidden_, kernel_, steps_;
    Buffer perceive_, dense_in_, bias_, dense_out_;
    Buffer dense_in_pairs_, dense_out_pairs_;  // empty unless low precision is asked for
};

// The cells of one level. A plane (one x) is rows of cells, channels last, with a border of `reach` cells along
// y and z that mirrors the inside; along x the taps of the first and last planes are mirrored instead.
class State {
   public:
    State(Grid grid, int channels, int reach, int file);

    // image: (inputs, x, y, z).
    void seed(Team& team, const float* image, int inputs);
    // Nearest-neighbour upsampling of a coarser state by `scale`, image channels renewed.
    void refine(Team& team, State& coarse, const float* image, int inputs, Grid scale);
    // Sigmoid of `count` channels from `first` on: (count, x, y, z).
    void probabilities(Team& team, int first, int count, float* out);
    // All channels, without padding: (x, y, z, channels). For tests.
    void read(int channels, float* out);
    void write(int channels, const float* in);

    const Grid& grid() const { return grid_; }
    int channels() const { return channels_; }
    int reach() const { return reach_; }
    std::ptrdiff_t row_stride() const { return row_stride_; }
    Planes& planes() { return planes_; }
    float* plane(int x) const { return planes_[x] + origin_; }  // cell (x, 0, 0)
    // Mirror rows [first, last) of a plane into the border.
    void mirror(float* plane, int first, int last) const;

   private:
    template <class Fill>
    void for_planes(Team& team, const Fill& fill, State* coarse = nullptr, int scale = 1);
    template <class Fill>
    void fill_planes(Team& team, const float* image, int inputs, const Fill& fill, State* coarse = nullptr,
                     int scale = 1);

    Grid grid_;
    int channels_, reach_;
    std::ptrdiff_t row_stride_, origin_;
    Planes planes_;
};

// Bytes of a state's planes, and of what a pass of `steps` steps keeps aside.
std::size_t plane_bytes(const Grid& grid, int channels, int reach);
std::size_t pending_bytes(const Grid& grid, int channels, int reach, int steps);

// Told how many steps of the pass are done; false stops it.
using OnStep = std::function<bool(int)>;

// Memory that passes reuse.
struct Workspace {
    Buffer pending, scratch;
};

// Steps first .. first + keys.size() - 1 of a level in ONE pass over the planes: step t follows step t - 1 at the
// distance at which the planes it needs are final, so a plane is fetched once for all of them.
// False where on_step stopped it; the state is then of no use.
bool sweep(Team& team, Workspace& workspace, const Level& level, State& state, int first,
           const std::vector<FireKey>& keys, std::uint64_t threshold, const OnStep& on_step);

}  // namespace nca
