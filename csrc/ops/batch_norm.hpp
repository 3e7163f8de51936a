// batch_norm: normalisation of each channel, with the activation that follows it,
//
//     y[o, c, i] = act(weight[c] (x[o, c, i] - mean[c]) / sqrt(var[c] + eps) + bias[c])
//
// over x (O, C, I), with act the identity or max(0, .), and mean and var those of the O I values of a channel (the variance is divided by
// O I) or given ones. I = 1 is a tensor with its channels last, such as the entries of weight spaces; otherwise I counts the positions of a
// field, over its group and space.
//
// batch_norm_backward: with v the argument of act, h = g where act'(v) = 1 and 0 elsewhere, n = O I, r = 1 / sqrt(var + eps) and
// xhat = (x - mean) r,
//
//     sums[0, c] = sum h,   sums[1, c] = sum h xhat           (the gradients of bias and weight)
//     dx = weight r (h - (sums[0] + xhat sums[1]) / n)         where mean and var are those of x (`batch`), otherwise weight r h
//
// h is made again from x, so that nothing of the size of x is kept besides x.
#pragma once

#include "core/view.hpp"

namespace isotypic {

// x, g, y and dx (O, C, I), of one of the four dtypes; statistics (mean and var) and sums (2, C), weight and bias (C) or undefined (1 and
// 0), float64 for float64 and float32 otherwise; all contiguous. Outputs are fully overwritten.
struct BatchNormSettings {
    double eps;
    bool relu;
};

namespace cpu {
void batch_norm(const View& x, const View& weight, const View& bias, const BatchNormSettings& settings, const View& y,
                const View& statistics);
void batch_norm_apply(const View& x, const View& statistics, const View& weight, const View& bias, const BatchNormSettings& settings,
                      const View& y);
void batch_norm_backward(const View& g, const View& x, const View& statistics, const View& weight, const View& bias,
                         const BatchNormSettings& settings, bool batch, const View& dx, const View& sums);
}  // namespace cpu

// The same on the current device, queued on the caller's stream, with a workspace of batch_norm_workspace(x) bytes (batch_norm_apply needs
// none). std::runtime_error when a launch fails.
namespace cuda {
struct BatchNormContext {
    void* workspace;
    void* stream;
};
int64_t batch_norm_workspace(const View& x);
void batch_norm(const View& x, const View& weight, const View& bias, const BatchNormSettings& settings, const View& y,
                const View& statistics, const BatchNormContext& context);
void batch_norm_apply(const View& x, const View& statistics, const View& weight, const View& bias, const BatchNormSettings& settings,
                      const View& y, const BatchNormContext& context);
void batch_norm_backward(const View& g, const View& x, const View& statistics, const View& weight, const View& bias,
                         const BatchNormSettings& settings, bool batch, const View& dx, const View& sums, const BatchNormContext& context);
}  // namespace cuda

}  // namespace isotypic
