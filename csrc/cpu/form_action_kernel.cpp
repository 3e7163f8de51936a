// form_action on the CPU: one form to a lane of a vector.
//
// Work: 5 d^2 / 2 multiply-adds a form, with r, u and the coefficients in registers up to degree 7 and in L1 above. Memory: 2 (d + 1) + 4
// numbers a form, 0.14 kB at d = 6 in float64, and their transposition into lanes and back. On one Zen 4 core with AVX-512 at 3 GHz, from
// L2: 10 ns a form at d = 6 and 54 ns at d = 20 in float64 (6 and 25 in float32), where the multiply-adds alone would take 4 and 42 (2 and
// 21). The rest is the transposition, 5 ns (4), and in the registers' range spills.
#include "cpu/form_action_kernel.hpp"

#include "core/forms.hpp"
#include "cpu/tile_copy.hpp"
#include "cpu/vec.hpp"

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

template <class T>
void run(int degree, int64_t count, const T* p, const T* g, T* y, T* workspace) {
    constexpr int L = kLanes<T>;
    const int64_t width = degree + 1;
    T *tile = workspace, *r = tile + width * L, *u = r + width * L;
    alignas(64) T matrices[4 * L];
    for (int64_t first = 0; first < count; first += L) {
        const int64_t rows = count - first < L ? count - first : L;
        load_tile(p + first * width, width, rows, width, tile, L);
        load_tile(g + first * 4, 4, rows, 4, matrices, L);
        Vec<T> m[4];
        for (int i = 0; i < 4; ++i) m[i] = load(matrices + i * L);
        switch (degree) {
            case 0:
                in_registers<T, 0>(tile, m, r);
                break;
            case 1:
                in_registers<T, 1>(tile, m, r);
                break;
            case 2:
                in_registers<T, 2>(tile, m, r);
                break;
            case 3:
                in_registers<T, 3>(tile, m, r);
                break;
            case 4:
                in_registers<T, 4>(tile, m, r);
                break;
            case 5:
                in_registers<T, 5>(tile, m, r);
                break;
            case 6:
                in_registers<T, 6>(tile, m, r);
                break;
            case 7:
                in_registers<T, 7>(tile, m, r);
                break;
            default:
                forms::horner<Vec<T>>(degree, reinterpret_cast<const Vec<T>*>(tile), m[0], m[1], m[2], m[3], reinterpret_cast<Vec<T>*>(r),
                                      reinterpret_cast<Vec<T>*>(u));
        }
        store_tile(r, L, rows, width, y + first * width, width);
    }
}

const FormActionKernels kKernels = {{kLanes<float>, &run<float>}, {kLanes<double>, &run<double>}};

}  // namespace

const FormActionKernels& form_action_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
