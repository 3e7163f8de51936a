// small_matrix on a device: one matrix to a thread, in registers.
//
// A frame of 3 x 3 in float32 moves 108 bytes for some 200 flops, its adjoint 144 for 150, eigenvectors 84 bytes for 600 flops and 24
// roots: all are bound by memory on every target, but for the eigenvectors in float64. Matrices are read and written through shared memory,
// so that a warp's accesses are to neighbouring addresses; with odd D * D the threads' rows lie in different banks.
#include "ops/small_matrix.hpp"

#include <cmath>

#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

using small_matrix::Operation;

constexpr int kMatricesOfBlock = 128;

template <class T>
struct Scalars {
    static DEVICE T root(T x) { return sqrt(x); }
    static DEVICE bool any(bool condition) { return condition; }
};

struct Arrays {
    const void* in[4];
    void* out[2];
};

// All arrays of a block go one after the other through the same shared memory, (kMatricesOfBlock, D * D).
template <Operation operation, class T, int D>
__global__ void __launch_bounds__(kMatricesOfBlock) small_matrices(Arrays arrays, bool proper, int64_t count) {
    constexpr small_matrix::Signature signature = small_matrix::signature_of(operation);
    T* rows = reinterpret_cast<T*>(shared_memory());
    const int64_t first = static_cast<int64_t>(block_index()) * kMatricesOfBlock;
    const int here = static_cast<int>(count - first < kMatricesOfBlock ? count - first : kMatricesOfBlock);
    T in[signature.inputs][D * D], out[signature.outputs][D * D];
#pragma unroll
    for (int a = 0; a < signature.inputs; ++a) {
        const int width = signature.values_in[a] ? D : D * D;
        const T* from = static_cast<const T*>(arrays.in[a]) + first * width;
        for (int i = thread_index(); i < here * width; i += kMatricesOfBlock) rows[i] = from[i];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < width; ++i) in[a][i] = thread_index() < here ? rows[thread_index() * width + i] : T(i % (D + 1) == 0);
        __syncthreads();
    }
    small_matrix::compute<operation, T, T, D, Scalars<T>>(in, proper, out);
#pragma unroll
    for (int a = 0; a < signature.outputs; ++a) {
        const int width = signature.values_out[a] ? D : D * D;
        T* to = static_cast<T*>(arrays.out[a]) + first * width;
        if (thread_index() < here)
#pragma unroll
            for (int i = 0; i < width; ++i) rows[thread_index() * width + i] = out[a][i];
        __syncthreads();
        for (int i = thread_index(); i < here * width; i += kMatricesOfBlock) to[i] = rows[i];
        __syncthreads();
    }
}

template <Operation operation, class T>
void run(const View* in, bool proper, const View* out, void* stream) {
    constexpr small_matrix::Signature signature = small_matrix::signature_of(operation);
    const View& matrices = in[signature.values_in[0] ? 1 : 0];
    const int64_t count = matrices.sizes[0], d = matrices.sizes[1];
    Arrays arrays{};
    for (int i = 0; i < signature.inputs; ++i) arrays.in[i] = in[i].data;
    for (int i = 0; i < signature.outputs; ++i) arrays.out[i] = out[i].data;
    const auto kernel = d == 2   ? small_matrices<operation, T, 2>
                        : d == 3 ? small_matrices<operation, T, 3>
                                 : small_matrices<operation, T, 4>;
    const int64_t grid = (count + kMatricesOfBlock - 1) / kMatricesOfBlock;
    launch("small_matrix", kernel, grid, kMatricesOfBlock, sizeof(T) * kMatricesOfBlock * d * d, stream, arrays, proper, count);
}

template <Operation operation>
void run_dtype(const View* in, bool proper, const View* out, void* stream) {
    in[0].dtype == DType::float64 ? run<operation, double>(in, proper, out, stream) : run<operation, float>(in, proper, out, stream);
}

}  // namespace

void small_matrix(small_matrix::Operation operation, const View* in, bool proper, const View* out, void* stream) {
    switch (operation) {
        case Operation::frame:
            return run_dtype<Operation::frame>(in, proper, out, stream);
        case Operation::frame_backward:
            return run_dtype<Operation::frame_backward>(in, proper, out, stream);
        case Operation::eigen:
            return run_dtype<Operation::eigen>(in, proper, out, stream);
        case Operation::eigen_backward:
            return run_dtype<Operation::eigen_backward>(in, proper, out, stream);
        case Operation::polar:
            return run_dtype<Operation::polar>(in, proper, out, stream);
        case Operation::polar_backward:
            return run_dtype<Operation::polar_backward>(in, proper, out, stream);
        case Operation::sylvester:
            return run_dtype<Operation::sylvester>(in, proper, out, stream);
    }
}

}  // namespace cuda
}  // namespace isotypic
