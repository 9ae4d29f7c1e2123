// How training's work is shared: small helpers of train.cpp and train_back.cpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "train.hpp"

namespace nca {

constexpr int kLanes = 32;  // shares of the planes: enough to balance any team, few enough to sum up
constexpr double kNormEpsilon = 1e-5;  // nca.weights.NORM_EPSILON

inline int filled_rows(int count) { return (count + kRows - 1) / kRows * kRows; }
inline int mirrored_index(int x, int n) { return x < 0 ? -x : x >= n ? 2 * (n - 1) - x : x; }

// work(lane, member): each member first does the lanes next to its last ones, then helps the others.
template <class T>
template <class Work>
void Tape<T>::for_lanes(const Work& work) {
    const int members = trainer_.team.size();
    std::vector<std::atomic<int>> next(members);
    for (int m = 0; m < members; ++m) next[m] = lanes_ * m / members;
    trainer_.team.run([&](int member) {
        for (int i = 0; i < members; ++i) {
            const int owner = (member + i) % members, end = lanes_ * (owner + 1) / members;
            for (int lane; (lane = next[owner].fetch_add(1)) < end;) work(lane, member);
        }
    });
}

template <class T>
template <class Work>
void Tape<T>::for_planes(const Work& work) {
    for_lanes([&](int lane, int member) {
        const int end = static_cast<int>(static_cast<long>(shape_.planes()) * (lane + 1) / lanes_);
        for (int i = static_cast<int>(static_cast<long>(shape_.planes()) * lane / lanes_); i < end; ++i) work(i, lane, member);
    });
}

}  // namespace nca
