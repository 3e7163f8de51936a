// Operators on multivectors.
#include <array>

#include "cuda/emulation/module.hpp"
#include "cuda/numbers.cuh"
// In one file the constants of the kernels would meet.
#define kBlock kProductBlock
#define run run_product
#include "cuda/multivector_product.cu"
#undef kBlock
#undef run
#define kBlock kLinearBlock
#include "cuda/multivector_linear.cu"
#undef kBlock
#define kBlock kScaleBlock
#define blocks scale_blocks
#include "cuda/multivector_scale.cu"
#undef kBlock
#undef blocks
#include "cuda/distance_attention.cu"

namespace isotypic {
using namespace emulation;
namespace {

AttentionCall arguments(const std::vector<Tensor>& tensors, const Tensor& weight, uintptr_t mask, uintptr_t ranges, int heads,
                        int key_heads, const std::array<double, 16>& signs, bool distance, double scale) {
    AttentionCall a;
    View* places[] = {&a.q_mv, &a.k_mv, &a.v_mv, &a.q_s, &a.k_s, &a.v_s, &a.mv, &a.s, &a.lse};
    for (size_t i = 0; i < 9; ++i) *places[i] = to_view(tensors[i]);
    a.weight = to_view(weight);
    a.mask = reinterpret_cast<const uint8_t*>(mask);
    a.ranges = reinterpret_cast<const int32_t*>(ranges);
    a.settings.heads = heads;
    a.settings.key_heads = key_heads;
    a.settings.distance = distance;
    a.settings.scale = scale;
    for (int i = 0; i < 16; ++i)
        if (signs[static_cast<size_t>(i)] != 0)
            a.settings.index[a.settings.inner] = i, a.settings.sign[a.settings.inner++] = signs[static_cast<size_t>(i)];
    return a;
}

MultivectorInner inner_of(const std::array<double, 16>& signs) {
    MultivectorInner inner;
    for (size_t i = 0; i < 16; ++i) inner.of[i] = signs[i], inner.definite = inner.definite && signs[i] >= 0;
    return inner;
}

}  // namespace

// The names in Python, in the order of ISOTYPIC_ALGEBRA_PRODUCTS and of kLinearMaps.
PYBIND11_MODULE(emulated_algebra, m) {
    m.def("multivector_product", [](int product, const Tensor& a, const Tensor& b, const Tensor& scale, const Tensor& z) {
        cuda::multivector_product(product, to_view(a), to_view(b), to_view(scale), to_view(z), nullptr);
    });
    m.def("multivector_linear", [](int maps, const Tensor& x, const Tensor& weight, const Tensor& shift, const Tensor& y) {
        cuda::multivector_linear(maps, to_view(x), to_view(weight), to_view(shift), to_view(y), nullptr);
    });
    m.def("multivector_linear_transpose", [](int maps, const Tensor& y, const Tensor& weight, const Tensor& shift, const Tensor& x) {
        cuda::multivector_linear_transpose(maps, to_view(y), to_view(weight), to_view(shift), to_view(x), nullptr);
    });
    m.def("multivector_linear_weight", [](int maps, const Tensor& x, const Tensor& y, const Tensor& weight) {
        const View result = to_view(weight), operand = to_view(x);
        const int64_t numbers = cuda::kWeightParts * result.sizes[0] * result.sizes[1] * 32;
        Workspace space(numbers * itemsize(operand.dtype));
        View view = operand;
        view.data = space.data;
        cuda::multivector_linear_weight(maps, operand, to_view(y), result, view, nullptr);
        space.check();
    });
    m.def("multivector_gate", [](const Tensor& x, const Tensor& factor, const Tensor& y) {
        cuda::multivector_gate(to_view(x), to_view(factor), to_view(y), nullptr);
    });
    m.def("multivector_gate_backward", [](const Tensor& g, const Tensor& x, const Tensor& factor, const Tensor& slope, const Tensor& dx) {
        cuda::multivector_gate_backward(to_view(g), to_view(x), to_view(factor), to_view(slope), to_view(dx), nullptr);
    });
    m.def("multivector_norm",
          [](const Tensor& x, const Tensor& weight, const Tensor& y, const std::array<double, 16>& signs, double epsilon) {
              cuda::multivector_norm(inner_of(signs), epsilon, to_view(x), to_view(weight), to_view(y), nullptr);
          });
    m.def("multivector_norm_backward", [](const Tensor& g, const Tensor& x, const Tensor& weight, const Tensor& dx, const Tensor& dweight,
                                          const std::array<double, 16>& signs, double epsilon) {
        const View in = to_view(x), weights = to_view(weight);
        const int64_t numbers = weights.defined() ? in.sizes[0] + cuda::kNormParts * in.sizes[1] * 16 : 0;
        Workspace space(numbers * itemsize(in.dtype));
        View view = in;
        view.data = weights.defined() ? space.data : nullptr;
        cuda::multivector_norm_backward(inner_of(signs), epsilon, to_view(g), in, weights, to_view(dx), to_view(dweight), view, nullptr);
        space.check();
    });
    m.def("distance_attention", [](const std::vector<Tensor>& tensors, const Tensor& weight, uintptr_t mask, uintptr_t ranges, int heads,
                                   int key_heads, const std::array<double, 16>& signs, bool distance, double scale) {
        cuda::distance_attention(arguments(tensors, weight, mask, ranges, heads, key_heads, signs, distance, scale), nullptr);
    });
    m.def("distance_attention_backward",
          [](const std::vector<Tensor>& tensors, const std::vector<Tensor>& gradients, const Tensor& weight, uintptr_t mask,
             uintptr_t ranges, int heads, int key_heads, const std::array<double, 16>& signs, bool distance, double scale) {
              const AttentionCall a = arguments(tensors, weight, mask, ranges, heads, key_heads, signs, distance, scale);
              AttentionGradients g;
              View* places[] = {&g.g_mv, &g.g_s, &g.q_mv, &g.k_mv, &g.v_mv, &g.q_s, &g.k_s, &g.v_s, &g.weight};
              for (size_t i = 0; i < 9; ++i) *places[i] = to_view(gradients[i]);
              const int64_t numbers = cuda::attention_workspace(a.q_mv.sizes[0], a.q_mv.sizes[1], a.q_mv.sizes[2]);
              Workspace space(numbers * itemsize(a.q_mv.dtype));
              View view = a.q_mv;
              view.data = space.data;
              cuda::distance_attention_backward(a, g, view, nullptr);
              space.check();
          });
    define_configure(m);
}

}  // namespace isotypic
