// Double-word arithmetic: a number as the unevaluated sum of two floating-point numbers, high + low with |low| <= ulp(high) / 2, which has
// about twice the digits (M. Joldes, J.-M. Muller, V. Popescu, "Tight and rigorous error bounds for basic building blocks of double-word
// arithmetic", 2017). A sum takes 11 operations, a product 9; their relative errors are a few u^2, that of a sum relative to its terms.
// V is a vector of lanes or a number. Exact has what compilers must not rearrange:
//     Number                                  what a lane holds
//     static V product(V a, V b, V& error)    a b, rounded, and what rounding took away
//     static V root(V a)
// Sums of exact errors survive the fusing of products with sums, because no product but that of Exact enters them.
#pragma once

#include "core/host_device.hpp"

namespace isotypic {

// mask ? a : b, lane by lane.
template <class Mask, class V>
HOST_DEVICE ALWAYS_INLINE V select(const Mask& mask, const V& a, const V& b) {
    return mask ? a : b;
}

template <class V, class Exact>
struct DoubleWord {
    V high, low;

    // high + low for |high| >= |low|.
    static HOST_DEVICE ALWAYS_INLINE DoubleWord normal(V high, V low) {
        const V sum = high + low;
        return {sum, low - (sum - high)};
    }
    static HOST_DEVICE ALWAYS_INLINE DoubleWord of(V value) { return {value, V{}}; }
    template <class Number>
    static HOST_DEVICE ALWAYS_INLINE V lanes(Number value) {
        return V{} + static_cast<typename Exact::Number>(value);
    }

    friend HOST_DEVICE ALWAYS_INLINE DoubleWord operator-(const DoubleWord& a) { return {-a.high, -a.low}; }
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord operator+(const DoubleWord& a, const DoubleWord& b) {
        const V sum = a.high + b.high, part = sum - a.high;
        const V error = (a.high - (sum - part)) + (b.high - part);
        return normal(sum, error + (a.low + b.low));
    }
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord operator-(const DoubleWord& a, const DoubleWord& b) { return a + -b; }
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord operator*(const DoubleWord& a, const DoubleWord& b) {
        V error;
        const V product = Exact::product(a.high, b.high, error);
        return normal(product, error + (a.high * b.low + a.low * b.high));
    }
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord operator/(const DoubleWord& a, const DoubleWord& b) {
        const V quotient = a.high / b.high;
        const DoubleWord rest = a - b * of(quotient);
        return normal(quotient, rest.high / b.high);
    }

    template <class Number>
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord operator+(const DoubleWord& a, Number b) {
        return a + of(lanes(b));
    }
    template <class Number>
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord operator*(const DoubleWord& a, Number b) {
        V error;
        const V right = lanes(b), product = Exact::product(a.high, right, error);
        return normal(product, error + a.low * right);
    }
    template <class Number>
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord operator*(Number a, const DoubleWord& b) {
        return b * a;
    }
    template <class Number>
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord operator/(const DoubleWord& a, Number b) {
        return a / of(lanes(b));
    }
    template <class Number>
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord operator-(Number a, const DoubleWord& b) {
        return of(lanes(a)) - b;
    }
    template <class Other>
    HOST_DEVICE ALWAYS_INLINE DoubleWord& operator+=(const Other& b) {
        return *this = *this + b;
    }
    template <class Other>
    HOST_DEVICE ALWAYS_INLINE DoubleWord& operator-=(const Other& b) {
        return *this = *this - b;
    }
    template <class Other>
    HOST_DEVICE ALWAYS_INLINE DoubleWord& operator*=(const Other& b) {
        return *this = *this * b;
    }

    // By the high words.
    friend HOST_DEVICE ALWAYS_INLINE auto operator<(const DoubleWord& a, const DoubleWord& b) { return a.high < b.high; }
    friend HOST_DEVICE ALWAYS_INLINE auto operator>(const DoubleWord& a, const DoubleWord& b) { return a.high > b.high; }

    template <class Mask>
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord select(const Mask& mask, const DoubleWord& a, const DoubleWord& b) {
        return {mask ? a.high : b.high, mask ? a.low : b.low};
    }
    friend HOST_DEVICE ALWAYS_INLINE DoubleWord square_root(const DoubleWord& a) {
        const V first = Exact::root(a.high);
        const DoubleWord rest = a - of(first) * of(first);
        return normal(first, rest.high / (first + first));
    }
};

}  // namespace isotypic
