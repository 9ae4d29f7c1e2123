// Runs the automaton without Python and prints a checksum of its states for each case, so that processors can be
// compared (`make cross`). Fails where the split of the work, or the set of kernels, changes a bit.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "automaton.hpp"
#include "dispatch.hpp"

namespace {

constexpr int kSteps = 4;
constexpr std::uint64_t kHalf = 1ull << 31;  // fire rate 0.5

struct Case {
    int kernel;
    nca::Grid grid;
    int channels, hidden;
};

const Case kCases[] = {
    {3, {9, 11, 13}, 16, 64}, {5, {7, 12, 9}, 16, 64},  {7, {10, 9, 8}, 16, 64},  // the kernels made for these sizes
    {7, {4, 4, 4}, 16, 64},   {3, {2, 2, 70}, 16, 64},  // as small as can be mirrored; rows of several blocks
    {3, {5, 4, 66}, 32, 64},  {9, {6, 7, 8}, 48, 128},  // the general kernels
};

// Numbers that every machine makes alike: one product each, of an integer that float32 holds and a power of two.
std::vector<float> numbers(std::size_t count, std::uint32_t stream, float scale) {
    std::vector<float> out(count);
    for (std::size_t i = 0; i < count; ++i) {
        const auto bits = nca::draw(static_cast<std::uint32_t>(i), {stream, 0x9E3779B9u}) >> 8;
        out[i] = static_cast<float>(static_cast<int>(bits) - (1 << 23)) * (scale / (1 << 23));
    }
    return out;
}

nca::Level level_of(const nca::Kernels& kernels, const Case& c, bool low_precision = false) {
    const std::size_t taps = static_cast<std::size_t>(c.kernel) * c.kernel * c.kernel;
    return nca::Level(kernels, c.channels, c.hidden, c.kernel, kSteps,
                      numbers(taps * c.channels, 1, 0.125f).data(),
                      numbers(static_cast<std::size_t>(kSteps) * 2 * c.channels * c.hidden, 2, 0.25f).data(),
                      numbers(static_cast<std::size_t>(kSteps) * c.hidden, 3, 0.25f).data(),
                      numbers(static_cast<std::size_t>(c.hidden) * c.channels, 4, 0.125f).data(), low_precision);
}

void update(nca::Team& team, const nca::Level& level, nca::State& state, int per_pass) {
    nca::Workspace workspace;
    for (int first = 0; first < kSteps; first += per_pass) {
        std::vector<nca::FireKey> keys;
        for (int t = first; t < kSteps && t < first + per_pass; ++t) keys.push_back({7u + t, 11u});
        int told = 0;
        const bool ended = nca::sweep(team, workspace, level, state, first, keys, kHalf, [&](int done) {
            const bool counted = done > told && done <= static_cast<int>(keys.size());
            told = done;
            return counted;
        });
        if (!ended || told != static_cast<int>(keys.size())) std::abort();
    }
}

// The states after all steps, from random ones.
std::vector<float> run(const nca::Kernels& kernels, const Case& c, bool low_precision, int threads, int per_pass,
                       std::FILE* file) {
    nca::Team team(threads);
    nca::State state(c.grid, c.channels, (c.kernel - 1) / 2, file ? fileno(file) : -1);
    std::vector<float> cells = numbers(static_cast<std::size_t>(c.grid[0]) * c.grid[1] * c.grid[2] * c.channels, 5, 2.0f);
    state.write(c.channels, cells.data());
    update(team, level_of(kernels, c, low_precision), state, per_pass);
    state.read(c.channels, cells.data());
    return cells;
}

// Two levels, as an ensemble's member goes through them: probabilities and the fine states behind them.
std::vector<float> run_levels(const nca::Kernels& kernels, int threads, std::vector<float>& probabilities) {
    const Case coarse{7, {5, 6, 4}, 16, 64}, fine{3, {10, 11, 8}, 16, 64};
    const int voxels = fine.grid[0] * fine.grid[1] * fine.grid[2];
    nca::Team team(threads);
    nca::State low(coarse.grid, 16, 3, -1), high(fine.grid, 16, 1, -1);
    low.seed(team, numbers(5 * 6 * 4, 6, 2.0f).data(), 1);
    update(team, level_of(kernels, coarse), low, kSteps);
    high.refine(team, low, numbers(voxels, 7, 2.0f).data(), 1, {2, 2, 2});
    update(team, level_of(kernels, fine), high, kSteps);
    probabilities.resize(2 * voxels);
    high.probabilities(team, 1, 2, probabilities.data());
    std::vector<float> cells(static_cast<std::size_t>(voxels) * 16);
    high.read(16, cells.data());
    return cells;
}

std::uint64_t checksum(const std::vector<float>& values) {  // FNV-1a
    std::uint64_t hash = 0xCBF29CE484222325u;
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    for (std::size_t i = 0; i < values.size() * sizeof(float); ++i) hash = (hash ^ bytes[i]) * 0x100000001B3u;
    return hash;
}

double sum(const std::vector<float>& values) {
    double total = 0.0;
    for (float one : values) total += one;
    return total;
}

// Every split of the work gives `expected`.
bool same_under_any_split(const nca::Kernels& kernels, const Case& c, bool low_precision,
                          const std::vector<float>& expected) {
    for (int threads : {1, 2, 3})
        for (int per_pass : {1, 3, kSteps})
            for (bool streamed : {false, true}) {
                std::FILE* file = streamed ? std::tmpfile() : nullptr;
                const bool same = checksum(run(kernels, c, low_precision, threads, per_pass, file)) == checksum(expected);
                if (file) std::fclose(file);
                if (!same) {
                    std::fprintf(stderr, "%s: %d threads, %d steps a pass, streamed %d: other bits\n", kernels.name,
                                 threads, per_pass, streamed);
                    return false;
                }
            }
    return true;
}

bool report_case(const nca::Kernels& kernels, const Case& c, bool low_precision) {
    const std::vector<float> cells = run(kernels, c, low_precision, 1, 1, nullptr);
    std::printf("%s%s kernel %d grid %dx%dx%d channels %d hidden %d: %016llx sum %.9g\n", kernels.name,
                low_precision ? " low precision" : "", c.kernel, c.grid[0], c.grid[1], c.grid[2], c.channels, c.hidden,
                static_cast<unsigned long long>(checksum(cells)), sum(cells));
    return same_under_any_split(kernels, c, low_precision, cells);
}

bool report(const nca::Kernels& kernels) {
    bool good = true;
    for (const Case& c : kCases) {
        good = report_case(kernels, c, false) && good;
        if (kernels.bf16) good = report_case(kernels, c, true) && good;
    }
    std::vector<float> probabilities;
    const std::vector<float> cells = run_levels(kernels, 2, probabilities);
    std::printf("%s two levels: %016llx sum of probabilities %.6g\n", kernels.name,
                static_cast<unsigned long long>(checksum(cells)), sum(probabilities));
    return checksum(run_levels(kernels, 1, probabilities)) == checksum(cells) && good;
}

}  // namespace

// With a name, those kernels only.
int main(int argc, char** argv) {
    bool good = true;
    if (argc > 1) return report(nca::kernels_of(argv[1])) ? 0 : 1;
    for (const auto* kernels : nca::available()) good = report(*kernels) && good;
    return good ? 0 : 1;
}
