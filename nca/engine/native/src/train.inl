// Training's kernels, forward and backward of one step, for the cells that fired.

namespace NCA_ARCH {
namespace {

constexpr bool kManyRegisters = NCA_VECTOR_REGISTERS == 32;
constexpr int kTile = kManyRegisters ? 12 : 4;   // rows at once in a dense layer
constexpr int kOuter = kManyRegisters ? 8 : 4;   // rows of a weight gradient at once
constexpr int kCells = 8;                        // cells at once in the convolution
static_assert(nca::kRows % kTile == 0 && nca::kGroup % nca::kRows == 0);

#define NCA_LAMBDA __attribute__((always_inline))

template <class T>
using V = typename Simd<T>::Vector;

NCA_INLINE int filled(int count) { return (count + nca::kRows - 1) / nca::kRows * nca::kRows; }
NCA_INLINE int least(int a, int b) { return a < b ? a : b; }

// Have a row that is read next on its way. It may lie past the end: nothing is read.
template <class T, int N>
NCA_INLINE void ahead(const T* row, int n) {
    for (int i = 0; i < known<N>(n); i += static_cast<int>(nca::kAlignment / sizeof(T))) __builtin_prefetch(row + i);
}

template <class T>
NCA_INLINE V<T> positive(V<T> z, V<T> value) { return z > V<T>{} ? value : V<T>{}; }

// store(row, column, sum) for every vector of rows (rows, n) times matrix (n, m), plus the bias; rows: whole blocks.
template <class T, int N, int M, class Store>
NCA_INLINE void rows_times(const T* in, int rows, int n_, const T* matrix, int m_, const T* bias, const Store& store) {
    using S = Simd<T>;
    constexpr int U = M >= 2 * S::width ? 2 : 1;
    const int n = known<N>(n_), m = known<M>(m_);
    for (int first = 0; first < rows; first += kTile)
        for (int q = 0; q < m; q += U * S::width) {
            V<T> sum[kTile][U];
            NCA_UNROLL for (int u = 0; u < U; ++u) {
                const V<T> start = bias == nullptr ? V<T>{} : S::load(bias + q + u * S::width);
                NCA_UNROLL for (int p = 0; p < kTile; ++p) sum[p][u] = start;
            }
            const T *x = in + static_cast<std::ptrdiff_t>(first) * n, *row = matrix + q;
            for (int i = 0; i < n; ++i, row += m) {
                V<T> w[U];
                NCA_UNROLL for (int u = 0; u < U; ++u) w[u] = S::load(row + u * S::width);
                NCA_UNROLL for (int p = 0; p < kTile; ++p) {
                    const V<T> value = S::splat(x[p * n + i]);
                    NCA_UNROLL for (int u = 0; u < U; ++u) sum[p][u] += value * w[u];
                }
            }
            NCA_UNROLL for (int p = 0; p < kTile; ++p)
                NCA_UNROLL for (int u = 0; u < U; ++u) store(first + p, q + u * S::width, sum[p][u]);
        }
}

// sum (n, m) += left (rows, n) transposed times right (rows, m).
template <class T, int N, int M>
NCA_INLINE void add_outer(const T* left, const T* right, int rows, int n_, int m_, T* sum) {
    using S = Simd<T>;
    constexpr int U = M >= 2 * S::width ? 2 : 1;
    const int n = known<N>(n_), m = known<M>(m_);
    for (int i = 0; i < n; i += kOuter)
        for (int q = 0; q < m; q += U * S::width) {
            V<T> acc[kOuter][U];
            T* const place = sum + i * m + q;
            NCA_UNROLL for (int a = 0; a < kOuter; ++a)
                NCA_UNROLL for (int u = 0; u < U; ++u) acc[a][u] = S::load(place + a * m + u * S::width);
            const T *l = left + i, *r = right + q;
            for (int row = 0; row < rows; ++row, l += n, r += m) {
                V<T> value[U];
                NCA_UNROLL for (int u = 0; u < U; ++u) value[u] = S::load(r + u * S::width);
                NCA_UNROLL for (int a = 0; a < kOuter; ++a) {
                    const V<T> factor = S::splat(l[a]);
                    NCA_UNROLL for (int u = 0; u < U; ++u) acc[a][u] += factor * value[u];
                }
            }
            NCA_UNROLL for (int a = 0; a < kOuter; ++a)
                NCA_UNROLL for (int u = 0; u < U; ++u) S::store(place + a * m + u * S::width, acc[a][u]);
        }
}

// Own state and convolution of a group of cells, into the tape. With a large kernel one plane of taps goes over the
// group before the next does: so what they read stays in the L1 cache.
template <class T, int C, int K>
NCA_INLINE void perceive_group(const nca::TrainWeights<T>& weights, const nca::TrainPlane<T>& plane, int group, int end) {
    using S = Simd<T>;
    const int c = known<C>(weights.channels), k = known<K>(weights.kernel), rows = k <= 5 ? k * k : k;
    for (int low = 0; low < k * k; low += rows)
        for (int first = group; first < end; first += kCells)
            for (int j = 0; j < c; j += S::width) {
                const T* cell[kCells];
                T* perceived[kCells];
                V<T> sum[kCells];
                NCA_UNROLL for (int p = 0; p < kCells; ++p) {
                    const int row = least(first + p, end - 1);  // the last again, where there are no more
                    cell[p] = plane.state + plane.cells[row] + j;
                    perceived[p] = plane.inputs + static_cast<std::ptrdiff_t>(row) * 2 * c + c + j;
                    sum[p] = S::load(low == 0 ? weights.perceive_bias + j : perceived[p]);
                }
                const T* tap = weights.perceive + static_cast<std::ptrdiff_t>(low) * k * c + j;
                for (int row = low; row < low + rows; ++row) {
                    const std::ptrdiff_t offset = plane.taps[row];
                    NCA_UNROLL for (int z = 0; z < k; ++z, tap += c) {
                        const V<T> w = S::load(tap);
                        NCA_UNROLL for (int p = 0; p < kCells; ++p) sum[p] += S::load(cell[p] + offset + z * c) * w;
                    }
                }
                NCA_UNROLL for (int p = 0; p < kCells; ++p) S::store(perceived[p], sum[p]);
            }
    for (int row = group; row < filled(end); ++row)
        for (int j = 0; j < c; j += S::width) {
            T* const own = plane.inputs + static_cast<std::ptrdiff_t>(row) * 2 * c + j;
            S::store(own, row < end ? S::load(plane.state + plane.cells[row] + j) : V<T>{});
            if (row >= end) S::store(own + c, V<T>{});
        }
}

template <class T, int C, int H, int K>
void hidden_of(const nca::TrainWeights<T>& weights, const nca::TrainPlane<T>& plane, T* shift, T* sum, T* squares,
               T* inputs_sum) {
    using S = Simd<T>;
    const int c = known<C>(weights.channels), h = known<H>(weights.hidden);
    for (int group = 0; group < plane.count; group += nca::kGroup) {
        const int rows = least(nca::kGroup, plane.count - group);
        perceive_group<T, C, K>(weights, plane, group, group + rows);
        T* const hidden = plane.hidden + static_cast<std::ptrdiff_t>(group) * h;
        const T* const inputs = plane.inputs + static_cast<std::ptrdiff_t>(group) * 2 * c;
        rows_times<T, 2 * C, H>(inputs, filled(rows), 2 * c, weights.dense_in, h, weights.bias,
                                [&](int p, int q, V<T> u) NCA_LAMBDA { S::store(hidden + p * h + q, u); });
        for (int i = 0; i < 2 * c; i += S::width) {
            V<T> total = group ? S::load(inputs_sum + i) : V<T>{};
            for (int p = 0; p < rows; ++p) total += S::load(inputs + p * 2 * c + i);
            S::store(inputs_sum + i, total);
        }
        for (int q = 0; q < h; q += S::width) {
            if (group == 0) S::store(shift + q, S::load(hidden + q));
            const V<T> around = S::load(shift + q);
            V<T> total = group ? S::load(sum + q) : V<T>{}, square = group ? S::load(squares + q) : V<T>{};
            for (int p = 0; p < rows; ++p) {
                const V<T> value = S::load(hidden + p * h + q) - around;
                total += value, square += value * value;
            }
            S::store(sum + q, total), S::store(squares + q, square);
        }
    }
}

template <class T, int C, int H, int K>
void update_cells(const nca::TrainWeights<T>& weights, const nca::TrainPlane<T>& plane,
                  const nca::Normalisation<T>& norm, void* scratch) {
    using S = Simd<T>;
    const int c = known<C>(weights.channels), h = known<H>(weights.hidden);
    for (int first = 0; first < plane.count; first += nca::kRows) {
        const T* const hidden = plane.hidden + static_cast<std::ptrdiff_t>(first) * h;
        const T* const inputs = plane.inputs + static_cast<std::ptrdiff_t>(first) * 2 * c;
        T* const active = static_cast<T*>(scratch);
        for (int p = 0; p < nca::kRows; ++p) {
            for (int q = 0; q < h; q += S::width) {
                const V<T> z = S::load(hidden + p * h + q) * S::load(norm.gain + q) + S::load(norm.offset + q);
                S::store(active + p * h + q, z < V<T>{} ? V<T>{} : z);  // below zero, not above: a NaN stays a NaN
            }
            ahead<T, H>(hidden + (nca::kGroup + p) * h, h);
        }
        rows_times<T, H, C>(active, nca::kRows, h, weights.dense_out, c, nullptr, [&](int p, int j, V<T> y) NCA_LAMBDA {
            if (first + p < plane.count)
                S::store(plane.state + plane.cells[first + p] + j, S::load(inputs + p * 2 * c + j) + y);
        });
    }
}

// Inputs around their mean, a group of rows; zero where filled up.
template <class T, int C>
NCA_INLINE void centre(const T* inputs, const T* mean, int rows, int count, int c_, T* centred) {
    using S = Simd<T>;
    const int n = 2 * known<C>(c_);
    for (int p = 0; p < rows; ++p)
        for (int i = 0; i < n; i += S::width)
            S::store(centred + p * n + i, p < count ? S::load(inputs + p * n + i) - S::load(mean + i) : V<T>{});
}

// With du = gain dz - constant - linear (u - mean), and u - mean = W1 (v - mean v), what the normalisation's own
// gradient adds is linear in v. So nothing of the size of the hidden layer needs to wait for the sums over the batch:
// W1^T gain dz is kept, `settle` and `through_in` add the rest.
template <class T, int C, int H, int K>
void through_out(const nca::TrainWeights<T>& weights, const nca::TrainPlane<T>& plane, const nca::Normalisation<T>& norm,
                 const nca::LaneSums<T>& lane, T* sum, T* product, void* scratch) {
    using S = Simd<T>;
    const int c = known<C>(weights.channels), h = known<H>(weights.hidden), end = filled(plane.count);
    T *const outgoing = static_cast<T*>(scratch), *const centred = outgoing + nca::kGroup * c,
             *const hidden = centred + nca::kGroup * 2 * c, *const slope = hidden + nca::kGroup * h;
    for (int group = 0; group < end; group += nca::kGroup) {
        const int rows = least(nca::kGroup, end - group), count = plane.count - group;
        const T* const inputs = plane.inputs + static_cast<std::ptrdiff_t>(group) * 2 * c;
        T* const incoming = plane.incoming + static_cast<std::ptrdiff_t>(group) * 2 * c;
        rows_times<T, 2 * C, H>(inputs, rows, 2 * c, weights.dense_in, h, weights.bias,
                                [&](int p, int q, V<T> u) NCA_LAMBDA { S::store(hidden + p * h + q, u); });
        for (int p = 0; p < rows; ++p)
            for (int j = 0; j < c; j += S::width) {
                const std::uint32_t cell = plane.cells[group + p] + j;
                S::store(outgoing + p * c + j, p < count ? S::load(plane.gradient + cell) : V<T>{});
                // The cell gets back what it was: the tape holds it, so that no state but the last is stored.
                if (p < count) S::store(plane.state + cell, S::load(inputs + p * 2 * c + j));
            }
        rows_times<T, C, H>(outgoing, rows, c, weights.dense_out_rows, h, nullptr,
                            [&](int p, int q, V<T> da) NCA_LAMBDA { S::store(slope + p * h + q, da); });
        for (int q = 0; q < h; q += S::width) {
            const V<T> gain = S::load(norm.gain + q), offset = S::load(norm.offset + q), mean = S::load(norm.mean + q);
            V<T> total = group ? S::load(sum + q) : V<T>{}, along = group ? S::load(product + q) : V<T>{};
            for (int p = 0; p < rows; ++p) {
                const V<T> u = S::load(hidden + p * h + q), z = u * gain + offset;
                const V<T> dz = positive<T>(z, S::load(slope + p * h + q));
                S::store(slope + p * h + q, gain * dz);
                S::store(hidden + p * h + q, positive<T>(z, z));
                total += dz, along += dz * (u - mean);
            }
            S::store(sum + q, total), S::store(product + q, along);
        }
        for (int p = 0; p < rows; ++p) ahead<T, 2 * C>(inputs + (nca::kGroup + p) * 2 * c, 2 * c);
        centre<T, C>(inputs, norm.centre, rows, count, c, centred);
        add_outer<T, C, H>(outgoing, hidden, rows, c, h, lane.dense_out);
        add_outer<T, 2 * C, H>(centred, slope, rows, 2 * c, h, lane.dense_in);
        add_outer<T, 2 * C, 2 * C>(centred, centred, rows, 2 * c, 2 * c, lane.moments);
        rows_times<T, H, 2 * C>(slope, rows, h, weights.dense_in_rows, 2 * c, nullptr,
                                [&](int p, int i, V<T> dv) NCA_LAMBDA { S::store(incoming + p * 2 * c + i, dv); });
    }
}

template <class T, int C, int H, int K>
void settle(const nca::TrainWeights<T>& weights, const nca::Normalisation<T>& norm, const T* moments, T* dense_in,
            const nca::Settled<T>& settled, void* scratch) {
    using S = Simd<T>;
    const int c = known<C>(weights.channels), h = known<H>(weights.hidden), n = 2 * c;
    T* const scaled = static_cast<T*>(scratch);
    for (int i = 0; i < n; ++i)
        for (int q = 0; q < h; q += S::width)
            S::store(scaled + i * h + q, V<T>{} - S::load(norm.linear + q) * S::load(weights.dense_in + i * h + q));
    add_outer<T, 2 * C, H>(moments, scaled, n, n, h, dense_in);
    for (int i = 0; i < n; i += S::width) S::store(settled.constant + i, V<T>{});
    for (int i = 0; i < n * n; i += S::width) S::store(settled.linear + i, V<T>{});
    for (int q = 0; q < h; ++q)
        for (int i = 0; i < n; i += S::width) {
            const V<T> row = S::load(weights.dense_in_rows + q * n + i);
            S::store(settled.constant + i, S::load(settled.constant + i) - S::splat(norm.constant[q]) * row);
            S::store(scaled + q * n + i, V<T>{} - S::splat(norm.linear[q]) * row);
        }
    add_outer<T, 2 * C, 2 * C>(scaled, weights.dense_in_rows, h, n, n, settled.linear);
}

template <class T, int C, int H, int K>
void through_in(const nca::TrainWeights<T>& weights, const nca::TrainPlane<T>& plane, const nca::Normalisation<T>& norm,
                const nca::Settled<T>& settled, void* scratch) {
    using S = Simd<T>;
    const int c = known<C>(weights.channels), end = filled(plane.count);
    T* const centred = static_cast<T*>(scratch);
    for (int group = 0; group < end; group += nca::kGroup) {
        const int rows = least(nca::kGroup, end - group), count = plane.count - group;
        const T *const inputs = plane.inputs + static_cast<std::ptrdiff_t>(group) * 2 * c,
                *const incoming = plane.incoming + static_cast<std::ptrdiff_t>(group) * 2 * c;
        for (int p = 0; p < rows; ++p) {
            ahead<T, 2 * C>(inputs + (nca::kGroup + p) * 2 * c, 2 * c);
            ahead<T, 2 * C>(incoming + (nca::kGroup + p) * 2 * c, 2 * c);
        }
        centre<T, C>(inputs, norm.centre, rows, count, c, centred);
        rows_times<T, 2 * C, 2 * C>(centred, rows, 2 * c, settled.linear, 2 * c, settled.constant,
                                    [&](int p, int i, V<T> rest) NCA_LAMBDA {
            if (p >= count) return;
            const V<T> dv = rest + S::load(incoming + p * 2 * c + i);
            const std::uint32_t cell = plane.cells[group + p];
            T* const own = plane.gradient + cell + i;
            if (i < c) S::store(own, S::load(own) + dv);
            else S::store(plane.perceived + cell + i - c, dv);
        });
    }
}

#include "train_taps.inl"

template <class T, int C, int K>
constexpr decltype(nca::TrainKernels<T>::gather) gather_of() {
    if constexpr (K == kSparse) return gather<T, C, K>;
    return nullptr;
}

template <class T, int C, int H, int K>
constexpr nca::TrainKernels<T> train_kernels() {
    return {fired,
            hidden_of<T, C, H, K>,
            update_cells<T, C, H, K>,
            through_out<T, C, H, K>,
            settle<T, C, H, K>,
            through_in<T, C, H, K>,
            through_taps<T, C, K>,
            mirror_plane<T, C>,
            fold_plane<T, C>,
            scatter<T, C, K>,
            gather_of<T, C, K>()};
}

constexpr nca::TrainKernels<float> train_usual[] = {
    train_kernels<float, 16, 64, 3>(), train_kernels<float, 16, 64, 5>(), train_kernels<float, 16, 64, 7>()};
constexpr nca::TrainKernels<float> train_any = train_kernels<float, 0, 0, 0>();
constexpr nca::TrainKernels<double> train_double = train_kernels<double, 0, 0, 0>();  // for checks

const nca::TrainKernels<float>& train_float_of(int channels, int hidden, int kernel) {
    const bool usual = channels == 16 && hidden == 64 && (kernel == 3 || kernel == 5 || kernel == 7);
    return usual ? train_usual[(kernel - 3) / 2] : train_any;
}

const nca::TrainKernels<double>& train_double_of(int, int, int) { return train_double; }

}  // namespace
}  // namespace NCA_ARCH
