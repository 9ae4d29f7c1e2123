#include <cstring>

#include "train_lanes.hpp"

namespace nca {

namespace {

// The places along an axis, border included, that mirror `x` of `n`; the first is `x` itself.
int images_of(int x, int n, int reach, int* images) {
    int count = 0;
    images[count++] = x;
    if (x >= 1 && x <= reach) images[count++] = -x;
    const int beyond = 2 * (n - 1) - x;
    if (beyond >= n && beyond < n + reach) images[count++] = beyond;
    return count;
}

std::uintptr_t whole_lines(std::uintptr_t place) { return (place + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

// Where one thread prepares the gathering of two rows.
template <class T>
struct Tape<T>::Scratch {
    std::vector<std::uint64_t> words;
    std::vector<std::ptrdiff_t> sources;
    std::vector<T> unused;  // where the second row of the last pair goes, if there is none
};

template <class T>
std::size_t Tape<T>::lane_elements() const {
    const std::size_t c = shape_.channels, h = shape_.hidden, k = shape_.kernel;
    return c * (3 * h + k * k * k + 4 * c);
}

template <class T>
LaneSums<T> Tape<T>::lane_sums(int lane) const {
    const std::size_t c = shape_.channels, h = shape_.hidden, k = shape_.kernel;
    T* const base = lane_sums_.template as<T>() + lane * lane_elements();
    return {base, base + c * h, base + 3 * c * h, base + 3 * c * h + k * k * k * c};
}

template <class T>
void Tape<T>::backward(T* gradient, const LevelArrays<double>& gradients) {
    std::lock_guard<std::mutex> lock(trainer_.busy);
    spent_ = true;
    const std::size_t planes = shape_.planes(), inputs = 2 * shape_.channels;
    incoming_ = Pool::Loan(trainer_.pool, sizeof(T) * inputs * largest_);
    settled_ = Pool::Loan(trainer_.pool, sizeof(T) * (inputs + inputs * inputs));
    gradient_ = Pool::Loan(trainer_.pool, sizeof(T) * plane_stride_ * planes);
    perceived_ = Pool::Loan(trainer_.pool, sizeof(T) * plane_stride_ * planes);
    if (kernels_.gather != nullptr)
        windows_ = Pool::Loan(trainer_.pool, sizeof(std::uint32_t) * window_elements() * planes);
    lane_sums_ = Pool::Loan(trainer_.pool, sizeof(T) * lane_elements() * lanes_);
    std::memset(lane_sums(0).dense_out, 0, sizeof(T) * lane_elements() * lanes_);
    std::vector<Scratch> scratch(trainer_.team.size());
    for (Scratch& one : scratch) {
        one.words.resize(shape_.grid[2]);
        one.sources.resize(static_cast<std::size_t>(shape_.kernel) * (shape_.kernel + 1));
        one.unused.resize(row_stride_ + kAlignment / sizeof(T));
    }
    for_planes([&](int index, int, int) {
        std::memset(gradient_.template as<T>() + index * plane_stride_, 0, sizeof(T) * plane_stride_);
        copy_in(gradient, gradient_, index);
    });
    for (int step = shape_.steps - 1; step >= 0; --step) step_back(step, scratch, gradients);
    for_planes([&](int index, int, int) { copy_out(gradient_, gradient, index); });
    merge(gradients);
}

template <class T>
void Tape<T>::step_back(int step, std::vector<Scratch>& scratch, const LevelArrays<double>& gradients) {
    const std::size_t h = shape_.hidden;
    for_planes([&](int index, int lane, int member) {
        const TrainPlane<T> cells = plane(step, index);
        if (windows_) mark_fired(cells, index);
        T* const sums = sums_.template as<T>() + index * 2 * h;
        kernels_.through_out(packed_, cells, normalisation(step), lane_sums(lane), sums, sums + h,
                             this->scratch(member));
        kernels_.mirror(plane_shape_, cells.state);
    });
    take_slopes(step, gradients);
    settle(step);
    for_planes([&](int index, int, int member) {
        kernels_.through_in(packed_, plane(step, index), normalisation(step), settled(), this->scratch(member));
    });
    for_planes([&](int index, int lane, int member) {
        kernels_.through_taps(packed_, plane(step, index), lane_sums(lane).perceive);
        transposed(step, index, scratch[member]);
    });
}

// Bit j (0 .. k) of a window at (y, z): the cell at (y - j, z) fired, where row y - reach is the second of a pair.
template <class T>
void Tape<T>::mark_fired(const TrainPlane<T>& plane, int index) const {
    const int nz = shape_.grid[2];
    const auto stride = static_cast<std::uint32_t>(row_stride_), c = static_cast<std::uint32_t>(shape_.channels);
    std::uint32_t* const windows = windows_.template as<std::uint32_t>() + index * window_elements();
    std::fill_n(windows, window_elements(), 0u);
    std::uint32_t* row = windows;
    std::uint32_t begin = 0;
    for (int i = 0; i < plane.count; ++i) {
        for (; plane.cells[i] >= begin + stride; begin += stride) row += nz;
        std::uint32_t* const place = row + (plane.cells[i] - begin) / c;
        for (int j = 0; j <= shape_.kernel; ++j) place[j * nz] |= 1u << j;
    }
}

template <class T>
void Tape<T>::take_slopes(int step, const LevelArrays<double>& gradients) {
    const int h = shape_.hidden, planes = shape_.planes();
    std::vector<double> sum(h), product(h);
    for (int i = 0; i < planes; ++i) {
        if (counts_[static_cast<std::size_t>(step) * planes + i] == 0) continue;
        const T* const sums = sums_.template as<T>() + static_cast<std::size_t>(i) * 2 * h;
        for (int q = 0; q < h; ++q) sum[q] += sums[q], product[q] += sums[h + q];
    }
    T* const norm = this->norm(step);
    const double count = std::max<double>(1.0, static_cast<double>(fired_[step]));
    for (int q = 0; q < h; ++q) {
        const double inverse = inverse_[static_cast<std::size_t>(step) * h + q], gain = scale_[q] * inverse;
        norm[3 * h + q] = static_cast<T>(gain * sum[q] / count);
        norm[4 * h + q] = static_cast<T>(gain * inverse * inverse * product[q] / count);
        gradients.scale[q] += product[q] * inverse;
        gradients.shift[q] += sum[q];
    }
}

// All lanes' moments of the step, in lane order into the first one's; the others start the next step from zero.
template <class T>
void Tape<T>::settle(int step) {
    const std::size_t count = static_cast<std::size_t>(4) * shape_.channels * shape_.channels;
    const LaneSums<T> first = lane_sums(0);
    for (int lane = 1; lane < lanes_; ++lane) {
        T* const moments = lane_sums(lane).moments;
        for (std::size_t i = 0; i < count; ++i) first.moments[i] += moments[i];
        std::fill_n(moments, count, T{});
    }
    kernels_.settle(packed_, normalisation(step), first.moments, first.dense_in, settled(), scratch(0));
    std::fill_n(first.moments, count, T{});
}

// Transposed convolution onto one plane, from the planes around it and around those of the border that mirror it.
template <class T>
void Tape<T>::transposed(int step, int index, Scratch& scratch) const {
    const int nx = shape_.grid[0], x = index % nx;
    int images[3];
    const int count = images_of(x, nx, shape_.reach(), images);
    for (int i = 0; i < count; ++i) {
        if (kernels_.gather != nullptr) {
            fetch(step, index, images[i] + shape_.reach());
            gather(index, images[i], scratch);
            continue;
        }
        for (int dx = 0; dx < shape_.kernel; ++dx) {
            const int source = images[i] - dx + shape_.reach();
            if (source >= 0 && source < nx)
                kernels_.scatter(packed_, plane(step, index - x + source), plane_shape_, dx, at(gradient_, index));
        }
    }
    kernels_.fold(plane_shape_, at(gradient_, index));
}

// Has the gradients of a plane that is gathered from next on their way: their places jump, so the processor does not
// fetch them by itself.
template <class T>
void Tape<T>::fetch(int step, int index, int source) const {
    const int x = index % shape_.grid[0];
    if (source >= shape_.grid[0]) return;
    const TrainPlane<T> cells = plane(step, index - x + source);
    for (int i = 0; i < cells.count; ++i) __builtin_prefetch(cells.perceived + cells.cells[i]);
}

// The rows of a plane, border included, two at a time from the rows around them.
template <class T>
void Tape<T>::gather(int index, int image, Scratch& scratch) const {
    const int nx = shape_.grid[0], ny = shape_.grid[1], nz = shape_.grid[2], k = shape_.kernel, reach = shape_.reach();
    const int x = index % nx;
    auto* unused = reinterpret_cast<T*>(whole_lines(reinterpret_cast<std::uintptr_t>(scratch.unused.data())));
    for (int y = -reach; y < ny + reach; y += 2) {  // rows y and y + 1
        std::fill(scratch.words.begin(), scratch.words.end(), 0u);
        for (int dx = 0; dx < k; ++dx) {
            const int source = image - dx + reach;
            for (int dy = 0; dy <= k; ++dy)
                scratch.sources[dx * (k + 1) + dy] = (source - x) * plane_stride_ + (y + 1 - dy + reach) * row_stride_;
            if (source < 0 || source >= nx) continue;
            const std::uint32_t* const window = windows_.template as<std::uint32_t>() +
                                                (index - x + source) * window_elements() +
                                                static_cast<std::size_t>(y + 1 + reach) * nz;
            for (int z = 0; z < nz; ++z) scratch.words[z] |= static_cast<std::uint64_t>(window[z]) << (dx * (k + 1));
        }
        const SourceRows<T> rows{nz, scratch.words.data(), scratch.sources.data(), at(perceived_, index)};
        T* const first = at(gradient_, index) + y * row_stride_;
        const bool pair = y + 1 < ny + reach;
        kernels_.gather(packed_, rows, first, pair ? first + row_stride_ : unused + reach * shape_.channels);
    }
}

template <class T>
void Tape<T>::merge(const LevelArrays<double>& gradients) const {
    const std::size_t c = shape_.channels, h = shape_.hidden, k = shape_.kernel;
    for (int lane = 0; lane < lanes_; ++lane) {
        const LaneSums<T> sums = lane_sums(lane);
        for (std::size_t i = 0; i < c; ++i)
            for (std::size_t q = 0; q < h; ++q) gradients.dense_out[q * c + i] += sums.dense_out[i * h + q];
        for (std::size_t i = 0; i < 2 * c * h; ++i) gradients.dense_in[i] += sums.dense_in[i];
        for (std::size_t i = 0; i < k * k * k * c; ++i) gradients.perceive[i] += sums.perceive[i];
    }
}

template void Tape<float>::backward(float*, const LevelArrays<double>&);
template void Tape<double>::backward(double*, const LevelArrays<double>&);

}  // namespace nca
