// The dense layers in low precision: products of bfloat16 pairs, summed in float32. Included by step.inl.

template <int C>
NCA_INLINE void round_inputs(const nca::StepWeights& weights, Block& block, int count) {
    const int c = known<C>(weights.channels);
    for (int p = 0; p < count; ++p)
        for (int i = 0; i < 2 * c; i += 2 * W) {
            const float* input = block.input + p * 2 * c + i;
            Pairs::round(reinterpret_cast<std::uint16_t*>(block.input_pairs + p * c + i / 2), Float::load(input),
                         Float::load(input + W));
        }
}

template <int C, int H>
NCA_INLINE void dense_in_pairs(const nca::StepWeights& weights, Block& block, int first) {
    const int c = known<C>(weights.channels), h = known<H>(weights.hidden);
    const std::uint32_t* const input = block.input_pairs + first * c;
    auto* const hidden = reinterpret_cast<std::uint16_t*>(block.hidden_pairs + first % kOut * (h / 2));
    const float* const bias = weights.bias;
    for (int q = 0; q < h; q += kDenseVectors * W) {
        Vector sum[kDense][kDenseVectors];
        NCA_UNROLL for (int p = 0; p < kDense; ++p)
            NCA_UNROLL for (int u = 0; u < kDenseVectors; ++u) sum[p][u] = Float::load(bias + q + u * W);
        const std::uint16_t* row = weights.dense_in_pairs + 2 * q;
        for (int i = 0; i < c; ++i, row += 2 * h)
            NCA_UNROLL for (int p = 0; p < kDense; ++p)
                NCA_UNROLL for (int u = 0; u < kDenseVectors; ++u)
                    sum[p][u] = Pairs::dot(sum[p][u], input[p * c + i], row + 2 * u * W);
        static_assert(kDenseVectors == 2, "two vectors become one of pairs");
        NCA_UNROLL for (int p = 0; p < kDense; ++p)
            Pairs::round(hidden + p * h + q, sum[p][0] < 0.0f ? Vector{} : sum[p][0],
                         sum[p][1] < 0.0f ? Vector{} : sum[p][1]);
    }
}

template <int C, int H>
NCA_INLINE void dense_out_pairs(const nca::StepWeights& weights, Block& block, int first, int count, float* values) {
    const int c = known<C>(weights.channels), h = known<H>(weights.hidden);
    const std::uint32_t* const hidden = block.hidden_pairs;
    const float* const input = block.input + first * 2 * c;
    for (int j = 0; j < c; j += W) {
        Vector sum[kOut] = {};
        const std::uint16_t* row = weights.dense_out_pairs + 2 * j;
        for (int i = 0; i < h / 2; ++i, row += 2 * c)
            NCA_UNROLL for (int p = 0; p < kOut; ++p) sum[p] = Pairs::dot(sum[p], hidden[p * (h / 2) + i], row);
        NCA_UNROLL for (int p = 0; p < kOut; ++p)
            if (first + p < count)
                Float::store(values + (first + p) * c + j, Float::load(input + p * 2 * c + j) + sum[p]);
    }
}

struct Paired {
    template <int C, int H>
    static NCA_INLINE void dense(const nca::StepWeights& weights, Block& block, int count, float* values) {
        round_inputs<C>(weights, block, count);
        for (int p = 0; p < count; p += kOut) {
            for (int q = p; q < p + kOut; q += kDense) dense_in_pairs<C, H>(weights, block, q);
            dense_out_pairs<C, H>(weights, block, p, count, values);
        }
    }
};
