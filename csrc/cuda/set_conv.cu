// Set convolutions on a device.
//
// Encoding: a block owns a tile of 8 rows by 32 nodes, a thread a node of it with four channels in registers, and takes the points 64 at a
// time: those whose window meets the tile are listed in their order, their weights on the tile's rows and columns are made once in shared
// memory, 40 exponentials a point, and each thread adds four products a point. Every node adds its points in their order: deterministic, and
// without atomics. Decoding and the moments: a block to a point, its threads along the last axis of the window, weights of 64 rows at a time in
// shared memory, the sum over the threads by halves. Both are bound by reading and writing the grid once C is large, and by the exponentials
// before that.
#include "ops/set_conv.hpp"

#include <cmath>

#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kTileRows = 8, kTileColumns = 32, kThreads = kTileRows * kTileColumns, kPoints = 64, kChannels = 4;
constexpr int kPointThreads = 64;

struct Axes {
    int dim, power[3];
    int64_t nodes[3];
};

DEVICE float exponential(float x) {
    return expf(x);
}
DEVICE double exponential(double x) {
    return exp(x);
}

// A point on one axis: r at a node is (node - at) inverse; nodes [first, last) are in its window.
struct Place {
    double at, inverse;
    int first, last;
};

template <class T>
DEVICE Place place_of(const Axes& axes, int axis, const double* t, const double* s) {
    Place place{0, 0, 0, 1};
    const int k = axis - (3 - axes.dim);
    if (k < 0) return place;
    place.at = t[k];
    place.inverse = 1 / s[k];
    const double reach = kSetConvWindow<T> * fabs(s[k]), nodes = static_cast<double>(axes.nodes[axis]);
    double low = ceil(place.at - reach), high = floor(place.at + reach);
    low = low < 0 ? 0 : low;
    high = high > nodes - 1 ? nodes - 1 : high;
    // Whatever is not finite has an empty window.
    const bool some = low <= high;
    place.first = some ? static_cast<int>(low) : 0;
    place.last = some ? static_cast<int>(high) + 1 : 0;
    return place;
}

template <class T>
DEVICE T distance(const Place& place, int node) {
    return static_cast<T>((node - place.at) * place.inverse);
}

template <class T>
DEVICE T weight(T r, int power) {
    T result = r * r <= static_cast<T>(kSetConvWindow<T> * kSetConvWindow<T>) ? exponential(static_cast<T>(-0.5) * r * r) : T{0};
    for (int i = 0; i < power; ++i) result *= r;
    return result;
}

// y (B, N, C), t (B, N, d), s (d) -> grid (B, C, rows, columns); blocks run over (b, tile of rows, tile of columns).
template <class T>
__global__ void __launch_bounds__(kThreads) encode(const T* y, const double* t, const double* s, Axes axes, int64_t points,
                                                   int64_t channels, int64_t row_tiles, int64_t column_tiles, T* grid) {
    T* row_weights = reinterpret_cast<T*>(shared_memory());  // (points, rows), (points, columns)
    T* column_weights = row_weights + kPoints * kTileRows;
    Place* columns = reinterpret_cast<Place*>(column_weights + kPoints * kTileColumns);
    int* listed = reinterpret_cast<int*>(columns + kPoints);
    int* meets = listed + kPoints + 1;  // listed[kPoints]: how many
    const int64_t rows = axes.nodes[0] * axes.nodes[1];
    const int64_t block = block_index(), b = block / (row_tiles * column_tiles);
    const int64_t first_row = block / column_tiles % row_tiles * kTileRows;
    const int first_column = static_cast<int>(block % column_tiles) * kTileColumns;
    const int64_t row = first_row + thread_index() / kTileColumns;
    const int column = first_column + thread_index() % kTileColumns;
    const int64_t nodes = rows * axes.nodes[2];
    for (int64_t c0 = 0; c0 < channels; c0 += kChannels) {
        T sum[kChannels] = {};
        for (int64_t n0 = 0; n0 < points; n0 += kPoints) {
            const int here = static_cast<int>(points - n0 < kPoints ? points - n0 : kPoints);
            __syncthreads();
            if (thread_index() < kPoints) {
                int meet = 0;
                if (thread_index() < here) {
                    const Place place = place_of<T>(axes, 2, t + (b * points + n0 + thread_index()) * axes.dim, s);
                    columns[thread_index()] = place;
                    meet = place.first < first_column + kTileColumns && place.last > first_column;
                    if (meet && axes.nodes[0] == 1) {  // rows are those of axis 1
                        const Place across = place_of<T>(axes, 1, t + (b * points + n0 + thread_index()) * axes.dim, s);
                        meet = across.first < first_row + kTileRows && across.last > first_row;
                    }
                }
                meets[thread_index()] = meet;
            }
            __syncthreads();
            if (thread_index() == 0) {
                int count = 0;
                for (int n = 0; n < here; ++n)
                    if (meets[n]) listed[count++] = n;
                listed[kPoints] = count;
            }
            __syncthreads();
            const int count = listed[kPoints];
            for (int i = thread_index(); i < count * kTileColumns; i += kThreads) {
                const int node = first_column + i % kTileColumns;
                const Place place = columns[listed[i / kTileColumns]];
                column_weights[i] = weight<T>(distance<T>(place, node), axes.power[2]);
            }
            for (int i = thread_index(); i < count * kTileRows; i += kThreads) {
                const int64_t at = first_row + i % kTileRows;
                const double* point = t + (b * points + n0 + listed[i / kTileRows]) * axes.dim;
                T value = 0;
                if (at < rows) {
                    value = 1;
                    const int node[2] = {static_cast<int>(at / axes.nodes[1]), static_cast<int>(at % axes.nodes[1])};
                    for (int axis = 3 - axes.dim; axis < 2; ++axis)
                        value *= weight<T>(distance<T>(place_of<T>(axes, axis, point, s), node[axis]), axes.power[axis]);
                }
                row_weights[i] = value;
            }
            __syncthreads();
            for (int p = 0; p < count; ++p) {
                const T product = row_weights[p * kTileRows + thread_index() / kTileColumns] *
                                  column_weights[p * kTileColumns + thread_index() % kTileColumns];
                const T* values = y + (b * points + n0 + listed[p]) * channels + c0;
                for (int c = 0; c < kChannels; ++c)
                    if (c0 + c < channels) sum[c] += product * values[c];
            }
        }
        if (row < rows && column < axes.nodes[2])
            for (int c = 0; c < kChannels; ++c)
                if (c0 + c < channels) grid[(b * channels + c0 + c) * nodes + row * axes.nodes[2] + column] = sum[c];
    }
}

// What a block makes of its point: the values, or the moments with or without them.
enum class Mode { decode, moments, values_and_moments };

// grid (B, C, nodes), y (B, N, C) for the moments; result (B, N, C) of T, or moments (B, N, [C] + 2 d) of double.
template <class T, Mode mode>
__global__ void __launch_bounds__(kPointThreads) at_points(const T* grid, const T* y, const double* t, const double* s, Axes axes,
                                                           int64_t points, int64_t channels, T* values, double* moments) {
    T* weights = reinterpret_cast<T*>(shared_memory());  // weight, r on axis 0, r on axis 1 of the rows at hand
    T* partial = weights + 3 * kPointThreads;
    const int64_t point = block_index(), b = point / points;
    const int64_t nodes = axes.nodes[0] * axes.nodes[1] * axes.nodes[2];
    Place place[3];
    for (int axis = 0; axis < 3; ++axis) place[axis] = place_of<T>(axes, axis, t + point * axes.dim, s);
    const int middle = place[1].last - place[1].first, rows = (place[0].last - place[0].first) * middle;
    const int64_t before = mode == Mode::values_and_moments ? channels : 0, width = before + 2 * axes.dim;
    double total[6] = {};
    for (int64_t c0 = 0; c0 < channels; c0 += kChannels) {
        T sum[kChannels] = {}, first[3] = {}, second[3] = {};
        for (int r0 = 0; r0 < rows; r0 += kPointThreads) {
            const int here = rows - r0 < kPointThreads ? rows - r0 : kPointThreads;
            __syncthreads();
            if (thread_index() < here) {
                const int i = place[0].first + (r0 + thread_index()) / middle, j = place[1].first + (r0 + thread_index()) % middle;
                const T r[2] = {distance<T>(place[0], i), distance<T>(place[1], j)};
                T product = 1;
                for (int axis = 3 - axes.dim; axis < 2; ++axis) product *= weight<T>(r[axis], axes.power[axis]);
                weights[thread_index()] = product;
                weights[kPointThreads + thread_index()] = r[0];
                weights[2 * kPointThreads + thread_index()] = r[1];
            }
            __syncthreads();
            for (int column = place[2].first + thread_index(); column < place[2].last; column += kPointThreads) {
                const T r2 = distance<T>(place[2], column), last = weight<T>(r2, axes.power[2]);
                for (int q = 0; q < here; ++q) {
                    const int i = place[0].first + (r0 + q) / middle, j = place[1].first + (r0 + q) % middle;
                    const T* field = grid + (b * channels + c0) * nodes + (i * axes.nodes[1] + j) * axes.nodes[2] + column;
                    const T product = weights[q] * last;
                    T mixed = 0;
                    for (int c = 0; c < kChannels; ++c)
                        if (c0 + c < channels) {
                            const T value = field[c * nodes];
                            sum[c] += product * value;
                            if (mode != Mode::decode) mixed += y[point * channels + c0 + c] * value;
                        }
                    if (mode != Mode::decode) {
                        mixed *= product;
                        const T r[3] = {weights[kPointThreads + q], weights[2 * kPointThreads + q], r2};
                        for (int axis = 0; axis < 3; ++axis) first[axis] += mixed * r[axis], second[axis] += mixed * r[axis] * r[axis];
                    }
                }
            }
        }
        // The sums over the threads: ten numbers of each, added by halves.
        constexpr int kSums = kChannels + 6;
        __syncthreads();
        for (int c = 0; c < kChannels; ++c) partial[c * kPointThreads + thread_index()] = sum[c];
        for (int axis = 0; axis < 3; ++axis) {
            partial[(kChannels + axis) * kPointThreads + thread_index()] = first[axis];
            partial[(kChannels + 3 + axis) * kPointThreads + thread_index()] = second[axis];
        }
        for (int half = kPointThreads / 2; half > 0; half /= 2) {
            __syncthreads();
            if (thread_index() < half)
                for (int k = 0; k < kSums; ++k)
                    partial[k * kPointThreads + thread_index()] += partial[k * kPointThreads + thread_index() + half];
        }
        __syncthreads();
        if (thread_index() == 0) {
            for (int c = 0; c < kChannels; ++c)
                if (c0 + c < channels) {
                    if (mode == Mode::decode) values[point * channels + c0 + c] = partial[c * kPointThreads];
                    if (mode == Mode::values_and_moments) moments[point * width + c0 + c] = static_cast<double>(partial[c * kPointThreads]);
                }
            for (int k = 0; k < 6; ++k) total[k] += static_cast<double>(partial[(kChannels + k) * kPointThreads]);
        }
    }
    if (mode != Mode::decode && thread_index() == 0)
        for (int k = 0; k < axes.dim; ++k) {
            moments[point * width + before + k] = total[3 - axes.dim + k];
            moments[point * width + before + axes.dim + k] = total[6 - axes.dim + k];
        }
}

Axes axes_of(const SetConvAxes& axes) {
    Axes result{axes.dim, {}, {}};
    for (int axis = 0; axis < 3; ++axis) result.power[axis] = axes.powers[axis], result.nodes[axis] = axes.nodes[axis];
    return result;
}

template <class T>
void run_encode(const View& y, const View& t, const View& s, const SetConvAxes& axes, const View& grid, void* stream) {
    const int64_t rows = (axes.nodes[0] * axes.nodes[1] + kTileRows - 1) / kTileRows;
    const int64_t columns = (axes.nodes[2] + kTileColumns - 1) / kTileColumns;
    const size_t bytes = sizeof(T) * kPoints * (kTileRows + kTileColumns) + sizeof(Place) * kPoints + sizeof(int) * (2 * kPoints + 2);
    launch("set_conv", encode<T>, y.sizes[0] * rows * columns, kThreads, bytes, stream, static_cast<const T*>(y.data),
           static_cast<const double*>(t.data), static_cast<const double*>(s.data), axes_of(axes), y.sizes[1], y.sizes[2], rows, columns,
           static_cast<T*>(grid.data));
}

template <class T, Mode mode>
void run_points(const View& grid, const View& y, const View& t, const View& s, const SetConvAxes& axes, void* values, void* moments,
                void* stream) {
    const size_t bytes = sizeof(T) * kPointThreads * (3 + kChannels + 6);
    launch("set_conv_decode", at_points<T, mode>, t.sizes[0] * t.sizes[1], kPointThreads, bytes, stream, static_cast<const T*>(grid.data),
           static_cast<const T*>(y.data), static_cast<const double*>(t.data), static_cast<const double*>(s.data), axes_of(axes), t.sizes[1],
           grid.sizes[1], static_cast<T*>(values), static_cast<double*>(moments));
}

template <class T>
void run_moments(const View& y, const View& grid, const View& t, const View& s, const SetConvAxes& axes, bool first, const View& moments,
                 void* stream) {
    const auto run = first ? run_points<T, Mode::values_and_moments> : run_points<T, Mode::moments>;
    run(grid, y, t, s, axes, nullptr, moments.data, stream);
}

}  // namespace

void set_conv(const View& y, const View& t, const View& s, const SetConvAxes& axes, const View& grid, void* stream) {
    y.dtype == DType::float64 ? run_encode<double>(y, t, s, axes, grid, stream) : run_encode<float>(y, t, s, axes, grid, stream);
}

void set_conv_decode(const View& grid, const View& t, const View& s, const SetConvAxes& axes, const View& y, void* stream) {
    const auto run = y.dtype == DType::float64 ? run_points<double, Mode::decode> : run_points<float, Mode::decode>;
    run(grid, y, t, s, axes, y.data, nullptr, stream);
}

void set_conv_moments(const View& y, const View& grid, const View& t, const View& s, const SetConvAxes& axes, bool first,
                      const View& moments, void* stream) {
    y.dtype == DType::float64 ? run_moments<double>(y, grid, t, s, axes, first, moments, stream)
                              : run_moments<float>(y, grid, t, s, axes, first, moments, stream);
}

}  // namespace cuda
}  // namespace isotypic
