// form_action on the CPU: one form to a lane of a vector.
//
// Work: 5 d^2 / 2 multiply-adds a form, with r, u and the coefficients in registers up to degree 7 and in L1 above. Memory: 2 (d + 1) + 4
// numbers a form, 0.14 kB at d = 6 in float64, and their transposition into lanes and back. On one Zen 4 core with AVX-512 at 3 GHz, from
// L2: 10 ns a form at d = 6 and 54 ns at d = 20 in float64 (6 and 25 in float32), where the multiply-adds alone would take 4 and 42 (2 and
// 21). The rest is the transposition, 5 ns (4), and in the registers' range spills. The adjoint in the form is one such substitution, that
// in the matrix two of a degree less, so that a gradient takes three.
#include "cpu/form_action_kernel.hpp"

#include "cpu/tile_copy.hpp"
#include "cpu/vec.hpp"
#include "ops/form_action_horner.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

template <class T, int Degree>
ISOTYPIC_INLINE void in_registers(const T* p, const Vec<T>* g, T* y) {
    constexpr int L = kLanes<T>;
    Vec<T> coefficients[Degree + 1], r[Degree + 2], u[Degree + 2];
#pragma GCC unroll 16
    for (int i = 0; i <= Degree; ++i) coefficients[i] = load(p + i * L);
    forms::horner<Vec<T>>(Degree, coefficients, g[0], g[1], g[2], g[3], r, u);
#pragma GCC unroll 16
    for (int i = 0; i <= Degree; ++i) store(y + i * L, r[i]);
}

// r = p after the substitution, in tiles; u is scratch.
template <class T>
void substitute(int degree, const T* p, const Vec<T>* g, T* r, T* u) {
    switch (degree) {
        case 0:
            return in_registers<T, 0>(p, g, r);
        case 1:
            return in_registers<T, 1>(p, g, r);
        case 2:
            return in_registers<T, 2>(p, g, r);
        case 3:
            return in_registers<T, 3>(p, g, r);
        case 4:
            return in_registers<T, 4>(p, g, r);
        case 5:
            return in_registers<T, 5>(p, g, r);
        case 6:
            return in_registers<T, 6>(p, g, r);
        case 7:
            return in_registers<T, 7>(p, g, r);
        default:
            forms::horner<Vec<T>>(degree, reinterpret_cast<const Vec<T>*>(p), g[0], g[1], g[2], g[3], reinterpret_cast<Vec<T>*>(r),
                                  reinterpret_cast<Vec<T>*>(u));
    }
}

// One vector of forms after the other: use(rows, first).
template <class T, class Use>
ISOTYPIC_INLINE void for_vectors(int64_t count, const Use& use) {
    for (int64_t first = 0; first < count; first += kLanes<T>) use(count - first < kLanes<T> ? count - first : kLanes<T>, first);
}

template <class T>
ISOTYPIC_INLINE void load_matrices(const T* g, int64_t rows, Vec<T>* result) {
    constexpr int L = kLanes<T>;
    alignas(64) T tile[4 * L];
    load_tile(g, 4, rows, 4, tile, L);
    for (int i = 0; i < 4; ++i) result[i] = load(tile + i * L);
}

template <class T>
void act(int degree, int64_t count, const T* p, const T* g, T* y, T* workspace) {
    constexpr int L = kLanes<T>;
    const int64_t width = degree + 1;
    T *tile = workspace, *r = tile + width * L, *u = r + width * L;
    for_vectors<T>(count, [&](int64_t rows, int64_t first) ISOTYPIC_LAMBDA {
        Vec<T> m[4];
        load_tile(p + first * width, width, rows, width, tile, L);
        load_matrices(g + first * 4, rows, m);
        substitute(degree, tile, m, r, u);
        store_tile(r, L, rows, width, y + first * width, width);
    });
}

template <class T>
void adjoint(int degree, int64_t count, const T* z, const T* g, const T* binomials, T* p, T* workspace) {
    constexpr int L = kLanes<T>;
    const int64_t width = degree + 1;
    T *tile = workspace, *r = tile + width * L, *u = r + width * L;
    for_vectors<T>(count, [&](int64_t rows, int64_t first) ISOTYPIC_LAMBDA {
        Vec<T> m[4];
        load_tile(z + first * width, width, rows, width, tile, L);
        load_matrices(g + first * 4, rows, m);
        const Vec<T> transposed[4] = {m[0], m[2], m[1], m[3]};
        for (int64_t i = 0; i < width; ++i) store(tile + i * L, load(tile + i * L) * broadcast<T>(binomials[i]));
        substitute(degree, tile, transposed, r, u);
        for (int64_t i = 0; i < width; ++i) store(r + i * L, load(r + i * L) / broadcast<T>(binomials[i]));
        store_tile(r, L, rows, width, p + first * width, width);
    });
}

template <class T>
void matrix(int degree, int64_t count, const T* p, const T* g, const T* z, T* result, T* workspace) {
    constexpr int L = kLanes<T>;
    const int64_t width = degree + 1;
    T *tile = workspace, *r = tile + width * L, *u = r + width * L, *partial = u + width * L;
    alignas(64) T gradient[4 * L];
    for_vectors<T>(count, [&](int64_t rows, int64_t first) ISOTYPIC_LAMBDA {
        Vec<T> m[4];
        load_tile(p + first * width, width, rows, width, tile, L);
        load_matrices(g + first * 4, rows, m);
        for (int i = 0; i < degree; ++i) store(partial + i * L, load(tile + (i + 1) * L) * broadcast<T>(static_cast<T>(i + 1)));
        for (int i = 0; i < degree; ++i) store(tile + i * L, load(tile + i * L) * broadcast<T>(static_cast<T>(degree - i)));
        for (int row = 0; row < 2; ++row) {
            Vec<T> by_x = zero<T>(), by_y = zero<T>();
            if (degree > 0) {
                substitute(degree - 1, row ? tile : partial, m, r, u);
                if (row == 0) load_tile(z + first * width, width, rows, width, partial, L);
                const T* moved = partial;
                for (int i = 0; i < degree; ++i, moved += L) {
                    by_x += load(r + i * L) * load(moved + L);
                    by_y += load(r + i * L) * load(moved);
                }
            }
            store(gradient + 2 * row * L, by_x);
            store(gradient + (2 * row + 1) * L, by_y);
        }
        store_tile(gradient, L, rows, 4, result + first * 4, 4);
    });
}

template <class T>
constexpr FormActionKernel<T> kernel() {
    return {kLanes<T>, &act<T>, &adjoint<T>, &matrix<T>};
}

const FormActionKernels kKernels = {kernel<float>(), kernel<double>()};

}  // namespace

const FormActionKernels& form_action_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
