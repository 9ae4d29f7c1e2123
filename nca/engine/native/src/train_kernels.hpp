// What every instruction set offers for training, as plain functions on plain data; T is float or double.
//
// c, h, k: channels, hidden units, kernel. A "plane" is the part of a sample with one x; its fired cells are rows
// of arrays, filled up to whole blocks of kRows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nca {

struct PlaneTask;

constexpr int kRows = 12;  // rows that a dense layer computes together

template <class T>
struct TrainWeights {
    int channels, hidden, kernel;
    const T* perceive;       // (k, k, k, c)
    const T* perceive_padded;  // (k, k + 2, k, c), zero at both ends
    const T* perceive_bias;  // (c)
    const T* dense_in;       // (2c, h)
    const T* dense_in_rows;  // (h, 2c)
    const T* bias;           // (h)
    const T* dense_out;      // (h, c), zero for the image channels
    const T* dense_out_rows; // (c, h)
};

// One plane at one step.
template <class T>
struct TrainPlane {
    const std::ptrdiff_t* taps;  // (k, k): elements from a cell to (x + dx, y + dy, z - reach)
    int count;                   // fired cells
    const std::uint32_t* cells;  // elements from cell (x, 0, 0); filled up with the first
    T* state;                    // cell (x, 0, 0); so are the next two
    T* gradient;                 // of the loss by the state
    T* perceived;                // gradient by what is perceived, where cells fired
    T* inputs;                   // (rows, 2c): own state, then what is perceived; zero where filled up
    T* hidden;                   // (rows, h) before normalisation
    T* incoming;                 // (rows, 2c) W1^T gain dz: the gradient by the inputs but for the normalisation's part
};

// A step's normalisation, z = u * gain + offset, and its gradient, du = gain * dz - constant - linear * (u - mean).
template <class T>
struct Normalisation {
    const T *mean, *gain, *offset, *constant, *linear;  // (h)
    const T* centre;                                    // (2c) mean of the inputs v
};

// What a lane has summed up.
template <class T>
struct LaneSums {
    T *dense_out, *dense_in, *perceive;  // gradients (c, h), (2c, h), (k, k, k, c)
    T* moments;                          // (2c, 2c) products of the inputs around their mean, of one step
};

// The normalisation's part of the gradient by the inputs: constant + linear (v - mean v).
template <class T>
struct Settled {
    T *constant, *linear;  // (2c), (2c, 2c)
};

// A plane of cells: rows (y) of depth (z), with a border of reach on every side.
struct PlaneShape {
    int channels, rows, depth, reach;
    std::ptrdiff_t row_stride;  // elements
};

// The k * (k + 1) rows of cells around two rows of targets, in the order of the second one's taps.
template <class T>
struct SourceRows {
    int depth;
    const std::uint64_t* words;     // (depth) bit i: the cell of row i fired
    const std::ptrdiff_t* sources;  // (k, k + 1) elements from `perceived` to the row
    const T* perceived;
};

template <class T>
struct TrainKernels {
    // Lists the cells of a plane that fire, as elements from cell (x, 0, 0); touches one place more than there are.
    int (*fired)(const PlaneTask&, int channels, std::uint32_t* cells);
    // v = [s; p] and u = W1 v + b1. Sums over the cells of u - shift and its square; shift (h) is the first cell's u.
    // Also the sum of v (2c).
    void (*hidden)(const TrainWeights<T>&, const TrainPlane<T>&, T* shift, T* sum, T* squares, T* inputs);
    // s += W2 relu(z) at the cells that fired.
    void (*update)(const TrainWeights<T>&, const TrainPlane<T>&, const Normalisation<T>&, void* scratch);
    // Gives the cells back their former state. Adds to dW2, to what gain dz gives to dW1, and to the moments; sums over
    // the cells of dz and dz * (u - mean).
    void (*through_out)(const TrainWeights<T>&, const TrainPlane<T>&, const Normalisation<T>&, const LaneSums<T>&,
                        T* sum, T* product, void* scratch);
    // The rest of a step's dW1 (2c, h), from the moments of all lanes, and of the gradient by v.
    void (*settle)(const TrainWeights<T>&, const Normalisation<T>&, const T* moments, T* dense_in, const Settled<T>&,
                   void* scratch);
    // The gradient by v, to the cells' own gradient and to `perceived`.
    void (*through_in)(const TrainWeights<T>&, const TrainPlane<T>&, const Normalisation<T>&, const Settled<T>&,
                       void* scratch);
    // Adds to dWp (k, k, k, c).
    void (*through_taps)(const TrainWeights<T>&, const TrainPlane<T>&, T* perceive);
    // The border along y and z, and its transpose.
    void (*mirror)(const PlaneShape&, T* plane);
    void (*fold)(const PlaneShape&, T* plane);
    // Transposed convolution onto a plane, border included: of one plane of sources; or, where there is one, of all
    // the rows around two rows of targets.
    void (*scatter)(const TrainWeights<T>&, const TrainPlane<T>& source, const PlaneShape&, int dx, T* target);
    void (*gather)(const TrainWeights<T>&, const SourceRows<T>&, T* first, T* second);
};

// Rows of a group that goes through the dense layers together, so that what lies between them stays in the caches.
constexpr int kGroup = 96;

template <class T>
constexpr std::size_t train_scratch_bytes(int channels, int hidden) {
    const auto c = static_cast<std::size_t>(channels), h = static_cast<std::size_t>(hidden);
    return sizeof(T) * (kGroup * (3 * c + 2 * h) + 2 * c * h);
}

}  // namespace nca
