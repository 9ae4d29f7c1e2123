// Compiled once for every instruction set, each time in a namespace of its own (NCA_ARCH).
// No standard containers here: their inline code would be shared with, and replace, that of the other sets.
#include "kernels.hpp"
#include "simd.hpp"
#include "train_kernels.hpp"

#if defined(__aarch64__)
#define NCA_VECTOR_CONSTRAINT "w"
#else
#define NCA_VECTOR_CONSTRAINT "v"
#endif

#include "step.inl"
#include "train.inl"

#define NCA_STRING_(x) #x
#define NCA_STRING(x) NCA_STRING_(x)

namespace NCA_ARCH {

extern const nca::Kernels kernels;
const nca::Kernels kernels = {NCA_STRING(NCA_ARCH), NCA_BF16 == 1, scratch_bytes, compute, commit, multiply_adds,
                              train_float_of, train_double_of};

}  // namespace NCA_ARCH
