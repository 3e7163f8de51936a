// A point of the circle where a binary form is not positive, searched for one form that the solver gave up: samples, then every local
// minimum of them.
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

// Whether a point with p <= 0 was found; then point = (x, y) on the circle.
template <class T>
HOST_DEVICE bool find_witness(const T* p, int degree, double (&point)[2]) {
    const double pi = 3.14159265358979323846, golden = 0.61803398874989485;
    const int count = 8 * (degree + 1);
    auto holds = [&](double theta) {
        point[0] = std::cos(theta), point[1] = std::sin(theta);
        return sign_value(p, degree, point[0], point[1]) <= 0;
    };
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
            if (holds(theta) || holds((low + high) / 2)) return true;
        }
        before = here, here = after;
    }
    return false;
}

}  // namespace isotypic::max_det
