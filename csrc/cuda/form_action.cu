// form_action on a device: one form to a thread, its coefficients in local memory.
//
// 5 d^2 / 2 multiply-adds and 2 (d + 1) + 4 numbers moved a form: bound by memory below degree 20 or so on every target. Rows of d + 1
// numbers are read and written through shared memory, so that a warp's accesses are to neighbouring addresses. The adjoint in the matrix is
// two substitutions of a degree less. 32 registers in float32 and 40 in float64 on sm_90, no spills.
//
// Local memory: at the first launch the driver reserves the stack of a thread for every thread that can be resident, 270,336 on an H200. In
// float64 (float32 takes half):
//     degree up to    6        12       20       64
//     stack           192 B    336 B    528 B    1,584 B
//     reserved        52 MB    91 MB    143 MB   428 MB
#include "ops/form_action.hpp"

#include <string>

#include "cuda/launch.cuh"
#include "ops/form_action_horner.hpp"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kFormsOfBlock = 64;

// What of the action: its value, its adjoint in the form, its adjoint in the matrix.
enum class Mode { act, adjoint, matrix };

template <class T>
struct Binomials {
    T value[kMaxDegree + 1];
};

// Rows of a block's forms between memory and shared memory, at neighbouring addresses.
template <class T>
DEVICE void copy_rows(const T* from, T* to, int size) {
    for (int i = thread_index(); i < size; i += kFormsOfBlock) to[i] = from[i];
}

// p and y (count, degree + 1); in the mode `matrix` y is (count, 4) and z is read.
template <class T, int Capacity, Mode mode>
__global__ void __launch_bounds__(kFormsOfBlock)
    action(const T* p, const T* g, const T* z, T* y, Binomials<T> binomials, int64_t count, int degree) {
    T* rows = reinterpret_cast<T*>(shared_memory());
    const int width = degree + 1;
    const int64_t first = static_cast<int64_t>(block_index()) * kFormsOfBlock;
    const int here = static_cast<int>(count - first < kFormsOfBlock ? count - first : kFormsOfBlock);
    T* others = rows + kFormsOfBlock * width;
    copy_rows(p + first * width, rows, here * width);
    if (mode == Mode::matrix) copy_rows(z + first * width, others, here * width);
    __syncthreads();
    if (thread_index() < here) {
        T* mine = rows + thread_index() * width;
        const T* m = g + (first + thread_index()) * 4;
        T coefficients[Capacity + 1], r[Capacity + 2], u[Capacity + 2];
        if (mode == Mode::matrix) {
            const T* other = others + thread_index() * width;
            T* gradient = y + (first + thread_index()) * 4;
            for (int row = 0; row < 2; ++row) {
                T by_x = 0, by_y = 0;
                if (degree > 0) {
                    for (int i = 0; i < degree; ++i) coefficients[i] = row ? (degree - i) * mine[i] : (i + 1) * mine[i + 1];
                    forms::horner<T>(degree - 1, coefficients, m[0], m[1], m[2], m[3], r, u);
                    for (int i = 0; i < degree; ++i) by_x += r[i] * other[i + 1], by_y += r[i] * other[i];
                }
                gradient[2 * row] = by_x;
                gradient[2 * row + 1] = by_y;
            }
        } else {
            constexpr bool turn = mode == Mode::adjoint;
            for (int i = 0; i < width; ++i) coefficients[i] = turn ? mine[i] * binomials.value[i] : mine[i];
            forms::horner<T>(degree, coefficients, m[0], turn ? m[2] : m[1], turn ? m[1] : m[2], m[3], r, u);
            for (int i = 0; i < width; ++i) mine[i] = turn ? r[i] / binomials.value[i] : r[i];
        }
    }
    if (mode == Mode::matrix) return;
    __syncthreads();
    copy_rows<T>(rows, y + first * width, here * width);
}

template <class T, Mode mode>
void run_action(const View& p, const View& g, const View& z, const View& y, void* stream) {
    const int64_t count = p.sizes[0];
    const int degree = static_cast<int>(p.sizes[1]) - 1;
    if (degree > kMaxDegree)
        throw std::runtime_error("form_action: the degree must be at most " + std::to_string(kMaxDegree) + " on a CUDA device, got " +
                                 std::to_string(degree));
    Binomials<T> binomials{};
    forms::binomials(degree, binomials.value);
    const auto kernel = degree <= 6    ? action<T, 6, mode>
                        : degree <= 12 ? action<T, 12, mode>
                        : degree <= 20 ? action<T, 20, mode>
                                       : action<T, kMaxDegree, mode>;
    const int64_t grid = (count + kFormsOfBlock - 1) / kFormsOfBlock;
    const size_t bytes = sizeof(T) * kFormsOfBlock * (degree + 1) * (mode == Mode::matrix ? 2 : 1);
    launch("form_action", kernel, grid, kFormsOfBlock, bytes, stream, static_cast<const T*>(p.data), static_cast<const T*>(g.data),
           static_cast<const T*>(z.data), static_cast<T*>(y.data), binomials, count, degree);
}

template <Mode mode>
void run_dtype(const View& p, const View& g, const View& z, const View& y, void* stream) {
    p.dtype == DType::float64 ? run_action<double, mode>(p, g, z, y, stream) : run_action<float, mode>(p, g, z, y, stream);
}

}  // namespace

void form_action(const View& p, const View& g, const View& y, void* stream) {
    run_dtype<Mode::act>(p, g, View{}, y, stream);
}
void form_action_adjoint(const View& z, const View& g, const View& p, void* stream) {
    run_dtype<Mode::adjoint>(z, g, View{}, p, stream);
}
void form_action_matrix(const View& p, const View& g, const View& z, const View& r, void* stream) {
    run_dtype<Mode::matrix>(p, g, z, r, stream);
}

}  // namespace cuda
}  // namespace isotypic
