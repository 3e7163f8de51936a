// Equivariant affine maps between the weights of MLPs, and their parts.
//
// x (B, P, C) holds the weights W_1, b_1, .., W_M, b_M of B networks, and pooled (B, N, C) for each permuted label l and neuron r the slots
// n_l[r] = [rho_l[r], kap_{l+1}[r], b_l[r]], then those of g = [gam_1, .., gam_M, beta_1, .., beta_M] (ops/weight_linear_plan.hpp has the
// offsets).
//
//     weight_pool       pooled = S x: sums over the permuted axes, or means ("mean"). With a basis E (q, d_0),
//                       rho_1[r, j] = sum_s E[j, s] W_1[r, s]
//     weight_affine     Y_i[r, s] = W_i[r, s] A_i + rho_i[r] + kap_i[s] + gam_i,  y_i[r] = beta_i[r] + mean b_i, from terms (B, N, C_out).
//                       On terms alone it is the adjoint of weight_pool, of its mean where `mean` is set
//     weight_linear     y = weight_affine(x, A, terms), terms_l = pooled_l D_l for each label and terms_g = pooled_g R + bias,
//                       pooled = weight_pool(x). `weight` (K, C, C_out) holds A, the D_l and R
//     weight_linear_transpose   the adjoint of weight_linear in x
//     weight_linear_gradient    the adjoint in (weight, bias), as one vector
//     weight_mix_gradient       dA_i = sum_{b, r, s} x_i[b, r, s]^T y_i[b, r, s]
//     weight_basis_gradient     dE[j, s] = sum_{b, r, c} x_1[b, r, s, c] (rho_1[b, r, j, c] + gam_1[b, j, c]), scaled as the mean is
//     weight_select     pooled values at the first maximum of x over the permuted axes: weight_pool(pool="max") where values = x
//     weight_scatter    its adjoint in values
//
// All tensors are contiguous and of one dtype, undefined views stand for what is absent, sizes (B, M + 1) int64 or null holds the widths of
// each network, outputs are fully overwritten and zero at neurons that a network lacks. Every result is the same for every number of
// threads.
#pragma once

#include "core/kept.hpp"
#include "core/view.hpp"
#include "ops/weight_linear_plan.hpp"

namespace isotypic {

namespace cpu {

void weight_pool(const WeightPlan& plan, const View& x, const View& basis, const int64_t* sizes, bool mean, const View& pooled);
void weight_affine(const WeightPlan& plan, const View& x, const View& mix, const View& terms, const View& basis, const int64_t* sizes,
                   bool mean, const View& y);
// The matrices of a weight as products read them, kept from call to call by a caller whose weight seldom changes. The weight they were made
// of is kept beside them and compared; plan, channels, dtype and instruction set are compared too.
struct PackedWeight;
using WeightMatrices = Kept<PackedWeight>;
void weight_linear(const WeightPlan& plan, const View& x, const View& weight, const View& bias, const View& project, const View& expand,
                   const int64_t* sizes, bool mean, const View& y, WeightMatrices* kept = nullptr);
void weight_linear_transpose(const WeightPlan& plan, const View& y, const View& weight, const int64_t* sizes, bool mean, const View& x);
void weight_linear_gradient(const WeightPlan& plan, const View& x, const View& y, const int64_t* sizes, bool mean, const View& gradient);
void weight_mix_gradient(const WeightPlan& plan, const View& x, const View& y, const int64_t* sizes, const View& mix);
void weight_basis_gradient(const WeightPlan& plan, const View& x, const View& terms, const int64_t* sizes, bool mean, const View& basis);
void weight_select(const WeightPlan& plan, const View& values, const View& x, const int64_t* sizes, const View& pooled);
void weight_scatter(const WeightPlan& plan, const View& pooled, const View& x, const int64_t* sizes, const View& values);

}  // namespace cpu

namespace cuda {

// What a call on a device needs besides: scratch of as many bytes as weight_linear_workspace says, and the caller's stream.
struct WeightContext {
    void* workspace;
    int64_t workspace_bytes;
    void* stream;
};

// The kernels that keep something between launches; the others need no scratch.
enum class WeightPass { linear, gradient, mix_gradient, scatter };
int64_t weight_linear_workspace(const WeightPlan& plan, WeightPass pass, int64_t batch, int64_t in_channels, int64_t out_channels,
                                DType dtype);

void weight_pool(const WeightPlan& plan, const View& x, const View& basis, const int64_t* sizes, bool mean, const View& pooled,
                 const WeightContext& context);
void weight_affine(const WeightPlan& plan, const View& x, const View& mix, const View& terms, const View& basis, const int64_t* sizes,
                   bool mean, const View& y, const WeightContext& context);
void weight_linear(const WeightPlan& plan, const View& x, const View& weight, const View& bias, const View& project, const View& expand,
                   const int64_t* sizes, bool mean, const View& y, const WeightContext& context);
void weight_linear_transpose(const WeightPlan& plan, const View& y, const View& weight, const int64_t* sizes, bool mean, const View& x,
                             const WeightContext& context);
void weight_linear_gradient(const WeightPlan& plan, const View& x, const View& y, const int64_t* sizes, bool mean, const View& gradient,
                            const WeightContext& context);
void weight_mix_gradient(const WeightPlan& plan, const View& x, const View& y, const int64_t* sizes, const View& mix,
                         const WeightContext& context);
void weight_basis_gradient(const WeightPlan& plan, const View& x, const View& terms, const int64_t* sizes, bool mean, const View& basis,
                           const WeightContext& context);
void weight_select(const WeightPlan& plan, const View& values, const View& x, const int64_t* sizes, const View& pooled,
                   const WeightContext& context);
void weight_scatter(const WeightPlan& plan, const View& pooled, const View& x, const int64_t* sizes, const View& values,
                    const WeightContext& context);

}  // namespace cuda
}  // namespace isotypic
