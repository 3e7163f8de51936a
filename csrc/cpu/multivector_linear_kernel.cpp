// multivector_linear on the CPU: a multivector lies along the lanes, one vector of 16 float32 with AVX-512, so that nothing is transposed.
//
// With A and B the coefficients of a pair of channels spread over the components, y = sum_c A x + B (P x) takes two multiply-adds of
// vectors for each pair of channels and item, 32 numbers where 24 of the 256 are not zero in G(3,0,1) and 32 in G(1,3). P x is made once
// for all output channels. A tile of items x outputs is summed in registers: of 4 x 4 there are 32 multiply-adds to 16 loads a channel.
// 1024 items of 16 channels: 0.5 M multiply-adds of vectors, 0.1 ms at two a cycle and 2.6 GHz; one product with the expanded matrices has
// 8 times the numbers.
#include "cpu/multivector_linear_kernel.hpp"

#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// Items and outputs of a tile of registers.
constexpr int kItems = ISOTYPIC_VECTOR_BYTES == 64 ? 4 : 2;
constexpr int kOutputs = 4;
// Outputs and inputs of a tile of the gradient.
constexpr int kRows = ISOTYPIC_VECTOR_BYTES == 64 ? 4 : 2;
constexpr int kColumns = ISOTYPIC_VECTOR_BYTES == 64 ? 3 : 2;

template <class T>
void pack(const algebra::LinearMaps& maps, int K, int64_t O, int64_t C, const T* weight, bool transposed, T* panels) {
    T direct[16], turned[16];
    int turned_map[16];
    for (int i = 0; i < 16; ++i) {
        const int from = transposed ? maps.target[i] : i;
        direct[i] = static_cast<T>(maps.direct[i]);
        turned[i] = maps.turned_map[from] < K ? static_cast<T>(maps.turned[from]) : T{};
        turned_map[i] = maps.turned_map[from] < K ? maps.turned_map[from] : 0;
    }
    const int64_t outputs = transposed ? C : O, inputs = transposed ? O : C;
    for (int64_t first = 0; first < outputs; first += kOutputs)
        for (int64_t c = 0; c < inputs; ++c)
            for (int64_t o = first; o < first + kOutputs; ++o, panels += 32) {
                if (o >= outputs) {
                    for (int i = 0; i < 32; ++i) panels[i] = T{};
                    continue;
                }
                const T* w = weight + (transposed ? c * C + o : o * C + c) * K;
                for (int i = 0; i < 16; ++i) panels[i] = direct[i] * w[maps.direct_map[i]];
                for (int i = 0; i < 16; ++i) panels[16 + i] = turned[i] * w[turned_map[i]];
            }
}

template <class T>
void turn(const int* order, int64_t count, const T* from, T* to) {
#if ISOTYPIC_VECTOR_BYTES == 64 && !defined(__clang__)
    if constexpr (sizeof(T) == 4) {
        typename VecTraits<float>::index index;
        for (int i = 0; i < 16; ++i) index[i] = order[i];
        for (int64_t n = 0; n < count; ++n) store(to + n * 16, __builtin_shuffle(load(from + n * 16), index));
        return;
    }
#endif
    for (int64_t n = 0; n < count; ++n)
        for (int i = 0; i < 16; ++i) to[n * 16 + i] = from[n * 16 + order[i]];
}

// One tile: Items items, Outputs of a panel's outputs, the components from `at` on that fill a vector.
template <class T, int Items, int Outputs>
ISOTYPIC_INLINE void tile(int64_t C, int64_t O, const T* x, const T* turned, const T* panel, int at, T* y) {
    Vec<T> sum[Items][Outputs] = {};
    const T *xs = x + at, *ts = turned + at, *w = panel + at;
    for (int64_t c = 0; c < C; ++c, xs += 16, ts += 16, w += kOutputs * 32) {
        Vec<T> a[Items], b[Items];
#pragma GCC unroll 8
        for (int n = 0; n < Items; ++n) a[n] = load(xs + n * C * 16), b[n] = load(ts + n * C * 16);
#pragma GCC unroll 8
        for (int o = 0; o < Outputs; ++o) {
            const Vec<T> direct = load(w + o * 32), mixed = load(w + o * 32 + 16);
#pragma GCC unroll 8
            for (int n = 0; n < Items; ++n) sum[n][o] += a[n] * direct;
#pragma GCC unroll 8
            for (int n = 0; n < Items; ++n) sum[n][o] += b[n] * mixed;
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < Items; ++n)
#pragma GCC unroll 8
        for (int o = 0; o < Outputs; ++o) store(y + (n * O + o) * 16 + at, sum[n][o]);
}

template <class T, int Items>
void tile_of(int64_t outputs, int64_t C, int64_t O, const T* x, const T* turned, const T* panel, T* y) {
    for (int at = 0; at < 16; at += kLanes<T>) switch (outputs) {
            case 1:
                tile<T, Items, 1>(C, O, x, turned, panel, at, y);
                break;
            case 2:
                tile<T, Items, 2>(C, O, x, turned, panel, at, y);
                break;
            case 3:
                tile<T, Items, 3>(C, O, x, turned, panel, at, y);
                break;
            default:
                tile<T, Items, 4>(C, O, x, turned, panel, at, y);
        }
}

template <class T>
void apply(int64_t N, int64_t C, int64_t O, const T* x, const T* turned, const T* panels, T* y) {
    for (int64_t o = 0; o < O; o += kOutputs, panels += C * kOutputs * 32) {
        const int64_t outputs = smaller(kOutputs, O - o);
        int64_t n = 0;
        for (; n + kItems <= N; n += kItems)
            tile_of<T, kItems>(outputs, C, O, x + n * C * 16, turned + n * C * 16, panels, y + (n * O + o) * 16);
        for (; n < N; ++n) tile_of<T, 1>(outputs, C, O, x + n * C * 16, turned + n * C * 16, panels, y + (n * O + o) * 16);
    }
}

template <class T, int Rows, int Columns>
ISOTYPIC_INLINE void gradient_tile(int64_t N, int64_t C, int64_t O, const T* x, const T* turned, const T* y, int at, T* sums) {
    Vec<T> direct[Rows][Columns], mixed[Rows][Columns];
#pragma GCC unroll 8
    for (int o = 0; o < Rows; ++o)
#pragma GCC unroll 8
        for (int c = 0; c < Columns; ++c) {
            direct[o][c] = load(sums + (o * C + c) * 32 + at);
            mixed[o][c] = load(sums + (o * C + c) * 32 + 16 + at);
        }
    const T *xs = x + at, *ts = turned + at, *ys = y + at;
    for (int64_t n = 0; n < N; ++n, xs += C * 16, ts += C * 16, ys += O * 16) {
        Vec<T> g[Rows];
#pragma GCC unroll 8
        for (int o = 0; o < Rows; ++o) g[o] = load(ys + o * 16);
#pragma GCC unroll 8
        for (int c = 0; c < Columns; ++c) {
            const Vec<T> a = load(xs + c * 16), b = load(ts + c * 16);
#pragma GCC unroll 8
            for (int o = 0; o < Rows; ++o) direct[o][c] += g[o] * a, mixed[o][c] += g[o] * b;
        }
    }
#pragma GCC unroll 8
    for (int o = 0; o < Rows; ++o)
#pragma GCC unroll 8
        for (int c = 0; c < Columns; ++c) {
            store(sums + (o * C + c) * 32 + at, direct[o][c]);
            store(sums + (o * C + c) * 32 + 16 + at, mixed[o][c]);
        }
}

template <class T, int Rows>
ISOTYPIC_INLINE void gradient_rows(int64_t N, int64_t C, int64_t O, const T* x, const T* turned, const T* y, T* sums) {
    for (int at = 0; at < 16; at += kLanes<T>) {
        int64_t c = 0;
        for (; c + kColumns <= C; c += kColumns)
            gradient_tile<T, Rows, kColumns>(N, C, O, x + c * 16, turned + c * 16, y, at, sums + c * 32);
        for (; c < C; ++c) gradient_tile<T, Rows, 1>(N, C, O, x + c * 16, turned + c * 16, y, at, sums + c * 32);
    }
}

template <class T>
void gradient(int64_t N, int64_t C, int64_t O, const T* x, const T* turned, const T* y, T* sums) {
    int64_t o = 0;
    for (; o + kRows <= O; o += kRows) gradient_rows<T, kRows>(N, C, O, x, turned, y + o * 16, sums + o * C * 32);
    for (; o < O; ++o) gradient_rows<T, 1>(N, C, O, x, turned, y + o * 16, sums + o * C * 32);
}

template <class T>
constexpr MultivectorLinearKernel<T> kernel() {
    return {kOutputs, &pack<T>, &turn<T>, &apply<T>, &gradient<T>};
}

const MultivectorLinearKernels kKernels = {kernel<float>(), kernel<double>()};

}  // namespace

const MultivectorLinearKernels& multivector_linear_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
