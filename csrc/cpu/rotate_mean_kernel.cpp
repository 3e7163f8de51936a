// rotate_mean on the CPU: points along the lanes of vectors, their coordinates in d vectors.
//
// d vectors of memory hold kLanes points; d (d - 1) shuffles of two vectors sort them by coordinate. Sums over the samples stay sorted
// until the last one, in L1. For 16 points 3 x 3 in float32: 3 loads of y, 6 shuffles, 9 multiply-adds, 3 loads and stores of the sum:
// about 10 cycles, and 12 bytes a point and sample: at 3 GHz 60 GB/s, above what memory gives beyond L2.
#include "cpu/rotate_mean_kernel.hpp"

#include "cpu/stream.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

#if ISOTYPIC_VECTOR_BYTES > 0 && !defined(__clang__)
#define ISOTYPIC_SHUFFLES 1
#else
#define ISOTYPIC_SHUFFLES 0
#endif

// from[a], lane l: coordinate a of point l, of points (lanes, D) in memory.
template <class T, int D>
ISOTYPIC_INLINE void split(const T* points, Vec<T>* to) {
    constexpr int L = kLanes<T>;
#if ISOTYPIC_SHUFFLES
    Vec<T> from[D];
#pragma GCC unroll 4
    for (int a = 0; a < D; ++a) from[a] = load(points + a * L);
#pragma GCC unroll 4
    for (int a = 0; a < D; ++a) {
        Vec<T> gathered = from[0];
#pragma GCC unroll 4
        for (int source = 1; source < D; ++source) {
            typename VecTraits<T>::index index;
            for (int l = 0; l < L; ++l) {
                const int at = l * D + a;
                const bool here = at / L == source;
                // Before the first exchange the lanes lie as in memory, after it each where it belongs.
                index[l] = here ? L + at % L : source == 1 ? at % L : l;
            }
            gathered = __builtin_shuffle(gathered, from[source], index);
        }
        to[a] = gathered;
    }
#else
    T* lanes = reinterpret_cast<T*>(to);
    for (int l = 0; l < L; ++l)
        for (int a = 0; a < D; ++a) lanes[a * L + l] = points[l * D + a];
#endif
}

template <class T, int D, bool Past = false>
ISOTYPIC_INLINE void join(const Vec<T>* from, T* points) {
    constexpr int L = kLanes<T>;
#if ISOTYPIC_SHUFFLES
#pragma GCC unroll 4
    for (int target = 0; target < D; ++target) {
        Vec<T> merged = from[0];
#pragma GCC unroll 4
        for (int a = 1; a < D; ++a) {
            typename VecTraits<T>::index index;
            for (int l = 0; l < L; ++l) {
                const int at = target * L + l;
                const bool here = at % D == a;
                index[l] = here ? L + at / D : a == 1 ? at / D : l;
            }
            merged = __builtin_shuffle(merged, from[a], index);
        }
        Past ? stream(points + target * L, merged) : store(points + target * L, merged);
    }
#else
    const T* lanes = reinterpret_cast<const T*>(from);
    for (int l = 0; l < L; ++l)
        for (int a = 0; a < D; ++a) points[l * D + a] = lanes[a * L + l];
#endif
}

// The last points, fewer than there are lanes.
template <class T, int D>
ISOTYPIC_INLINE void split_some(const T* points, int64_t count, Vec<T>* to) {
    alignas(64) T padded[D * kLanes<T>] = {};
    for (int64_t i = 0; i < count * D; ++i) padded[i] = points[i];
    split<T, D>(padded, to);
}
template <class T, int D>
ISOTYPIC_INLINE void join_some(const Vec<T>* from, int64_t count, T* points) {
    alignas(64) T padded[D * kLanes<T>];
    join<T, D>(from, padded);
    for (int64_t i = 0; i < count * D; ++i) points[i] = padded[i];
}

// use(first point, whether all lanes have one, points)
template <class T, class Use>
ISOTYPIC_INLINE void for_points(int64_t count, const Use& use) {
    int64_t i = 0;
    for (; i + kLanes<T> <= count; i += kLanes<T>) use(i, true, static_cast<int64_t>(kLanes<T>));
    if (i < count) use(i, false, count - i);
}

// Numbers that y is fetched ahead of its use; samples of one run follow each other in memory where n is at most a run.
constexpr int64_t kAhead = 512;

template <class T, int D>
ISOTYPIC_INLINE void spread(const T* r, T scale, Vec<T>* m) {
    for (int i = 0; i < D * D; ++i) m[i] = broadcast<T>(scale * r[i]);
}

template <class T, int D>
void sum(int64_t k, int64_t count, const T* r, const T* y, int64_t y_stride, T scale, T* x, T* workspace) {
    if (k == 0)
        for (int64_t i = 0; i < count * D; ++i) x[i] = 0;
    for (int64_t j = 0; j < k; ++j) {
        Vec<T> m[D * D];
        spread<T, D>(r + j * D * D, scale, m);
        const T* from = y + j * y_stride;
        const bool first = j == 0, last = j == k - 1;
        for_points<T>(count, [&](int64_t i, bool whole, int64_t points) ISOTYPIC_LAMBDA {
            Vec<T> in[D], out[D];
            for (int a = 0; a < D; ++a) __builtin_prefetch(from + i * D + kAhead + a * kLanes<T>);
            whole ? split<T, D>(from + i * D, in) : split_some<T, D>(from + i * D, points, in);
            T* const total = workspace + i * D;
            for (int a = 0; a < D; ++a) {
                out[a] = first ? m[a * D] * in[0] : load(total + a * kLanes<T>) + m[a * D] * in[0];
                for (int c = 1; c < D; ++c) out[a] += m[a * D + c] * in[c];
            }
            if (last)
                whole ? join<T, D>(out, x + i * D) : join_some<T, D>(out, points, x + i * D);
            else
                for (int a = 0; a < D; ++a) store(total + a * kLanes<T>, out[a]);
        });
    }
}

template <class T, int D>
ISOTYPIC_INLINE void split_all(const T* x, int64_t count, T* workspace) {
    for_points<T>(count, [&](int64_t i, bool whole, int64_t points) ISOTYPIC_LAMBDA {
        Vec<T> in[D];
        whole ? split<T, D>(x + i * D, in) : split_some<T, D>(x + i * D, points, in);
        for (int a = 0; a < D; ++a) store(workspace + i * D + a * kLanes<T>, in[a]);
    });
}

// out = scale R^T x of the points from i on
template <class T, int D, bool Past>
ISOTYPIC_INLINE void turn_back(const Vec<T>* m, const T* sorted, int64_t i, bool whole, int64_t points, T* to) {
    Vec<T> out[D];
    for (int c = 0; c < D; ++c) {
        out[c] = m[c] * load(sorted + i * D);
        for (int a = 1; a < D; ++a) out[c] += m[a * D + c] * load(sorted + i * D + a * kLanes<T>);
    }
    whole ? join<T, D, Past>(out, to + i * D) : join_some<T, D>(out, points, to + i * D);
}

// sums += x y^T of the points from i on, a point to a lane
template <class T, int D>
ISOTYPIC_INLINE void add_outer(const T* sorted, const T* y, int64_t i, bool whole, int64_t points, Vec<T>* sums) {
    Vec<T> in[D];
    for (int a = 0; a < D; ++a) __builtin_prefetch(y + i * D + kAhead + a * kLanes<T>);
    whole ? split<T, D>(y + i * D, in) : split_some<T, D>(y + i * D, points, in);
    for (int a = 0; a < D; ++a)
        for (int c = 0; c < D; ++c) sums[a * D + c] += load(sorted + i * D + a * kLanes<T>) * in[c];
}

template <class T, int D>
ISOTYPIC_INLINE void finish_outer(const Vec<T>* sums, T scale, bool add, T* r) {
    for (int i = 0; i < D * D; ++i) {
        const T* lanes = reinterpret_cast<const T*>(&sums[i]);
        T total = 0;
        for (int l = 0; l < kLanes<T>; ++l) total += lanes[l];
        r[i] = add ? r[i] + scale * total : scale * total;
    }
}

template <class T, int D, bool Past>
void each(int64_t k, int64_t count, const T* r, const T* x, T scale, T* y, int64_t y_stride, T* workspace) {
    split_all<T, D>(x, count, workspace);
    for (int64_t j = 0; j < k; ++j) {
        Vec<T> m[D * D];
        spread<T, D>(r + j * D * D, scale, m);
        for_points<T>(count, [&](int64_t i, bool whole, int64_t points)
                                 ISOTYPIC_LAMBDA { turn_back<T, D, Past>(m, workspace, i, whole, points, y + j * y_stride); });
    }
    if (Past) streamed();
}

template <class T, int D>
void outer(int64_t k, int64_t count, const T* x, const T* y, int64_t y_stride, T scale, bool add, T* r, T* workspace) {
    split_all<T, D>(x, count, workspace);
    for (int64_t j = 0; j < k; ++j) {
        Vec<T> sums[D * D] = {};
        for_points<T>(count, [&](int64_t i, bool whole, int64_t points)
                                 ISOTYPIC_LAMBDA { add_outer<T, D>(workspace, y + j * y_stride, i, whole, points, sums); });
        finish_outer<T, D>(sums, scale, add, r + j * D * D);
    }
}

// Both in one pass: the points of x are read once, and y is read while the result is written.
template <class T, int D, bool Past>
void both(int64_t k, int64_t count, const T* r, const T* x, const T* y, T scale, T* to_y, int64_t y_stride, bool add, T* to_r,
          T* workspace) {
    split_all<T, D>(x, count, workspace);
    for (int64_t j = 0; j < k; ++j) {
        Vec<T> m[D * D], sums[D * D] = {};
        spread<T, D>(r + j * D * D, scale, m);
        for_points<T>(count, [&](int64_t i, bool whole, int64_t points) ISOTYPIC_LAMBDA {
            add_outer<T, D>(workspace, y + j * y_stride, i, whole, points, sums);
            turn_back<T, D, Past>(m, workspace, i, whole, points, to_y + j * y_stride);
        });
        finish_outer<T, D>(sums, scale, add, to_r + j * D * D);
    }
    if (Past) streamed();
}

template <class T>
void sum_of(int d, int64_t k, int64_t count, const T* r, const T* y, int64_t y_stride, T scale, T* x, T* workspace) {
    (d == 2 ? sum<T, 2> : d == 3 ? sum<T, 3> : sum<T, 4>)(k, count, r, y, y_stride, scale, x, workspace);
}
template <class T, bool Past>
void each_of(int d, int64_t k, int64_t count, const T* r, const T* x, T scale, T* y, int64_t y_stride, T* workspace) {
    (d == 2 ? each<T, 2, Past> : d == 3 ? each<T, 3, Past> : each<T, 4, Past>)(k, count, r, x, scale, y, y_stride, workspace);
}
template <class T>
void outer_of(int d, int64_t k, int64_t count, const T* x, const T* y, int64_t y_stride, T scale, bool add, T* r, T* workspace) {
    (d == 2 ? outer<T, 2> : d == 3 ? outer<T, 3> : outer<T, 4>)(k, count, x, y, y_stride, scale, add, r, workspace);
}
template <class T, bool Past>
void both_of(int d, int64_t k, int64_t count, const T* r, const T* x, const T* y, T scale, T* to_y, int64_t y_stride, bool add, T* to_r,
             T* workspace) {
    const auto kernel = d == 2 ? both<T, 2, Past> : d == 3 ? both<T, 3, Past> : both<T, 4, Past>;
    kernel(k, count, r, x, y, scale, to_y, y_stride, add, to_r, workspace);
}

template <class T>
constexpr RotateKernel<T> kernel() {
    return {&sum_of<T>, {&each_of<T, false>, &each_of<T, true>}, &outer_of<T>, {&both_of<T, false>, &both_of<T, true>}};
}

const RotateKernels kKernels = {kernel<float>(), kernel<double>()};

}  // namespace

const RotateKernels& rotate_mean_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
