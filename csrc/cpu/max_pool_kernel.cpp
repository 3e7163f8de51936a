// max_pool on the CPU.
//
// One comparison a value: bytes decide. With s bytes a number and windows of n values that do not overlap,
//
//     forward   read x, write y and index            s + (s + 4) / n      2 x 2, float32: 6 bytes for each value of x
//     scatter   read g and index, write x            s + (s + 4) / n      the same, and a line that is written is read before: 10
//
// Forward goes by rows of outputs. For each tap of the window the row of y, which stays in the first-level cache, takes the larger of itself
// and the tap's values: along the row where the planes are contiguous, along the planes where these come last (channels last). The windows of
// 2 x 2 that do not overlap, which most networks have, go through registers instead: both rows of x are read once, even and odd columns are
// told apart by shuffles, and y and index are written once.
//
// Scatter clears a plane and adds single values to it while it is in the cache.
#include "cpu/max_pool_kernel.hpp"

#include "cpu/convert.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// The larger of two, of equal ones the old one; NaN is larger than any number, and a later one than an earlier one.
template <class T>
ISOTYPIC_INLINE void take(T value, int32_t place, T& best, int32_t& at) {
    const bool larger = value > best || value != value;
    best = larger ? value : best;
    at = larger ? place : at;
}

// Outputs j < count whose tap lies at x[j Step].
template <class T, int Step>
ISOTYPIC_INLINE void take_along(const T* __restrict x, int64_t step, int64_t count, int32_t place, T* __restrict best,
                                int32_t* __restrict at) {
    if constexpr (Step > 0) step = Step;
    int32_t here = place;
    for (int64_t j = 0; j < count; ++j, here += static_cast<int32_t>(step)) {
        T so_far = best[j];
        int32_t its_place = at[j];
        take(x[j * step], here, so_far, its_place);
        best[j] = so_far, at[j] = its_place;
    }
}

// The planes i < count at one position.
template <class T>
ISOTYPIC_INLINE void take_across(const T* __restrict x, int64_t count, int32_t place, T* __restrict best, int32_t* __restrict at) {
    for (int64_t i = 0; i < count; ++i) {
        T so_far = best[i];
        int32_t its_place = at[i];
        take(x[i], place, so_far, its_place);
        best[i] = so_far, at[i] = its_place;
    }
}

// Windows of 2 x 2 that do not overlap, in two neighbouring rows of a plane.
template <class T>
ISOTYPIC_INLINE void take_squares(const T* __restrict upper, const T* __restrict lower, int64_t count, int32_t place, int32_t pitch,
                                  T* __restrict y, int32_t* __restrict index) {
    for (int64_t j = 0; j < count; ++j) {
        const int32_t first = static_cast<int32_t>(place + 2 * j);
        T best = upper[2 * j];
        int32_t at = first;
        take(upper[2 * j + 1], first + 1, best, at);
        take(lower[2 * j], first + pitch, best, at);
        take(lower[2 * j + 1], first + pitch + 1, best, at);
        y[j] = best;
        index[j] = at;
    }
}

// The taps [begin, end) of window j that lie inside.
struct Taps {
    int64_t begin, end;
};
ISOTYPIC_INLINE Taps taps_inside(const MaxPoolSizes& s, int axis, int64_t j) {
    const int64_t start = j * s.stride[axis] - s.padding[axis];
    return {larger(0, -start), smaller(s.window[axis], s.in[axis] - start)};
}

// Rows of x as T: where they lie, or in scratch, converted, with `margin` values on either side that are never the largest.
template <class T>
struct Rows {
    const void* x;
    DType dtype;
    int64_t margin;
    T* scratch;
    ISOTYPIC_INLINE const T* operator()(int64_t offset, int64_t count) const {
        if (dtype == kDType<T> && margin == 0) return static_cast<const T*>(x) + offset;
        for (int64_t k = 0; k < margin; ++k) scratch[k] = scratch[margin + count + k] = -static_cast<T>(__builtin_inff());
        read_row<T>(x, dtype, offset, 1, count, scratch + margin);
        return scratch;
    }
};

// The row of outputs (j0, j1) from the taps of one row of a plane, with its margins.
template <class T>
ISOTYPIC_INLINE void take_row(const MaxPoolSizes& s, const T* x, int32_t place, T* best, int32_t* at) {
    const int64_t step = s.stride[2], count = s.out[2];
    for (int64_t tap = 0; tap < s.window[2]; ++tap) {
        const int32_t first = static_cast<int32_t>(place + tap - s.padding[2]);
        if (step == 1)
            take_along<T, 1>(x + tap, step, count, first, best, at);
        else if (step == 2)
            take_along<T, 2>(x + tap, step, count, first, best, at);
        else
            take_along<T, 0>(x + tap, step, count, first, best, at);
    }
}

// The same where the planes come last, without margins.
template <class T>
ISOTYPIC_INLINE void take_row_across(const MaxPoolSizes& s, const T* x, int32_t place, T* best, int32_t* at) {
    for (int64_t j = 0; j < s.out[2]; ++j) {
        const Taps taps = taps_inside(s, 2, j);
        for (int64_t tap = taps.begin; tap < taps.end; ++tap) {
            const int64_t column = j * s.stride[2] - s.padding[2] + tap;
            take_across(x + column * s.inner, s.inner, static_cast<int32_t>(place + column), best + j * s.inner, at + j * s.inner);
        }
    }
}

template <class T>
void pool(const MaxPoolSizes& s, DType dtype, const void* x, void* y, int32_t* index, int64_t outer, T* scratch) {
    const int64_t in_row = s.in[2] * s.inner, out_row = s.out[2] * s.inner, margin = s.inner == 1 ? s.padding[2] : 0;
    const int64_t base = outer * s.positions() * s.inner;
    const bool direct = dtype == kDType<T>;
    const Rows<T> even{x, dtype, margin, scratch}, odd{x, dtype, margin, scratch + in_row + 2 * margin};
    T* converted = scratch + 2 * (in_row + 2 * margin);
    const bool squares = s.inner == 1 && s.window[0] == 1 && s.window[1] == 2 && s.window[2] == 2 && s.stride[1] == 2 && s.stride[2] == 2 &&
                         s.padding[0] + s.padding[1] + s.padding[2] == 0;
    int64_t to = outer * s.windows() * s.inner;
    for (int64_t j0 = 0; j0 < s.out[0]; ++j0)
        for (int64_t j1 = 0; j1 < s.out[1]; ++j1, to += out_row) {
            T* best = direct ? static_cast<T*>(y) + to : converted;
            int32_t* at = index + to;
            const auto place_of = [&](int64_t i0, int64_t i1) ISOTYPIC_LAMBDA { return (i0 * s.in[1] + i1) * s.in[2]; };
            if (squares) {
                const int64_t place = place_of(j0 * s.stride[0], 2 * j1);
                take_squares(even(base + place, in_row), odd(base + place + in_row, in_row), s.out[2], static_cast<int32_t>(place),
                             static_cast<int32_t>(s.in[2]), best, at);
            } else {
                const Taps t0 = taps_inside(s, 0, j0), t1 = taps_inside(s, 1, j1);
                const int64_t i0 = j0 * s.stride[0] - s.padding[0], i1 = j1 * s.stride[1] - s.padding[1];
                // The first position of each window, which stays where all values are -inf.
                const int64_t corner = place_of(i0 + t0.begin, i1 + t1.begin);
                for (int64_t j = 0; j < s.out[2]; ++j)
                    for (int64_t i = 0; i < s.inner; ++i) {
                        best[j * s.inner + i] = -static_cast<T>(__builtin_inff());
                        at[j * s.inner + i] = static_cast<int32_t>(corner + larger(0, j * s.stride[2] - s.padding[2]));
                    }
                for (int64_t t = t0.begin; t < t0.end; ++t)
                    for (int64_t u = t1.begin; u < t1.end; ++u) {
                        const int64_t place = place_of(i0 + t, i1 + u);
                        const T* row = even(base + place * s.inner, in_row);
                        s.inner == 1 ? take_row(s, row, static_cast<int32_t>(place), best, at)
                                     : take_row_across(s, row, static_cast<int32_t>(place), best, at);
                    }
            }
            if (!direct) write_row<T>(y, dtype, to, out_row, converted);
        }
}

template <class T>
bool scatter_plane(const MaxPoolSizes& s, DType dtype, const void* g, const int32_t* index, void* x, int64_t outer, T* scratch) {
    const int64_t positions = s.positions(), count = s.windows() * s.inner, from = outer * count, to = outer * positions * s.inner;
    const bool direct = dtype == kDType<T>;
    T* plane = direct ? static_cast<T*>(x) + to : scratch;
    const T* values = static_cast<const T*>(g) + from;
    if (!direct) {
        read_row<T>(g, dtype, from, 1, count, scratch + positions * s.inner);
        values = scratch + positions * s.inner;
    }
    fill_zero(plane, positions * s.inner);
    index += from;
    uint32_t inside = 1;
    const uint32_t limit = static_cast<uint32_t>(positions);
    if (s.inner == 1) {
        for (int64_t k = 0; k < count; ++k) {
            const uint32_t at = static_cast<uint32_t>(index[k]);
            if (at < limit)
                plane[at] += values[k];
            else
                inside = 0;
        }
    } else {
        for (int64_t k = 0; k < count; k += s.inner)
            for (int64_t i = 0; i < s.inner; ++i) {
                const uint32_t at = static_cast<uint32_t>(index[k + i]);
                if (at < limit)
                    plane[at * s.inner + i] += values[k + i];
                else
                    inside = 0;
            }
    }
    if (!direct) write_row<T>(x, dtype, to, positions * s.inner, plane);
    return inside;
}

// Values are copied as they are.
template <class Word>
bool select_plane(const MaxPoolSizes& s, const void* x, const int32_t* index, void* y, int64_t outer) {
    const int64_t positions = s.positions(), count = s.windows() * s.inner;
    const Word* plane = static_cast<const Word*>(x) + outer * positions * s.inner;
    Word* out = static_cast<Word*>(y) + outer * count;
    index += outer * count;
    const uint32_t limit = static_cast<uint32_t>(positions);
    bool inside = true;
    for (int64_t k = 0; k < count; k += s.inner)
        for (int64_t i = 0; i < s.inner; ++i) {
            const uint32_t at = static_cast<uint32_t>(index[k + i]);
            inside = inside && at < limit;
            out[k + i] = at < limit ? plane[at * s.inner + i] : Word(0);
        }
    return inside;
}

int64_t forward_scratch(const MaxPoolSizes& s) {
    return (2 * (s.in[2] + 2 * s.padding[2]) + s.out[2]) * s.inner * static_cast<int64_t>(sizeof(double));
}

int64_t scatter_scratch(const MaxPoolSizes& s) {
    return (s.positions() + s.windows()) * s.inner * static_cast<int64_t>(sizeof(float));
}

void forward(const MaxPoolSizes& s, DType dtype, const void* x, void* y, int32_t* index, int64_t outer, void* scratch) {
    dtype == DType::float64 ? pool(s, dtype, x, y, index, outer, static_cast<double*>(scratch))
                            : pool(s, dtype, x, y, index, outer, static_cast<float*>(scratch));
}

bool scatter(const MaxPoolSizes& s, DType dtype, const void* g, const int32_t* index, void* x, int64_t outer, void* scratch) {
    return dtype == DType::float64 ? scatter_plane(s, dtype, g, index, x, outer, static_cast<double*>(nullptr))
                                   : scatter_plane(s, dtype, g, index, x, outer, static_cast<float*>(scratch));
}

bool select(const MaxPoolSizes& s, DType dtype, const void* x, const int32_t* index, void* y, int64_t outer) {
    switch (itemsize(dtype)) {
        case 8:
            return select_plane<uint64_t>(s, x, index, y, outer);
        case 4:
            return select_plane<uint32_t>(s, x, index, y, outer);
        default:
            return select_plane<uint16_t>(s, x, index, y, outer);
    }
}

}  // namespace

const MaxPoolKernel& max_pool_kernel() {
    static const MaxPoolKernel kernel{forward_scratch, scatter_scratch, forward, scatter, select};
    return kernel;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
