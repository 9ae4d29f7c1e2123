#include <algorithm>
#include <cmath>
#include <cstring>

#include "automaton.hpp"

namespace nca {

namespace {

constexpr int kPlanesAtOnce = 16;  // per round of work for the team

int padded(int n, int reach) { return n + 2 * reach; }

}  // namespace

std::size_t plane_bytes(const Grid& grid, int channels, int reach) {
    return sizeof(float) * channels * static_cast<std::size_t>(padded(grid[1], reach)) * padded(grid[2], reach);
}

State::State(Grid grid, int channels, int reach, int file)
    : grid_(grid),
      channels_(channels),
      reach_(reach),
      row_stride_(static_cast<std::ptrdiff_t>(padded(grid[2], reach)) * channels),
      origin_(reach * row_stride_ + static_cast<std::ptrdiff_t>(reach) * channels),
      planes_(grid[0], plane_bytes(grid, channels, reach), file) {}

void State::mirror(float* plane, int first, int last) const {
    const int ny = grid_[1], nz = grid_[2];
    const std::size_t cell = sizeof(float) * channels_, row = cell * padded(nz, reach_);
    for (int y = first; y < last; ++y) {
        float* start = plane + y * row_stride_;
        for (int i = 1; i <= reach_; ++i) {
            std::memcpy(start - i * channels_, start + i * channels_, cell);
            std::memcpy(start + (nz - 1 + i) * channels_, start + (nz - 1 - i) * channels_, cell);
        }
        const float* whole = start - reach_ * channels_;
        if (y >= 1 && y <= reach_) std::memcpy(plane - y * row_stride_ - reach_ * channels_, whole, row);
        const int beyond = 2 * (ny - 1) - y;
        if (beyond >= ny && beyond < ny + reach_)
            std::memcpy(plane + beyond * row_stride_ - reach_ * channels_, whole, row);
    }
}

template <class Fill>
void State::for_planes(Team& team, const Fill& fill, State* coarse, int scale) {
    for (int low = 0; low < grid_[0]; low += kPlanesAtOnce) {
        const int high = std::min(low + kPlanesAtOnce, grid_[0]);
        planes_.window(low, high);
        if (coarse != nullptr) coarse->planes_.window(low / scale, (high - 1) / scale + 1);
        team.run([&](int member) {
            for (int x = low + member; x < high; x += team.size()) fill(x, plane(x));
        });
    }
}

template <class Fill>
void State::fill_planes(Team& team, const float* image, int inputs, const Fill& fill, State* coarse, int scale) {
    const std::size_t voxels = static_cast<std::size_t>(grid_[0]) * grid_[1] * grid_[2];
    for_planes(team, [&](int x, float* start) {
        for (int y = 0; y < grid_[1]; ++y) {
            fill(x, y, start + y * row_stride_);
            const std::size_t index = (static_cast<std::size_t>(x) * grid_[1] + y) * grid_[2];
            for (int z = 0; z < grid_[2]; ++z)
                for (int i = 0; i < inputs; ++i)
                    start[y * row_stride_ + z * channels_ + i] = image[i * voxels + index + z];
        }
        mirror(start, 0, grid_[1]);
    }, coarse, scale);
}

void State::seed(Team& team, const float* image, int inputs) {
    const std::size_t bytes = sizeof(float) * channels_ * grid_[2];
    fill_planes(team, image, inputs, [&](int, int, float* row) { std::memset(row, 0, bytes); });
}

void State::refine(Team& team, State& coarse, const float* image, int inputs, Grid scale) {
    const std::size_t cell = sizeof(float) * channels_;
    fill_planes(team, image, inputs, [&](int x, int y, float* row) {
        const float* source = coarse.plane(x / scale[0]) + (y / scale[1]) * coarse.row_stride_;
        for (int z = 0; z < grid_[2]; ++z)
            std::memcpy(row + z * channels_, source + (z / scale[2]) * channels_, cell);
    }, &coarse, scale[0]);
}

void State::probabilities(Team& team, int first, int count, float* out) {
    const std::size_t voxels = static_cast<std::size_t>(grid_[0]) * grid_[1] * grid_[2];
    for_planes(team, [&](int x, const float* start) {
        for (int y = 0; y < grid_[1]; ++y) {
            const std::size_t index = (static_cast<std::size_t>(x) * grid_[1] + y) * grid_[2];
            for (int i = 0; i < count; ++i)
                for (int z = 0; z < grid_[2]; ++z)
                    out[i * voxels + index + z] =
                        1.0f / (1.0f + std::exp(-start[y * row_stride_ + z * channels_ + first + i]));
        }
    });
}

void State::read(int channels, float* out) {
    Team alone(1);
    for_planes(alone, [&](int x, const float* start) {
        for (int y = 0; y < grid_[1]; ++y)
            for (int z = 0; z < grid_[2]; ++z)
                std::memcpy(out + ((static_cast<std::size_t>(x) * grid_[1] + y) * grid_[2] + z) * channels,
                            start + y * row_stride_ + z * channels_, sizeof(float) * channels);
    });
}

void State::write(int channels, const float* in) {
    Team alone(1);
    for_planes(alone, [&](int x, float* start) {
        for (int y = 0; y < grid_[1]; ++y)
            for (int z = 0; z < grid_[2]; ++z) {
                float* cell = start + y * row_stride_ + z * channels_;
                std::memset(cell, 0, sizeof(float) * channels_);
                std::memcpy(cell, in + ((static_cast<std::size_t>(x) * grid_[1] + y) * grid_[2] + z) * channels,
                            sizeof(float) * channels);
            }
        mirror(start, 0, grid_[1]);
    });
}

}  // namespace nca
