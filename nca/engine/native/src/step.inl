// The fused step: perceive, dense, ReLU, dense, update, for the cells that fired, a block at a time.
//
// Every cell's sums are taken in one fixed order, whatever block, row range or thread it falls into,
// so the result is the same to the bit under any split of the work.

namespace NCA_ARCH {
namespace {

using Float = Simd<float>;
using Vector = Float::Vector;
constexpr int W = Float::width;
constexpr int kPerceive = 8;                                    // cells at once in the convolution
constexpr int kSmallKernel = 5;                                 // what a block reads of it fits the L1 cache
constexpr int kDense = NCA_VECTOR_REGISTERS == 32 ? 12 : 4;     // cells at once in the first dense layer
constexpr int kDenseVectors = 2;                                // hidden vectors at once
constexpr int kOut = 12;                                        // cells at once in the second
static_assert(nca::kBlock % kPerceive == 0 && nca::kBlock % kOut == 0 && kOut % kDense == 0);

// Intermediates of one block.
struct Block {
    const float* cell[nca::kBlock];
    float* input;   // (kBlock, 2c): own state, then what is perceived
    float* hidden;  // (kOut, h)
    std::uint32_t* input_pairs;   // (kBlock, c) pairs of bfloat16, where low precision is asked for
    std::uint32_t* hidden_pairs;  // (kOut, h / 2)
};

// Adds what rows [low, high) of the taps see, for kPerceive cells and one vector of channels.
template <int C, int K>
NCA_INLINE void add_taps(const nca::StepWeights& weights, const nca::PlaneTask& task, const float* const* cells,
                         int low, int high, int j, Vector* sum) {
    const int c = known<C>(weights.channels), k = known<K>(weights.kernel);
    const float* cell[kPerceive];
    NCA_UNROLL for (int p = 0; p < kPerceive; ++p) cell[p] = cells[p] + j;
    const float* tap = weights.perceive + static_cast<std::ptrdiff_t>(low) * k * c + j;
    for (int row = low; row < high; ++row) {
        const std::ptrdiff_t offset = task.taps[row];
        NCA_UNROLL for (int z = 0; z < k; ++z, tap += c) {
            const Vector w = Float::load(tap);
            NCA_UNROLL for (int p = 0; p < kPerceive; ++p) sum[p] += Float::load(cell[p] + offset + z * c) * w;
        }
    }
}

// The convolution of a whole block. With a large kernel one plane of taps goes over all cells before the next does:
// so what they read stays in the L1 cache. The order of a cell's sum is the same either way.
template <int C, int K>
NCA_INLINE void perceive(const nca::StepWeights& weights, const nca::PlaneTask& task, Block& block, int count) {
    const int c = known<C>(weights.channels), k = known<K>(weights.kernel);
    const int rows = k <= kSmallKernel ? k * k : k;
    float* const inputs = block.input;
    for (int low = 0; low < k * k; low += rows)
        for (int first = 0; first < count; first += kPerceive)
            for (int j = 0; j < c; j += W) {
                float* const perceived = inputs + first * 2 * c + c + j;
                Vector sum[kPerceive];
                NCA_UNROLL for (int p = 0; p < kPerceive; ++p)
                    sum[p] = low == 0 ? Vector{} : Float::load(perceived + p * 2 * c);
                add_taps<C, K>(weights, task, block.cell + first, low, low + rows, j, sum);
                NCA_UNROLL for (int p = 0; p < kPerceive; ++p) Float::store(perceived + p * 2 * c, sum[p]);
            }
    for (int p = 0; p < count; ++p)
        for (int j = 0; j < c; j += W) Float::store(inputs + p * 2 * c + j, Float::load(block.cell[p] + j));
}

template <int C, int H>
NCA_INLINE void dense_in(const nca::StepWeights& weights, Block& block, int first) {
    const int c = known<C>(weights.channels), h = known<H>(weights.hidden);
    const float* const input = block.input + first * 2 * c;
    float* const hidden = block.hidden + first % kOut * h;  // local: a store through `block` could change `block`
    const float *const bias = weights.bias, *const matrix = weights.dense_in;
    for (int q = 0; q < h; q += kDenseVectors * W) {
        Vector sum[kDense][kDenseVectors];
        NCA_UNROLL for (int p = 0; p < kDense; ++p)
            NCA_UNROLL for (int u = 0; u < kDenseVectors; ++u) sum[p][u] = Float::load(bias + q + u * W);
        const float* row = matrix + q;
        for (int i = 0; i < 2 * c; ++i, row += h) {
            Vector w[kDenseVectors];
            NCA_UNROLL for (int u = 0; u < kDenseVectors; ++u) w[u] = Float::load(row + u * W);
            NCA_UNROLL for (int p = 0; p < kDense; ++p) {
                const Vector x = Float::splat(input[p * 2 * c + i]);
                NCA_UNROLL for (int u = 0; u < kDenseVectors; ++u) sum[p][u] += x * w[u];
            }
        }
        NCA_UNROLL for (int p = 0; p < kDense; ++p)
            NCA_UNROLL for (int u = 0; u < kDenseVectors; ++u) {
                const Vector value = sum[p][u];  // below zero, not above: a NaN stays a NaN
                Float::store(hidden + p * h + q + u * W, value < 0.0f ? Vector{} : value);
            }
    }
}

template <int C, int H>
NCA_INLINE void dense_out(const nca::StepWeights& weights, Block& block, int first, int count, float* values) {
    const int c = known<C>(weights.channels), h = known<H>(weights.hidden);
    const float *const hidden = block.hidden, *const input = block.input + first * 2 * c;
    const float* const matrix = weights.dense_out;
    for (int j = 0; j < c; j += W) {
        Vector sum[kOut] = {};
        const float* row = matrix + j;
        for (int i = 0; i < h; ++i, row += c) {
            const Vector w = Float::load(row);
            NCA_UNROLL for (int p = 0; p < kOut; ++p) sum[p] += Float::splat(hidden[p * h + i]) * w;
        }
        NCA_UNROLL for (int p = 0; p < kOut; ++p)
            if (first + p < count)
                Float::store(values + (first + p) * c + j, Float::load(input + p * 2 * c + j) + sum[p]);
    }
}

// Both dense layers of a block, in float32.
struct Single {
    template <int C, int H>
    static NCA_INLINE void dense(const nca::StepWeights& weights, Block& block, int count, float* values) {
        for (int p = 0; p < count; p += kOut) {
            for (int q = p; q < p + kOut; q += kDense) dense_in<C, H>(weights, block, q);
            dense_out<C, H>(weights, block, p, count, values);
        }
    }
};

#if NCA_BF16
#include "pairs.inl"
#endif

// The cells that fire in the task's rows: their places, in floats from cell (x, 0, 0).
int fired(const nca::PlaneTask& task, int channels, std::uint32_t* cells) {
    constexpr int kDraws = 64;
    alignas(64) std::uint32_t draws[kDraws];
    const int total = (task.last_row - task.first_row) * task.depth;
    const auto gap = static_cast<std::uint32_t>(task.row_stride) - task.depth * channels;  // from row to row
    auto place = static_cast<std::uint32_t>(task.first_row * task.row_stride);
    int count = 0, z = 0;
    for (int first = 0; first < total; first += kDraws) {
        for (int i = 0; i < kDraws; ++i) draws[i] = nca::draw(task.index + first + i, task.key);
        const int n = total - first < kDraws ? total - first : kDraws;
        for (int i = 0; i < n; ++i) {
            cells[count] = place;
            count += draws[i] < task.threshold;
            const bool last = ++z == task.depth;
            place += channels + (last ? gap : 0);
            z = last ? 0 : z;
        }
    }
    return count;
}

template <int C, int H, int K, class Precision>
void compute_cells(const nca::StepWeights& weights, const nca::PlaneTask& task, nca::Pending& pending, Block& block) {
    const int c = known<C>(weights.channels);
    for (int first = 0; first < pending.count; first += nca::kBlock) {
        const int count = pending.count - first < nca::kBlock ? pending.count - first : nca::kBlock;
        for (int p = 0; p < nca::kBlock; ++p)  // a short block is filled up with its first cell
            block.cell[p] = task.plane + pending.cells[first + (p < count ? p : 0)];
        perceive<C, K>(weights, task, block, count);
        Precision::template dense<C, H>(weights, block, count, pending.values + static_cast<std::size_t>(first) * c);
    }
}

std::size_t scratch_bytes(int channels, int hidden) {
    return sizeof(float) * (nca::kBlock * 3 * channels + kOut * hidden * 3 / 2);
}

template <class Precision>
void compute_any(const nca::StepWeights& weights, const nca::PlaneTask& task, nca::Pending& pending, Block& block) {
    const bool usual = weights.channels == 16 && weights.hidden == 64;
    if (usual && weights.kernel == 3) return compute_cells<16, 64, 3, Precision>(weights, task, pending, block);
    if (usual && weights.kernel == 5) return compute_cells<16, 64, 5, Precision>(weights, task, pending, block);
    if (usual && weights.kernel == 7) return compute_cells<16, 64, 7, Precision>(weights, task, pending, block);
    compute_cells<0, 0, 0, Precision>(weights, task, pending, block);
}

void compute(const nca::StepWeights& weights, const nca::PlaneTask& task, nca::Pending& pending, void* scratch) {
    const int c = weights.channels, h = weights.hidden;
    Block block;
    block.input = static_cast<float*>(scratch);
    block.hidden = block.input + nca::kBlock * 2 * c;
    block.input_pairs = reinterpret_cast<std::uint32_t*>(block.hidden + kOut * h);
    block.hidden_pairs = block.input_pairs + nca::kBlock * c;
    pending.count = fired(task, c, pending.cells);
#if NCA_BF16
    if (weights.dense_in_pairs != nullptr) return compute_any<Paired>(weights, task, pending, block);
#endif
    compute_any<Single>(weights, task, pending, block);
}

void commit(const nca::Pending& pending, float* plane, int channels) {
    for (int i = 0; i < pending.count; ++i)
        for (int j = 0; j < channels; j += W)
            Float::store(plane + pending.cells[i] + j,
                         Float::load(pending.values + static_cast<std::size_t>(i) * channels + j));
}

double multiply_adds(long iterations) {
    constexpr int kChains = 12;  // enough to hide an instruction's latency, and few enough for the registers
    Vector sum[kChains] = {}, a = Float::splat(0.5f);
    const Vector b = Float::splat(1e-9f);
    NCA_UNROLL for (int i = 0; i < kChains; ++i) asm volatile("" : "+" NCA_VECTOR_CONSTRAINT(sum[i]));  // none equal
    for (long n = 0; n < iterations; ++n) {
        asm volatile("" : "+" NCA_VECTOR_CONSTRAINT(a));  // may have changed: nothing moves out of the loop
        NCA_UNROLL for (int i = 0; i < kChains; ++i) sum[i] += a * b;
    }
    NCA_UNROLL for (int i = 0; i < kChains; ++i) asm volatile("" : : NCA_VECTOR_CONSTRAINT(sum[i]));
    return static_cast<double>(iterations) * kChains * W;
}

}  // namespace
}  // namespace NCA_ARCH
