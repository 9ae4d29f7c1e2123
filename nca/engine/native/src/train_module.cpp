// Training for Python (nca/engine/native/training.py). Shapes are checked here once more.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "dispatch.hpp"
#include "train.hpp"

namespace nb = nanobind;
using namespace nb::literals;

void bind_training(nb::module_& m);

namespace {

template <class T, int N>
using In = nb::ndarray<const T, nb::numpy, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using Out = nb::ndarray<T, nb::numpy, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

template <class Array>
bool has_shape(const Array& array, std::initializer_list<int> shape) {
    std::size_t axis = 0;
    for (int n : shape)
        if (array.shape(axis++) != static_cast<std::size_t>(n)) return false;
    return true;
}

// The seven arrays of a level, in the order of `nca::LevelArrays`.
template <class Cube, class Row, class Matrix>
void require_level(const nca::TrainShape& s, const Cube& perceive, const Row& perceive_bias, const Matrix& dense_in,
                   const Row& bias, const Row& scale, const Row& shift, const Matrix& dense_out) {
    const int c = s.channels, h = s.hidden, k = s.kernel;
    require(has_shape(perceive, {k, k, k, c}) && has_shape(perceive_bias, {c}) && has_shape(dense_in, {2 * c, h}) &&
                has_shape(bias, {h}) && has_shape(scale, {h}) && has_shape(shift, {h}) && has_shape(dense_out, {h, c}),
            "the weights' shapes contradict each other");
}

const nca::TrainKernels<float>& kernels_for(const nca::Kernels& set, const nca::TrainShape& s, float) {
    return set.train_float(s.channels, s.hidden, s.kernel);
}
const nca::TrainKernels<double>& kernels_for(const nca::Kernels& set, const nca::TrainShape& s, double) {
    return set.train_double(s.channels, s.hidden, s.kernel);
}

// The tape that backward takes, or None without `keep`. Keys: (steps, batch).
template <class T>
nb::object forward(nca::Trainer& trainer, const std::string& isa, In<T, 4> perceive, In<T, 1> perceive_bias,
                   In<T, 2> dense_in, In<T, 1> bias, In<T, 1> scale, In<T, 1> shift, In<T, 2> dense_out, In<T, 5> state,
                   In<std::uint32_t, 3> keys, std::uint64_t threshold, bool keep, Out<T, 5> out, Out<double, 2> mean,
                   Out<double, 2> variance, Out<std::int64_t, 1> count) {
    nca::TrainShape shape;
    shape.batch = static_cast<int>(state.shape(0)), shape.channels = static_cast<int>(state.shape(4));
    for (int axis = 0; axis < 3; ++axis) shape.grid[axis] = static_cast<int>(state.shape(axis + 1));
    shape.hidden = static_cast<int>(bias.shape(0)), shape.kernel = static_cast<int>(perceive.shape(0));
    shape.steps = static_cast<int>(keys.shape(0));
    require(shape.kernel % 2 == 1 && shape.kernel >= 3, "the kernel's edge is odd, at least 3");
    require(shape.channels > 0 && shape.channels % nca::kChannelQuantum == 0 && shape.hidden > 0 &&
                shape.hidden % nca::kHiddenQuantum == 0,
            "channels and hidden units must be padded");
    require_level(shape, perceive, perceive_bias, dense_in, bias, scale, shift, dense_out);
    require(shape.batch > 0 && shape.steps > 0 && has_shape(keys, {shape.steps, shape.batch, 2}),
            "two keys for every step and sample");
    for (int n : shape.grid) require(n > shape.reach(), "every axis must be longer than half the kernel");
    for (std::size_t axis = 0; axis < 5; ++axis)
        require(out.shape(axis) == state.shape(axis), "the output has another shape than the state");
    require(has_shape(mean, {shape.steps, shape.hidden}) && has_shape(variance, {shape.steps, shape.hidden}) &&
                has_shape(count, {shape.steps}),
            "statistics of every step");
    std::vector<nca::FireKey> fire;
    for (std::size_t i = 0; i < keys.size(); i += 2) fire.push_back({keys.data()[i], keys.data()[i + 1]});
    const auto& kernels = kernels_for(nca::kernels_of(isa), shape, T{});
    std::unique_ptr<nca::Tape<T>> tape;
    {
        nb::gil_scoped_release release;
        const nca::LevelArrays<const T> weights{perceive.data(), perceive_bias.data(), dense_in.data(), bias.data(),
                                                scale.data(),    shift.data(),         dense_out.data()};
        tape = std::make_unique<nca::Tape<T>>(trainer, kernels, shape, weights, std::move(fire), threshold, keep);
        tape->forward(state.data(), out.data(), {mean.data(), variance.data(), count.data()});
    }
    return keep ? nb::cast(tape.release(), nb::rv_policy::take_ownership) : nb::none();
}

template <class T>
void backward(nca::Tape<T>& tape, Out<T, 5> gradient, Out<double, 4> perceive, Out<double, 1> perceive_bias,
              Out<double, 2> dense_in, Out<double, 1> bias, Out<double, 1> scale, Out<double, 1> shift,
              Out<double, 2> dense_out) {
    const nca::TrainShape& shape = tape.shape();
    require(!tape.spent(), "a tape goes back only once");
    require(has_shape(gradient, {shape.batch, shape.grid[0], shape.grid[1], shape.grid[2], shape.channels}),
            "the gradient has another shape than the state");
    require_level(shape, perceive, perceive_bias, dense_in, bias, scale, shift, dense_out);
    nb::gil_scoped_release release;
    tape.backward(gradient.data(), {perceive.data(), perceive_bias.data(), dense_in.data(), bias.data(), scale.data(),
                                    shift.data(), dense_out.data()});
}

template <class T>
void bind_tape(nb::module_& m, const char* name) {
    nb::class_<nca::Tape<T>>(m, name).def("backward", &backward<T>, "gradient"_a.noconvert(), "perceive"_a.noconvert(), "perceive_bias"_a.noconvert(),
                                          "dense_in"_a.noconvert(), "bias"_a.noconvert(), "scale"_a.noconvert(), "shift"_a.noconvert(), "dense_out"_a.noconvert());
    m.def("train_forward", &forward<T>, "trainer"_a, "isa"_a, "perceive"_a.noconvert(), "perceive_bias"_a.noconvert(), "dense_in"_a.noconvert(), "bias"_a.noconvert(),
          "scale"_a.noconvert(), "shift"_a.noconvert(), "dense_out"_a.noconvert(), "state"_a.noconvert(), "keys"_a.noconvert(), "threshold"_a, "keep"_a, "out"_a.noconvert(), "mean"_a.noconvert(),
          "variance"_a.noconvert(), "count"_a.noconvert(), nb::keep_alive<0, 1>());
}

}  // namespace

void bind_training(nb::module_& m) {
    nb::class_<nca::Trainer>(m, "Trainer").def(nb::init<int>(), "threads"_a);
    bind_tape<float>(m, "Tape32");
    bind_tape<double>(m, "Tape64");
}
