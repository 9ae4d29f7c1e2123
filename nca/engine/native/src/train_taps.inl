// The border, and the backward of the convolution: included inside train.inl's namespace.

// The border along y and z mirrors the inside, as `nca::State::mirror` has it; along x the taps are mirrored instead.
template <class T, int C>
void mirror_plane(const nca::PlaneShape& shape, T* plane) {
    using S = Simd<T>;
    const int c = known<C>(shape.channels), ny = shape.rows, nz = shape.depth, reach = shape.reach;
    const auto copy = [&](const T* from, T* to, int cells) NCA_LAMBDA {
        for (int j = 0; j < cells * c; j += S::width) S::store(to + j, S::load(from + j));
    };
    for (int y = 0; y < ny; ++y) {
        T* const row = plane + y * shape.row_stride;
        for (int i = 1; i <= reach; ++i) {
            copy(row + i * c, row - i * c, 1);
            copy(row + (nz - 1 - i) * c, row + (nz - 1 + i) * c, 1);
        }
    }
    T* const first = plane - reach * c;
    for (int i = 1; i <= reach; ++i) {
        copy(first + i * shape.row_stride, first - i * shape.row_stride, nz + 2 * reach);
        copy(first + (ny - 1 - i) * shape.row_stride, first + (ny - 1 + i) * shape.row_stride, nz + 2 * reach);
    }
}

// Its transpose: what fell on the border goes back onto what it mirrors, and leaves zeros.
template <class T, int C>
void fold_plane(const nca::PlaneShape& shape, T* plane) {
    using S = Simd<T>;
    const int c = known<C>(shape.channels), ny = shape.rows, nz = shape.depth, reach = shape.reach;
    const auto move = [&](T* from, T* to, int cells) NCA_LAMBDA {
        for (int j = 0; j < cells * c; j += S::width) {
            S::store(to + j, S::load(to + j) + S::load(from + j));
            S::store(from + j, V<T>{});
        }
    };
    T* const first = plane - reach * c;
    for (int i = 1; i <= reach; ++i) {
        move(first - i * shape.row_stride, first + i * shape.row_stride, nz + 2 * reach);
        move(first + (ny - 1 + i) * shape.row_stride, first + (ny - 1 - i) * shape.row_stride, nz + 2 * reach);
    }
    for (int y = 0; y < ny; ++y) {
        T* const row = plane + y * shape.row_stride;
        for (int i = 1; i <= reach; ++i) {
            move(row - i * c, row + i * c, 1);
            move(row + (nz - 1 + i) * c, row + (nz - 1 - i) * c, 1);
        }
    }
}

// R rows of taps at once: each cell's gradient times the k states that each row of taps sees.
template <class T, int C, int K, int R>
NCA_INLINE void tap_rows(const nca::TrainPlane<T>& plane, int c_, int k_, int row, T* perceive) {
    using S = Simd<T>;
    constexpr int Z = K > 0 ? K : 1;
    const int c = known<C>(c_), k = known<K>(k_);
    for (int j = 0; j < c; j += S::width)
        for (int z = 0; z < k; z += Z) {
            V<T> acc[R][Z];
            const T* see[R];
            NCA_UNROLL for (int r = 0; r < R; ++r) {
                see[r] = plane.state + plane.taps[row + r] + z * c + j;
                NCA_UNROLL for (int i = 0; i < Z; ++i)
                    acc[r][i] = S::load(perceive + (static_cast<std::ptrdiff_t>(row + r) * k + z + i) * c + j);
            }
            for (int p = 0; p < plane.count; ++p) {
                const std::uint32_t cell = plane.cells[p];
                const V<T> slope = S::load(plane.perceived + cell + j);
                NCA_UNROLL for (int r = 0; r < R; ++r)
                    NCA_UNROLL for (int i = 0; i < Z; ++i) acc[r][i] += slope * S::load(see[r] + cell + i * c);
            }
            NCA_UNROLL for (int r = 0; r < R; ++r)
                NCA_UNROLL for (int i = 0; i < Z; ++i)
                    S::store(perceive + (static_cast<std::ptrdiff_t>(row + r) * k + z + i) * c + j, acc[r][i]);
        }
}

template <class T, int C, int K>
void through_taps(const nca::TrainWeights<T>& weights, const nca::TrainPlane<T>& plane, T* perceive) {
    constexpr int R = K == 0 ? 1 : (kManyRegisters ? 28 : 12) / K;  // as many sums as there are registers for
    const int k = known<K>(weights.kernel), c = weights.channels;
    int row = 0;
    for (; row + R <= k * k; row += R) tap_rows<T, C, K, R>(plane, c, k, row, perceive);
    for (; row < k * k; ++row) tap_rows<T, C, K, 1>(plane, c, k, row, perceive);
}

// Adds what the fired cells of `source` give to the plane `target` through the plane `dx` of the taps. The border takes
// its share too: `fold_plane` brings it back.
template <class T, int C, int K>
void scatter(const nca::TrainWeights<T>& weights, const nca::TrainPlane<T>& source, const nca::PlaneShape& shape, int dx,
             T* target) {
    using S = Simd<T>;
    const int c = known<C>(weights.channels), k = known<K>(weights.kernel), reach = (k - 1) / 2;
    const T* const taps = weights.perceive + static_cast<std::ptrdiff_t>(dx) * k * k * c;
    target -= reach * (shape.row_stride + c);
    constexpr int kAhead = 16;  // cells: their places jump, so the processor does not fetch them by itself
    for (int i = 0; i < source.count; ++i) {
        const std::uint32_t cell = source.cells[i];
        __builtin_prefetch(source.perceived + source.cells[least(i + kAhead, source.count - 1)]);
        for (int j = 0; j < c; j += S::width) {
            const V<T> value = S::load(source.perceived + cell + j);
            const T* tap = taps + j;
            NCA_UNROLL for (int dy = 0; dy < k; ++dy) {
                T* const row = target + cell + dy * shape.row_stride + j;
                NCA_UNROLL for (int z = 0; z < k; ++z, tap += c)
                    S::store(row + z * c, S::load(row + z * c) + value * S::load(tap));
            }
        }
    }
}

// The same for a large kernel, onto two neighbouring rows of targets from all rows around them. Sources are taken by z:
// each adds to the k targets around it in both rows, which stay in registers while z moves on. A word's bits name the
// rows in which the cell at z fired: only those are read. Taps that reach only one of the two rows are zero in the other.
constexpr int kSparse = 7;

template <class T, int C, int K>
void gather(const nca::TrainWeights<T>& weights, const nca::SourceRows<T>& rows, T* first, T* second) {
    using S = Simd<T>;
    const int c = known<C>(weights.channels);
    constexpr int reach = (K - 1) / 2;
    for (int j = 0; j < c; j += S::width) {
        const T *const taps = weights.perceive_padded + j, *const perceived = rows.perceived + j;
        std::ptrdiff_t out = j - reach * c;
        V<T> acc[2][K + 1] = {};
        for (int z = 0; z < rows.depth; ++z, out += c) {
            for (std::uint64_t word = rows.words[z]; word != 0; word &= word - 1) {
                const int source = __builtin_ctzll(word);
                const V<T> value = S::load(perceived + rows.sources[source] + z * c);
                const T* const tap = taps + static_cast<std::ptrdiff_t>(source + source / (K + 1)) * (K * c);
                NCA_UNROLL for (int i = 0; i < 2 * K; ++i) acc[i / K][i % K] += value * S::load(tap + i * c);
            }
            S::store(first + out, S::load(first + out) + acc[0][0]);
            S::store(second + out, S::load(second + out) + acc[1][0]);
            NCA_UNROLL for (int i = 0; i < K; ++i) acc[0][i] = acc[0][i + 1], acc[1][i] = acc[1][i + 1];
        }
        NCA_UNROLL for (int i = 0; i + 1 < K; ++i, out += c) {
            S::store(first + out, S::load(first + out) + acc[0][i]);
            S::store(second + out, S::load(second + out) + acc[1][i]);
        }
    }
}
