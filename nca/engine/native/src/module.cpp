// What Python sees. Shapes and types are checked here once more: a mistake is a ValueError or TypeError, never a crash.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <exception>
#include <stdexcept>
#include <system_error>

#include "automaton.hpp"
#include "dispatch.hpp"

namespace nb = nanobind;

void bind_training(nb::module_& m);  // train_module.cpp
using namespace nb::literals;

namespace {

template <int N>
using In = nb::ndarray<const float, nb::numpy, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <int N>
using Out = nb::ndarray<float, nb::numpy, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

template <class Array>
bool covers(const Array& image, const nca::Grid& grid) {
    return image.shape(1) == static_cast<std::size_t>(grid[0]) && image.shape(2) == static_cast<std::size_t>(grid[1]) &&
           image.shape(3) == static_cast<std::size_t>(grid[2]);
}

nca::Level* make_level(const std::string& isa, In<4> perceive, In<3> dense_in, In<2> bias, In<2> dense_out,
                       bool low_precision) {
    const auto kernel = perceive.shape(0), channels = perceive.shape(3), steps = dense_in.shape(0),
               hidden = dense_in.shape(2);
    require(kernel % 2 == 1 && kernel >= 3 && perceive.shape(1) == kernel && perceive.shape(2) == kernel,
            "the kernel is a cube of odd edge, at least 3");
    require(channels > 0 && channels % nca::kChannelQuantum == 0 && hidden > 0 && hidden % nca::kHiddenQuantum == 0,
            "channels and hidden units must be padded");
    require(steps > 0 && dense_in.shape(1) == 2 * channels && bias.shape(0) == steps && bias.shape(1) == hidden &&
                dense_out.shape(0) == hidden && dense_out.shape(1) == channels,
            "the weights' shapes contradict each other");
    const nca::Kernels& kernels = nca::kernels_of(isa);
    require(kernels.bf16 || !low_precision, "these kernels know no low precision");
    return new nca::Level(kernels, static_cast<int>(channels), static_cast<int>(hidden),
                          static_cast<int>(kernel), static_cast<int>(steps), perceive.data(), dense_in.data(),
                          bias.data(), dense_out.data(), low_precision);
}

nca::State* make_state(nca::Grid grid, int channels, int reach, int file) {
    require(channels > 0 && channels % nca::kChannelQuantum == 0 && reach > 0, "channels must be padded");
    for (int n : grid) require(n > reach, "every axis must be longer than half the kernel, to be mirrored");
    try {
        nb::gil_scoped_release release;
        return new nca::State(grid, channels, reach, file);
    } catch (const std::system_error& error) {
        errno = error.code().value();
        PyErr_SetFromErrno(PyExc_OSError);
        throw nb::python_error();
    }
}

void seed(nca::State& state, nca::Team& team, In<4> image) {
    require(covers(image, state.grid()) && image.shape(0) <= static_cast<std::size_t>(state.channels()),
            "the image has another shape than the grid");
    nb::gil_scoped_release release;
    state.seed(team, image.data(), static_cast<int>(image.shape(0)));
}

void refine(nca::State& state, nca::Team& team, nca::State& coarse, In<4> image, nca::Grid scale) {
    require(covers(image, state.grid()) && image.shape(0) <= static_cast<std::size_t>(state.channels()),
            "the image has another shape than the grid");
    require(&state != &coarse && state.channels() == coarse.channels(), "the states do not belong together");
    for (int axis = 0; axis < 3; ++axis)
        require(scale[axis] > 0 && (state.grid()[axis] - 1) / scale[axis] < coarse.grid()[axis],
                "the coarse grid does not cover the fine one");
    nb::gil_scoped_release release;
    state.refine(team, coarse, image.data(), static_cast<int>(image.shape(0)), scale);
}

void probabilities(nca::State& state, nca::Team& team, int first, Out<4> out) {
    require(covers(out, state.grid()), "the output has another shape than the grid");
    require(first >= 0 && first + static_cast<int>(out.shape(0)) <= state.channels(), "there are not so many channels");
    nb::gil_scoped_release release;
    state.probabilities(team, first, static_cast<int>(out.shape(0)), out.data());
}

void read_state(nca::State& state, Out<4> out) {
    require(out.shape(3) <= static_cast<std::size_t>(state.channels()), "there are not so many channels");
    for (int axis = 0; axis < 3; ++axis)
        require(out.shape(axis) == static_cast<std::size_t>(state.grid()[axis]), "the array has another shape");
    state.read(static_cast<int>(out.shape(3)), out.data());
}

void write_state(nca::State& state, In<4> in) {
    require(in.shape(3) <= static_cast<std::size_t>(state.channels()), "there are not so many channels");
    for (int axis = 0; axis < 3; ++axis)
        require(in.shape(axis) == static_cast<std::size_t>(state.grid()[axis]), "the array has another shape");
    state.write(static_cast<int>(in.shape(3)), in.data());
}

void sweep(nca::Team& team, nca::Workspace& workspace, const nca::Level& level, nca::State& state, int first,
           const std::vector<std::array<std::uint32_t, 2>>& keys, std::uint64_t threshold, nb::object on_step) {
    require(level.channels() == state.channels() && level.reach() == state.reach(), "the state is not of this level");
    require(!keys.empty() && first >= 0 && first + static_cast<int>(keys.size()) <= level.steps(),
            "the level has not so many steps");
    std::vector<nca::FireKey> fire;
    for (const auto& key : keys) fire.push_back({key[0], key[1]});
    nca::OnStep report;
    std::exception_ptr error;
    if (!on_step.is_none())
        report = [&](int done) {
            nb::gil_scoped_acquire acquire;
            try {
                on_step(done);
            } catch (...) {
                error = std::current_exception();
            }
            return error == nullptr;
        };
    {
        nb::gil_scoped_release release;
        nca::sweep(team, workspace, level, state, first, fire, threshold, report);
    }
    if (error) std::rethrow_exception(error);
}

}  // namespace

NB_MODULE(_core, m) {
    nb::class_<nca::Team>(m, "Team").def(nb::init<int>(), "threads"_a).def_prop_ro("size", &nca::Team::size);
    nb::class_<nca::Workspace>(m, "Workspace").def(nb::init<>());
    nb::class_<nca::Level>(m, "Level")
        .def(nb::new_(&make_level), "isa"_a, "perceive"_a.noconvert(), "dense_in"_a.noconvert(), "bias"_a.noconvert(),
             "dense_out"_a.noconvert(), "low_precision"_a = false);
    nb::class_<nca::State>(m, "State")
        .def(nb::new_(&make_state), "grid"_a, "channels"_a, "reach"_a, "file"_a = -1)
        .def("seed", &seed, "team"_a, "image"_a.noconvert())
        .def("refine", &refine, "team"_a, "coarse"_a, "image"_a.noconvert(), "scale"_a)
        .def("probabilities", &probabilities, "team"_a, "first"_a, "out"_a.noconvert())
        .def("read", &read_state, "out"_a.noconvert())
        .def("write", &write_state, "values"_a.noconvert());
    m.def("sweep", &sweep, "team"_a, "workspace"_a, "level"_a, "state"_a, "first"_a, "keys"_a, "threshold"_a,
          "on_step"_a.none());
    m.def("plane_bytes", &nca::plane_bytes, "grid"_a, "channels"_a, "reach"_a);
    m.def("pending_bytes", &nca::pending_bytes, "grid"_a, "channels"_a, "reach"_a, "steps"_a);
    m.attr("CHUNK_BYTES") = nca::kChunkBytes;
    m.def("isas", [] {
        std::vector<std::string> names;
        for (const auto* one : nca::available()) names.emplace_back(one->name);
        return names;
    });
    m.def("has_bf16", [] { return nca::available().front()->bf16; });
    m.def("fma_peak", &nca::peak_multiply_adds, "threads"_a, "seconds"_a, nb::call_guard<nb::gil_scoped_release>());
    m.def("memory_bandwidth", &nca::memory_bandwidth, "threads"_a, "seconds"_a,
          nb::call_guard<nb::gil_scoped_release>());
    bind_training(m);
}
