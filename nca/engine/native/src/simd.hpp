// Vectors of the instruction set this file is compiled for, by the compiler's own vector types.
// Included inside the architecture's namespace: nothing here may be shared between instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

// The one thing that the compiler's vector types cannot say: sums of products of bfloat16 pairs in float32.
#if defined(__AVX512BF16__)
#include <immintrin.h>
#define NCA_BF16 1
#else
#define NCA_BF16 0
#endif

#if defined(__AVX512F__)
#define NCA_VECTOR_BYTES 64
#elif defined(__AVX__)
#define NCA_VECTOR_BYTES 32
#else
#define NCA_VECTOR_BYTES 16
#endif

// 32 vector registers hold a larger block of cells than 16.
#if defined(__AVX512F__) || defined(__aarch64__)
#define NCA_VECTOR_REGISTERS 32
#else
#define NCA_VECTOR_REGISTERS 16
#endif

#if defined(__clang__)
#define NCA_UNROLL _Pragma("clang loop unroll(full)")
#else
#define NCA_UNROLL _Pragma("GCC unroll 64")
#endif
#define NCA_INLINE inline __attribute__((always_inline))

namespace NCA_ARCH {

template <class T>
struct Simd {
    static constexpr int width = NCA_VECTOR_BYTES / sizeof(T);
    typedef T Vector __attribute__((vector_size(NCA_VECTOR_BYTES), may_alias));

    static NCA_INLINE Vector load(const T* p) { return *reinterpret_cast<const Vector*>(p); }
    static NCA_INLINE void store(T* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
    static NCA_INLINE Vector splat(T value) { return value - Vector{}; }  // x - 0 is x, also for -0
};

#if NCA_BF16
struct Pairs {
    static constexpr int width = 16;  // float32 lanes, each beside a pair of bfloat16

    static NCA_INLINE Simd<float>::Vector dot(Simd<float>::Vector sum, std::uint32_t pair, const std::uint16_t* pairs) {
        const __m512i splat = _mm512_set1_epi32(static_cast<int>(pair));
        return (Simd<float>::Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)splat, *reinterpret_cast<const __m512bh*>(pairs));
    }
    // 32 values, rounded to nearest even, in order.
    static NCA_INLINE void round(std::uint16_t* out, Simd<float>::Vector low, Simd<float>::Vector high) {
        *reinterpret_cast<__m512bh*>(out) = _mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    }
};
#endif

// A number known when compiled (N > 0) or only when run (N = 0).
template <int N>
NCA_INLINE constexpr int known(int value) {
    return N > 0 ? N : value;
}

}  // namespace NCA_ARCH
