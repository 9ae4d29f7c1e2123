// Compiled once for every instruction set, each time in a namespace of its own (NCA_ARCH).
// No standard containers here: their inline code would be shared with, and replace, that of the other sets.
#include "kernels.hpp"
#include "simd.hpp"

#if defined(__aarch64__)
#define NCA_VECTOR_CONSTRAINT "w"
#else
#define NCA_VECTOR_CONSTRAINT "v"
#endif

#include "step.inl"

#define NCA_STRING_(x) #x
#define NCA_STRING(x) NCA_STRING_(x)

namespace NCA_ARCH {

extern const nca::Kernels kernels;
const nca::Kernels kernels = {NCA_STRING(NCA_ARCH), false, scratch_bytes, compute, commit, multiply_adds};

}  // namespace NCA_ARCH
