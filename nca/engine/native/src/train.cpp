#include "train.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "train_lanes.hpp"

namespace nca {

Pool::Loan::Piece Pool::take(std::size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto smaller = [](const Loan::Piece& a, const Loan::Piece& b) { return a.bytes < b.bytes; };
    std::sort(free_.begin(), free_.end(), smaller);
    auto found = std::find_if(free_.begin(), free_.end(), [&](const Loan::Piece& one) { return one.bytes >= bytes; });
    if (found != free_.end() && found->bytes <= 4 * bytes) {
        Loan::Piece piece = std::move(*found);
        free_.erase(found);
        return piece;
    }
    const std::size_t roomy = bytes + bytes / 8;  // as many cells fire next time, give or take
    return {std::make_unique<Buffer>(roomy), roomy};
}

void Pool::give(Loan::Piece piece) {
    constexpr std::size_t kPieces = 64;  // more than a cascade borrows at once
    std::lock_guard<std::mutex> lock(mutex_);
    if (free_.size() == kPieces) free_.erase(free_.begin());
    free_.push_back(std::move(piece));
}

template <class T>
Tape<T>::Tape(Trainer& trainer, const TrainKernels<T>& kernels, const TrainShape& shape,
              const LevelArrays<const T>& weights, std::vector<FireKey> keys, std::uint64_t threshold, bool keep)
    : trainer_(trainer), kernels_(kernels), shape_(shape), keys_(std::move(keys)), threshold_(threshold), keep_(keep),
      lanes_(std::min(kLanes, shape.planes())),
      cell_capacity_(filled_rows(shape.grid[1] * shape.grid[2]) + kRows),
      row_stride_(static_cast<std::ptrdiff_t>(shape.grid[2] + 2 * shape.reach()) * shape.channels),
      plane_stride_(row_stride_ * (shape.grid[1] + 2 * shape.reach())),
      origin_(shape.reach() * (row_stride_ + shape.channels)),
      plane_shape_{shape.channels, shape.grid[1], shape.grid[2], shape.reach(), row_stride_} {
    std::lock_guard<std::mutex> lock(trainer_.busy);
    copy_weights(weights);
    find_taps();
    find_fired();
}

template <class T>
void Tape<T>::copy_weights(const LevelArrays<const T>& weights) {
    const std::size_t c = shape_.channels, h = shape_.hidden, k = shape_.kernel, plane = k * k * c;
    weights_ = Pool::Loan(trainer_.pool, sizeof(T) * (k * (2 * plane + 2 * k * c) + c + 6 * c * h + 3 * h));
    T* next = weights_.template as<T>();
    const auto copied = [&](const T* source, std::size_t count) {
        T* const place = next;
        std::memcpy(place, source, count * sizeof(T));
        next += count;
        return place;
    };
    const auto transposed = [&](const T* source, std::size_t rows, std::size_t columns) {
        T* const place = next;
        for (std::size_t i = 0; i < rows; ++i)
            for (std::size_t j = 0; j < columns; ++j) place[j * rows + i] = source[i * columns + j];
        next += rows * columns;
        return place;
    };
    packed_.channels = shape_.channels, packed_.hidden = shape_.hidden, packed_.kernel = shape_.kernel;
    packed_.perceive = copied(weights.perceive, k * plane);  // all are whole cache lines, so all are aligned
    packed_.perceive_padded = next;
    for (std::size_t dx = 0; dx < k; ++dx) {
        next = std::fill_n(next, k * c, T{});
        copied(weights.perceive + dx * plane, plane);
        next = std::fill_n(next, k * c, T{});
    }
    packed_.dense_in = copied(weights.dense_in, 2 * c * h);
    packed_.dense_in_rows = transposed(weights.dense_in, 2 * c, h);
    packed_.dense_out = copied(weights.dense_out, h * c);
    packed_.dense_out_rows = transposed(weights.dense_out, h, c);
    packed_.perceive_bias = copied(weights.perceive_bias, c);
    packed_.bias = copied(weights.bias, h);
    scale_ = copied(weights.scale, h);
    shift_ = copied(weights.shift, h);
}

template <class T>
void Tape<T>::find_taps() {
    const int k = shape_.kernel, reach = shape_.reach(), nx = shape_.grid[0];
    taps_.resize(static_cast<std::size_t>(nx) * k * k);
    for (int x = 0; x < nx; ++x)
        for (int dx = 0; dx < k; ++dx)
            for (int dy = 0; dy < k; ++dy)
                taps_[(static_cast<std::size_t>(x) * k + dx) * k + dy] =
                    (mirrored_index(x + dx - reach, nx) - x) * plane_stride_ + (dy - reach) * row_stride_ -
                    reach * shape_.channels;
}

template <class T>
void Tape<T>::find_fired() {
    const int steps = shape_.steps, planes = shape_.planes(), nx = shape_.grid[0], ny = shape_.grid[1],
              nz = shape_.grid[2];
    cells_ = Pool::Loan(trainer_.pool, sizeof(std::uint32_t) * cell_capacity_ * planes * steps);
    counts_.resize(static_cast<std::size_t>(steps) * planes);
    for_planes([&](int index, int, int) {
        PlaneTask task{};
        task.row_stride = row_stride_, task.first_row = 0, task.last_row = ny, task.depth = nz;
        task.index = static_cast<std::uint32_t>(index % nx) * ny * nz, task.threshold = threshold_;
        for (int step = 0; step < steps; ++step) {
            task.key = keys_[static_cast<std::size_t>(step) * shape_.batch + index / nx];
            const std::size_t place = static_cast<std::size_t>(step) * planes + index;
            auto* cells = cells_.template as<std::uint32_t>() + place * cell_capacity_;
            const int count = counts_[place] = kernels_.fired(task, shape_.channels, cells);
            for (int i = count; i < filled_rows(count); ++i) cells[i] = cells[0];
        }
    });
    rows_.resize(static_cast<std::size_t>(steps) * (planes + 1));
    step_rows_.assign(steps + 1, 0), fired_.assign(steps, 0);
    std::size_t largest = 0;
    for (int step = 0; step < steps; ++step) {
        std::size_t* const rows = rows_.data() + static_cast<std::size_t>(step) * (planes + 1);
        rows[0] = 0;
        for (int i = 0; i < planes; ++i) {
            const int count = counts_[static_cast<std::size_t>(step) * planes + i];
            rows[i + 1] = rows[i] + filled_rows(count), fired_[step] += count;
        }
        step_rows_[step + 1] = keep_ ? step_rows_[step] + rows[planes] : 0;
        largest = std::max(largest, rows[planes]);
    }
    const std::size_t c = shape_.channels, h = shape_.hidden;
    inputs_ = Pool::Loan(trainer_.pool, sizeof(T) * 2 * c * (keep_ ? step_rows_[steps] : largest));
    hidden_ = Pool::Loan(trainer_.pool, sizeof(T) * h * largest);
    largest_ = largest;
    state_ = Pool::Loan(trainer_.pool, sizeof(T) * plane_stride_ * planes);
    scratch_ = Pool::Loan(trainer_.pool, scratch_bytes() * trainer_.team.size());
    norm_ = Pool::Loan(trainer_.pool, sizeof(T) * (5 * h + 2 * c) * steps);
    inverse_.resize(h * steps);
    sums_ = Pool::Loan(trainer_.pool, sizeof(T) * (3 * h + 2 * c) * planes);
}

template <class T>
TrainPlane<T> Tape<T>::plane(int step, int index) const {
    const std::size_t place = static_cast<std::size_t>(step) * shape_.planes() + index;
    const std::size_t row = rows_[static_cast<std::size_t>(step) * (shape_.planes() + 1) + index];
    TrainPlane<T> plane;
    plane.taps = taps_.data() + static_cast<std::size_t>(index % shape_.grid[0]) * shape_.kernel * shape_.kernel;
    plane.count = counts_[place];
    plane.cells = cells_.template as<std::uint32_t>() + place * cell_capacity_;
    plane.state = at(state_, index), plane.gradient = at(gradient_, index), plane.perceived = at(perceived_, index);
    plane.inputs = inputs_.template as<T>() + (step_rows_[step] + row) * 2 * shape_.channels;
    plane.hidden = hidden_ ? hidden_.template as<T>() + row * shape_.hidden : nullptr;
    plane.incoming = incoming_ ? incoming_.template as<T>() + row * 2 * shape_.channels : nullptr;
    return plane;
}

template <class T>
T* Tape<T>::at(const Pool::Loan& states, int index) const {
    return states ? states.template as<T>() + index * plane_stride_ + origin_ : nullptr;
}

template <class T>
Normalisation<T> Tape<T>::normalisation(int step) const {
    const int h = shape_.hidden;
    const T* const base = norm(step);
    return {base, base + h, base + 2 * h, base + 3 * h, base + 4 * h, base + 5 * h};
}

template <class T>
void Tape<T>::copy_in(const T* in, const Pool::Loan& to, int index) const {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(shape_.grid[2]) * shape_.channels;
    const T* const from = in + index * row * shape_.grid[1];
    for (int y = 0; y < shape_.grid[1]; ++y) std::memcpy(at(to, index) + y * row_stride_, from + y * row, row * sizeof(T));
}

template <class T>
void Tape<T>::copy_out(const Pool::Loan& from, T* out, int index) const {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(shape_.grid[2]) * shape_.channels;
    T* const to = out + index * row * shape_.grid[1];
    for (int y = 0; y < shape_.grid[1]; ++y) std::memcpy(to + y * row, at(from, index) + y * row_stride_, row * sizeof(T));
}

template <class T>
void Tape<T>::forward(const T* in, T* out, const StepStatistics& statistics) {
    std::lock_guard<std::mutex> lock(trainer_.busy);
    for_planes([&](int index, int, int) {
        copy_in(in, state_, index);
        kernels_.mirror(plane_shape_, at(state_, index));
    });
    const std::size_t h = shape_.hidden, c = shape_.channels;
    for (int step = 0; step < shape_.steps; ++step) {
        for_planes([&](int index, int, int) {
            T* const sums = sums_.template as<T>() + index * (3 * h + 2 * c);
            kernels_.hidden(packed_, plane(step, index), sums, sums + h, sums + 2 * h, sums + 3 * h);
        });
        take_statistics(step, statistics);
        for_planes([&](int index, int, int member) {
            kernels_.update(packed_, plane(step, index), normalisation(step), scratch(member));
            kernels_.mirror(plane_shape_, at(state_, index));
        });
    }
    for_planes([&](int index, int, int) { copy_out(state_, out, index); });
    hidden_ = Pool::Loan();
}

// Means and variances of all cells from those of the planes, in their order (Chan et al., 1979).
template <class T>
void Tape<T>::take_statistics(int step, const StepStatistics& statistics) {
    const int h = shape_.hidden, inputs = 2 * shape_.channels, planes = shape_.planes();
    std::vector<double> centre(inputs);
    double *const mean = statistics.mean + static_cast<std::size_t>(step) * h,
           *const variance = statistics.variance + static_cast<std::size_t>(step) * h;
    std::fill_n(mean, h, 0.0), std::fill_n(variance, h, 0.0);
    double seen = 0.0;
    for (int i = 0; i < planes; ++i) {
        const double count = counts_[static_cast<std::size_t>(step) * planes + i];
        if (count == 0) continue;
        const double share = count / (seen + count), weight = seen * share;
        const T *const shift = sums_.template as<T>() + static_cast<std::size_t>(i) * (3 * h + inputs),
                *const sum = shift + h, *const squares = sum + h, *const input = squares + h;
        for (int q = 0; q < h; ++q) {
            const double around = sum[q] / count, delta = shift[q] + around - mean[q];
            variance[q] += squares[q] - sum[q] * around + delta * delta * weight;
            mean[q] += delta * share;
        }
        for (int j = 0; j < inputs; ++j) centre[j] += input[j];
        seen += count;
    }
    statistics.count[step] = fired_[step];
    T* const norm = this->norm(step);
    for (int q = 0; q < h; ++q) {
        variance[q] = variance[q] < 0.0 ? 0.0 : variance[q] / std::max(seen, 1.0);
        const double inverse = 1.0 / std::sqrt(variance[q] + kNormEpsilon), gain = scale_[q] * inverse;
        inverse_[static_cast<std::size_t>(step) * h + q] = inverse;
        norm[q] = static_cast<T>(mean[q]);
        norm[h + q] = static_cast<T>(gain);
        norm[2 * h + q] = static_cast<T>(shift_[q] - mean[q] * gain);
    }
    for (int j = 0; j < inputs; ++j) norm[5 * h + j] = static_cast<T>(centre[j] / std::max(seen, 1.0));
}

template class Tape<float>;
template class Tape<double>;

}  // namespace nca
