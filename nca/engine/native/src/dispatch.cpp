#include "dispatch.hpp"

#include <chrono>
#include <stdexcept>

#include "memory.hpp"
#include "team.hpp"

#if defined(__x86_64__)
namespace x86_64_v2 {
extern const nca::Kernels kernels;
}
namespace x86_64_v3 {
extern const nca::Kernels kernels;
}
namespace x86_64_v4 {
extern const nca::Kernels kernels;
}
namespace x86_64_v4_bf16 {
extern const nca::Kernels kernels;
}
#else
namespace baseline {
extern const nca::Kernels kernels;
}
#endif

namespace nca {

namespace {

std::vector<const Kernels*> detect() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    std::vector<const Kernels*> found;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        if (__builtin_cpu_supports("avx512bf16")) found.push_back(&x86_64_v4_bf16::kernels);
        found.push_back(&x86_64_v4::kernels);
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        found.push_back(&x86_64_v3::kernels);
    if (__builtin_cpu_supports("sse4.2")) found.push_back(&x86_64_v2::kernels);
    if (found.empty()) throw std::runtime_error("this processor is older than x86-64-v2");
    return found;
#else
    return {&baseline::kernels};
#endif
}

// Runs `work` on every thread until `seconds` have passed; what it returned in all, per second.
template <class Work>
double rate(int threads, double seconds, const Work& work) {
    using Clock = std::chrono::steady_clock;
    Team team(threads);
    double done = 0.0, passed = 0.0;
    std::vector<double> of(threads);
    const auto start = Clock::now();
    while (passed < seconds) {
        team.run([&](int member) { of[member] = work(member); });
        for (double one : of) done += one;
        passed = std::chrono::duration<double>(Clock::now() - start).count();
    }
    return done / passed;
}

}  // namespace

const std::vector<const Kernels*>& available() {
    static const std::vector<const Kernels*> found = detect();
    return found;
}

const Kernels& kernels_of(const std::string& name) {
    for (const Kernels* one : available())
        if (name.empty() || name == one->name) return *one;
    throw std::invalid_argument("no kernels called '" + name + "' run here");
}

double peak_multiply_adds(int threads, double seconds) {
    return rate(threads, seconds, [](int) { return available().front()->multiply_adds(200000); });
}

double memory_bandwidth(int threads, double seconds) {
    constexpr std::size_t kFloats = 12u << 20;  // three arrays of 48 MB a thread
    std::vector<Buffer> arrays;
    for (int i = 0; i < 3 * threads; ++i) {
        arrays.emplace_back(kFloats * sizeof(float));
        for (std::size_t n = 0; n < kFloats; ++n) arrays.back().as<float>()[n] = 1.0f;
    }
    return rate(threads, seconds, [&](int member) {
        float* a = arrays[3 * member].as<float>();
        const float* b = arrays[3 * member + 1].as<float>();
        const float* c = arrays[3 * member + 2].as<float>();
        for (std::size_t n = 0; n < kFloats; ++n) a[n] = b[n] + 0.5f * c[n];
        return 3.0 * kFloats * sizeof(float);
    });
}

}  // namespace nca
