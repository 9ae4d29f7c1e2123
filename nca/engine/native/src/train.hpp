// Training: all steps of a level forward, with what backward needs on a tape, and back.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"
#include "team.hpp"
#include "train_kernels.hpp"

namespace nca {

// Lends memory and gets it back: pages fresh from the system would cost as much time as what is computed on them.
class Pool {
   public:
    class Loan {
       public:
        Loan() = default;
        Loan(Pool& pool, std::size_t bytes) : pool_(&pool), piece_(pool.take(bytes)) {}
        Loan(Loan&& other) noexcept = default;
        Loan& operator=(Loan&& other) noexcept {
            std::swap(pool_, other.pool_);
            std::swap(piece_, other.piece_);
            return *this;
        }
        ~Loan() {
            if (piece_.buffer) pool_->give(std::move(piece_));
        }
        explicit operator bool() const { return piece_.buffer != nullptr; }
        template <class T>
        T* as() const { return piece_.buffer->template as<T>(); }

       private:
        friend class Pool;
        struct Piece {
            std::unique_ptr<Buffer> buffer;
            std::size_t bytes = 0;
        };
        Pool* pool_ = nullptr;
        Piece piece_;
    };

   private:
    Loan::Piece take(std::size_t bytes);
    void give(Loan::Piece piece);

    std::mutex mutex_;
    std::vector<Loan::Piece> free_;
};

// The threads and the memory of training. Outlives its tapes.
struct Trainer {
    explicit Trainer(int threads) : team(threads) {}
    Team team;
    Pool pool;
    std::mutex busy;  // one level at a time
};

struct TrainShape {
    int batch;
    std::array<int, 3> grid;  // x, y, z
    int channels, hidden, kernel, steps;

    int reach() const { return (kernel - 1) / 2; }
    int planes() const { return batch * grid[0]; }
};

// A level's weights as Python gives them: those of `TrainWeights` that are not derived.
template <class T>
struct LevelArrays {
    T *perceive, *perceive_bias, *dense_in, *bias, *scale, *shift, *dense_out;
};

// Each step's batch statistics: (steps, h), (steps, h) and (steps).
struct StepStatistics {
    double *mean, *variance;
    std::int64_t* count;
};

template <class T>
class Tape {
   public:
    // keys: (steps, batch). Without `keep` nothing is remembered, and there is no backward.
    Tape(Trainer& trainer, const TrainKernels<T>& kernels, const TrainShape& shape, const LevelArrays<const T>& weights,
         std::vector<FireKey> keys, std::uint64_t threshold, bool keep);

    // All steps: (batch, x, y, z, c) -> the same.
    void forward(const T* in, T* out, const StepStatistics& statistics);
    // Once: the gradient by the last state becomes that by the first, in place; adds to the weights' gradients
    // (those by the biases stay: what is constant over the batch disappears in the normalisation).
    void backward(T* gradient, const LevelArrays<double>& gradients);
    bool spent() const { return spent_; }
    const TrainShape& shape() const { return shape_; }

   private:
    struct Scratch;

    // A lane is a fixed share of the planes: its sums are taken in one order, whoever works on it.
    template <class Work>
    void for_lanes(const Work& work);   // work(lane, member)
    template <class Work>
    void for_planes(const Work& work);  // work(plane, lane, member)
    TrainPlane<T> plane(int step, int index) const;
    Normalisation<T> normalisation(int step) const;
    T* at(const Pool::Loan& states, int index) const;
    void copy_weights(const LevelArrays<const T>& weights);
    void find_taps();
    void find_fired();
    void copy_in(const T* in, const Pool::Loan& to, int index) const;
    void copy_out(const Pool::Loan& from, T* out, int index) const;
    void take_statistics(int step, const StepStatistics& statistics);
    void step_back(int step, std::vector<Scratch>& scratch, const LevelArrays<double>& gradients);
    void mark_fired(const TrainPlane<T>& plane, int index) const;
    void take_slopes(int step, const LevelArrays<double>& gradients);
    void settle(int step);
    void transposed(int step, int index, Scratch& scratch) const;
    void fetch(int step, int index, int source) const;
    void gather(int index, int image, Scratch& scratch) const;
    void merge(const LevelArrays<double>& gradients) const;
    std::size_t window_elements() const {
        return static_cast<std::size_t>(shape_.grid[1] + shape_.kernel) * shape_.grid[2];
    }
    std::size_t lane_elements() const;
    LaneSums<T> lane_sums(int lane) const;
    Settled<T> settled() const { return {settled_.as<T>(), settled_.as<T>() + 2 * shape_.channels}; }
    T* norm(int step) const {
        return norm_.as<T>() + static_cast<std::size_t>(step) * (5 * shape_.hidden + 2 * shape_.channels);
    }
    // A thread's intermediates in the dense layers.
    std::size_t scratch_bytes() const { return train_scratch_bytes<T>(shape_.channels, shape_.hidden); }
    void* scratch(int member) const { return scratch_.as<char>() + member * scratch_bytes(); }

    Trainer& trainer_;
    const TrainKernels<T>& kernels_;
    TrainShape shape_;
    std::vector<FireKey> keys_;
    std::uint64_t threshold_;
    bool keep_, spent_ = false;
    int lanes_;
    std::size_t largest_ = 0;        // rows of a step
    std::size_t cell_capacity_;      // of one plane's list of fired cells
    std::ptrdiff_t row_stride_, plane_stride_, origin_;
    PlaneShape plane_shape_;
    std::vector<std::ptrdiff_t> taps_;             // (x, k, k)
    std::vector<int> counts_;                      // (steps, planes) fired cells
    std::vector<std::size_t> rows_;                // (steps, planes + 1) where each plane's rows begin, of a step's
    std::vector<std::size_t> step_rows_;           // (steps + 1) where each step's rows begin
    std::vector<std::int64_t> fired_;              // (steps) cells
    std::vector<double> inverse_;                  // (steps, h) of the standard deviations
    Pool::Loan weights_, scratch_, norm_, cells_, state_, inputs_, hidden_, sums_;
    Pool::Loan gradient_, perceived_, incoming_, windows_, lane_sums_, settled_;  // only backward
    TrainWeights<T> packed_{};
    const T *scale_ = nullptr, *shift_ = nullptr;
};

}  // namespace nca
