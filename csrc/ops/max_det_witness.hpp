// A point of the circle where a binary form is not positive, for one form that the solver gave up: the node where a sample was not
// positive, or samples and every local minimum of them. A point counts when p <= 0 there is proven for the coordinates as they are stored.
#pragma once

#include <cmath>

#include "core/host_device.hpp"

namespace isotypic::max_det {

// sum_k p_k x^k y^(degree - k), by Horner in the quotient of the smaller coordinate by the larger; the power of the larger one is positive
// for even degree, so that the sign is right without it.
template <class T>
HOST_DEVICE double sign_value(const T* p, int degree, double x, double y) {
    const bool flip = std::abs(x) > std::abs(y);
    const double q = flip ? y / x : x / y;
    double sum = 0;
    for (int k = degree; k >= 0; --k) sum = sum * q + static_cast<double>(p[flip ? degree - k : k]);
    return sum;
}

template <class T>
HOST_DEVICE double circle_value(const T* p, int degree, double theta) {
    const double x = std::cos(theta), y = std::sin(theta), larger = std::abs(x) > std::abs(y) ? std::abs(x) : std::abs(y);
    return sign_value(p, degree, x, y) * std::pow(larger, degree);
}

// a b rounded once; written so that no compiler fuses it with a sum.
HOST_DEVICE inline double rounded_product(double a, double b) {
#if defined(__CUDA_ARCH__)
    return __dmul_rn(a, b);
#else
    const volatile double result = a * b;
    return result;
#endif
}

// Whether p(x, y) <= 0 for certain: Horner's rule with a running bound of its errors, each of which is computed exactly. Where nothing is
// rounded, as at a root in small integers of a form with integer coefficients, the bound is zero and a zero is one. Beside the axes what
// underflows may be lost, which `kUnderflow` covers.
constexpr double kUnderflow = 1e-200;
template <class T>
HOST_DEVICE bool proven_not_positive(const T* p, int degree, double x, double y) {
    double largest = 0;
    for (int k = 0; k <= degree; ++k) {
        const double size = fabs(static_cast<double>(p[k]));
        largest = size > largest ? size : largest;
    }
    int exponent = 0;
    frexp(largest, &exponent);
    // In two factors, each within the range.
    const double first = ldexp(1.0, -exponent / 2), second = ldexp(1.0, -(exponent - exponent / 2));
    auto coefficient = [&](int k) { return static_cast<double>(p[k]) * first * second; };
    const bool integers = floor(x) == x && floor(y) == y;
    // What scaling loses: a coefficient that is not 0 and becomes 0, or nearly.
    auto lost = [&](int k) { return p[k] != 0 && fabs(coefficient(k)) < kUnderflow ? kUnderflow : 0.0; };
    double sum = coefficient(degree), error = (integers ? 0 : kUnderflow) + lost(degree), power = 1, power_error = 0;
    for (int k = degree - 1; k >= 0; --k) {
        const double c = coefficient(k), next = rounded_product(power, y);
        power_error = power_error * fabs(y) + fabs(fma(power, y, -next));
        power = next;
        const double left = rounded_product(sum, x), right = rounded_product(c, power), total = left + right, part = total - left;
        error = error * fabs(x) + fabs(fma(sum, x, -left)) + fabs(fma(c, power, -right)) + fabs(c) * power_error +
                fabs((left - (total - part)) + (right - part));
        error += lost(k) * fabs(power);
        sum = total;
    }
    return sum + error * (1 + 1e-12) <= 0;
}

// The point of the circle at an angle, or beside it one whose coordinates are as two small integers; true if p <= 0 is proven there, for
// coordinates rounded to float32 where `single` says so.
template <class T>
HOST_DEVICE bool witness_at(const T* p, int degree, double theta, bool single, double (&point)[2]) {
    constexpr int kIntegers = 16;
    point[0] = cos(theta), point[1] = sin(theta);
    if (single) point[0] = static_cast<double>(static_cast<float>(point[0])), point[1] = static_cast<double>(static_cast<float>(point[1]));
    if (proven_not_positive(p, degree, point[0], point[1])) return true;
    const bool flip = fabs(point[0]) > fabs(point[1]);
    const double ratio = flip ? point[1] / point[0] : point[0] / point[1];
    for (int large = 1; large <= kIntegers; ++large) {
        const double small = floor(ratio * large + 0.5);
        if (fabs(ratio * large - small) > 0.02) continue;
        const double x = flip ? large : small, y = flip ? small : large;
        if (!proven_not_positive(p, degree, x, y)) continue;
        // Rounded so that the products with the integers are exact.
        const double unit = ldexp(1.0, single ? 23 : 52), scale = floor(unit / sqrt(x * x + y * y) + 0.5) / unit;
        return point[0] = x * scale, point[1] = y * scale, true;
    }
    return false;
}

// Whether a point with p <= 0 was found; then point = (x, y) on the circle.
template <class T>
HOST_DEVICE bool find_witness(const T* p, int degree, bool single, double (&point)[2]) {
    const double pi = 3.14159265358979323846, golden = 0.61803398874989485;
    const int count = 8 * (degree + 1);
    // On the axes p is a coefficient, exactly.
    if (p[degree] <= 0) return point[0] = 1, point[1] = 0, true;
    if (p[0] <= 0) return point[0] = 0, point[1] = 1, true;
    double before = circle_value(p, degree, -pi / count), here = circle_value(p, degree, 0.0);
    for (int s = 0; s < count; ++s) {
        const double theta = pi * s / count, after = circle_value(p, degree, theta + pi / count);
        if (here <= before && here <= after) {
            double low = theta - pi / count, high = theta + pi / count;
            double left = high - golden * (high - low), right = low + golden * (high - low);
            double f_left = circle_value(p, degree, left), f_right = circle_value(p, degree, right);
            for (int step = 0; step < 45; ++step) {
                if (f_left <= f_right) {
                    high = right, right = left, f_right = f_left;
                    left = high - golden * (high - low), f_left = circle_value(p, degree, left);
                } else {
                    low = left, left = right, f_left = f_right;
                    right = low + golden * (high - low), f_right = circle_value(p, degree, right);
                }
            }
            if (witness_at(p, degree, theta, single, point) || witness_at(p, degree, (low + high) / 2, single, point)) return true;
        }
        before = here, here = after;
    }
    return false;
}

// The status of a form that has no Gram, kNotPositive or kUndecided, and its witness: `theta` is where the solver saw a sample that was not
// positive, if that is why it stopped.
template <class T>
HOST_DEVICE bool witness(const T* p, int degree, bool seen, double theta, bool single, double (&point)[2]) {
    if ((seen && witness_at(p, degree, theta, single, point)) || find_witness(p, degree, single, point)) return true;
    point[0] = point[1] = 0;
    return false;
}

}  // namespace isotypic::max_det
