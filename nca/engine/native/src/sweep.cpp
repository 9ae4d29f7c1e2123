#include <algorithm>
#include <cstring>

#include "automaton.hpp"

namespace nca {

namespace {

Buffer copied(const float* source, std::size_t count) {
    Buffer buffer(count * sizeof(float));
    std::memcpy(buffer.as<float>(), source, count * sizeof(float));
    return buffer;
}

// bfloat16: the upper half of a float32, rounded to nearest even.
std::uint16_t rounded_half(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// (rows, columns) -> (rows / 2, columns, 2): two rows side by side. The matrices' rows are even in number.
Buffer paired(const float* source, std::size_t rows, std::size_t columns) {
    Buffer buffer(rows * columns * sizeof(std::uint16_t));
    auto* out = buffer.as<std::uint16_t>();
    for (std::size_t row = 0; row < rows; ++row)
        for (std::size_t column = 0; column < columns; ++column)
            out[(row / 2 * columns + column) * 2 + row % 2] = rounded_half(source[row * columns + column]);
    return buffer;
}

int mirrored(int x, int n) { return x < 0 ? -x : x >= n ? 2 * (n - 1) - x : x; }

std::size_t rounded(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Values first, then places; one place more than cells, which the branchless search for fired cells may touch.
std::size_t slot_bytes(std::size_t cells, int channels) {
    return rounded(cells * channels * sizeof(float)) + rounded((cells + 1) * sizeof(std::uint32_t));
}

// One pass over the planes: which step works on which plane when, and where its results wait.
class Pass {
   public:
    Pass(Team& team, Workspace& workspace, const Level& level, State& state, int first,
         const std::vector<FireKey>& keys, std::uint64_t threshold)
        : team_(team), workspace_(workspace), level_(level), state_(state), first_(first), keys_(keys),
          threshold_(threshold), steps_(static_cast<int>(keys.size())), reach_(level.reach()),
          lag_(2 * reach_ + 1), taps_(static_cast<std::size_t>(steps_) * (lag_ * lag_)) {
        const Grid& grid = state.grid();
        rows_.resize(team.size() + 1);
        for (int i = 0; i <= team.size(); ++i) rows_[i] = static_cast<int>(static_cast<long>(grid[1]) * i / team.size());
        std::size_t bytes = 0;
        pending_.resize(static_cast<std::size_t>(steps_) * (reach_ + 1) * team.size());
        for (int pass = 0; pass < 2; ++pass) {  // measure, then lay out
            if (pass) workspace.pending.reserve(bytes);
            bytes = 0;
            for (std::size_t i = 0; i < pending_.size(); ++i) {
                const int member = static_cast<int>(i) % team.size();
                const std::size_t cells = static_cast<std::size_t>(rows_[member + 1] - rows_[member]) * grid[2];
                float* values = workspace.pending.as<float>(bytes);
                auto* places = workspace.pending.as<std::uint32_t>(bytes + rounded(cells * level.channels() * sizeof(float)));
                if (pass) pending_[i] = Pending{0, places, values};
                bytes += slot_bytes(cells, level.channels());
            }
        }
        scratch_bytes_ = rounded(level.kernels().scratch_bytes(level.channels(), level.hidden()));
        workspace.scratch.reserve(scratch_bytes_ * team.size());
    }

    bool run(const OnStep& on_step) {
        const int nx = state_.grid()[0];
        const int ticks = nx + reach_ + (steps_ - 1) * lag_;
        const std::function<void(int)> compute = [this](int member) { compute_planes(member); };
        const std::function<void(int)> commit = [this](int member) { commit_planes(member); };
        long planes = 0;
        for (tick_ = 0; tick_ < ticks; ++tick_) {
            state_.planes().window(tick_ - (steps_ - 1) * lag_ - reach_, tick_ + reach_ + 1);
            find_taps();
            team_.run(compute);
            team_.run(commit);
            const long before = planes / nx;
            for (int t = 0; t < steps_; ++t) planes += plane_of(t) >= 0 && plane_of(t) < nx;
            if (on_step && planes / nx > before && !on_step(static_cast<int>(planes / nx))) return false;
        }
        return true;
    }

   private:
    int plane_of(int step) const { return tick_ - step * lag_; }

    Pending& pending(int step, int x, int member) {
        return pending_[(static_cast<std::size_t>(step) * (reach_ + 1) + x % (reach_ + 1)) * team_.size() + member];
    }

    // Planes may lie anywhere, so what a tap adds to a cell's address is found anew for every plane.
    void find_taps() {
        const int nx = state_.grid()[0];
        for (int t = 0; t < steps_; ++t) {
            const int x = plane_of(t);
            if (x < 0 || x >= nx) continue;
            std::ptrdiff_t* taps = taps_.data() + static_cast<std::size_t>(t) * lag_ * lag_;
            for (int dx = -reach_; dx <= reach_; ++dx) {
                const std::ptrdiff_t plane = state_.plane(mirrored(x + dx, nx)) - state_.plane(x);
                for (int dy = -reach_; dy <= reach_; ++dy)
                    *taps++ = plane + dy * state_.row_stride() - static_cast<std::ptrdiff_t>(reach_) * state_.channels();
            }
        }
    }

    void compute_planes(int member) {
        const Grid& grid = state_.grid();
        for (int t = 0; t < steps_; ++t) {
            const int x = plane_of(t);
            if (x < 0 || x >= grid[0]) continue;
            PlaneTask task;
            task.plane = state_.plane(x);
            task.taps = taps_.data() + static_cast<std::size_t>(t) * lag_ * lag_;
            task.row_stride = state_.row_stride();
            task.first_row = rows_[member];
            task.last_row = rows_[member + 1];
            task.depth = grid[2];
            task.index = (static_cast<std::uint32_t>(x) * grid[1] + task.first_row) * grid[2];
            task.key = keys_[t];
            task.threshold = threshold_;
            level_.kernels().compute(level_.step(first_ + t), task, pending(t, x, member),
                                     workspace_.scratch.as<char>(scratch_bytes_ * member));
        }
    }

    void commit_planes(int member) {
        for (int t = 0; t < steps_; ++t) {
            const int x = plane_of(t) - reach_;
            if (x < 0 || x >= state_.grid()[0]) continue;
            float* plane = state_.plane(x);
            level_.kernels().commit(pending(t, x, member), plane, state_.channels());
            state_.mirror(plane, rows_[member], rows_[member + 1]);
        }
    }

    Team& team_;
    Workspace& workspace_;
    const Level& level_;
    State& state_;
    int first_;
    const std::vector<FireKey>& keys_;
    std::uint64_t threshold_;
    int steps_, reach_, lag_, tick_ = 0;
    std::vector<std::ptrdiff_t> taps_;
    std::vector<int> rows_;
    std::vector<Pending> pending_;
    std::size_t scratch_bytes_ = 0;
};

}  // namespace

Level::Level(const Kernels& kernels, int channels, int hidden, int kernel, int steps, const float* perceive,
             const float* dense_in, const float* bias, const float* dense_out, bool low_precision)
    : kernels_(&kernels), channels_(channels), hidden_(hidden), kernel_(kernel), steps_(steps),
      perceive_(copied(perceive, static_cast<std::size_t>(kernel) * kernel * kernel * channels)),
      dense_in_(copied(dense_in, static_cast<std::size_t>(steps) * 2 * channels * hidden)),
      bias_(copied(bias, static_cast<std::size_t>(steps) * hidden)),
      dense_out_(copied(dense_out, static_cast<std::size_t>(hidden) * channels)),
      dense_in_pairs_(low_precision ? paired(dense_in, static_cast<std::size_t>(steps) * 2 * channels, hidden) : Buffer()),
      dense_out_pairs_(low_precision ? paired(dense_out, hidden, channels) : Buffer()) {}

StepWeights Level::step(int index) const {
    const std::size_t matrix = static_cast<std::size_t>(index) * 2 * channels_ * hidden_;
    const auto* pairs = dense_in_pairs_.as<std::uint16_t>();
    return {channels_, hidden_, kernel_, perceive_.as<float>(), dense_in_.as<float>() + matrix,
            bias_.as<float>() + static_cast<std::size_t>(index) * hidden_, dense_out_.as<float>(),
            pairs == nullptr ? nullptr : pairs + matrix, dense_out_pairs_.as<std::uint16_t>()};
}

std::size_t pending_bytes(const Grid& grid, int channels, int reach, int steps) {
    return static_cast<std::size_t>(steps) * (reach + 1) *
           slot_bytes(static_cast<std::size_t>(grid[1]) * grid[2], channels);
}

bool sweep(Team& team, Workspace& workspace, const Level& level, State& state, int first,
           const std::vector<FireKey>& keys, std::uint64_t threshold, const OnStep& on_step) {
    return Pass(team, workspace, level, state, first, keys, threshold).run(on_step);
}

}  // namespace nca
