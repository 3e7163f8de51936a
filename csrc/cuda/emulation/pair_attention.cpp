// pair_attention.
#include "cuda/pair_attention.cu"
#include "cuda/emulation/module.hpp"

namespace isotypic {
using namespace emulation;
namespace {

PairAttentionCall call_of(const std::vector<Tensor>& tensors, const Tensor& mask, bool mix, bool softmax, int difference) {
    PairAttentionCall call;
    View* views[11] = {&call.q, &call.k, &call.v, &call.x_q, &call.x_k, &call.w1, &call.b1, &call.w2, &call.b2, &call.w3, &call.b3};
    for (size_t i = 0; i < 11; ++i) *views[i] = to_view(tensors[i]);
    if (mask) {
        const View view = to_view(mask);
        call.mask = static_cast<const uint8_t*>(view.data), call.mask_rows = view.sizes[1];
    }
    call.mix = mix, call.softmax = softmax, call.difference = static_cast<PairDifference>(difference);
    return call;
}

}  // namespace

PYBIND11_MODULE(emulated_pair_attention, m) {
    m.def("pair_attention",
          [](const std::vector<Tensor>& tensors, const Tensor& mask, bool mix, bool softmax, int difference, const Tensor& out) {
              cuda::pair_attention(call_of(tensors, mask, mix, softmax, difference), to_view(out), nullptr);
          });
    m.def("pair_attention_gradient", [](const std::vector<Tensor>& tensors, const Tensor& mask, bool mix, bool softmax, int difference,
                                        const Tensor& out, const Tensor& grad, const Tensor& result) {
        const PairAttentionCall call = call_of(tensors, mask, mix, softmax, difference);
        const Workspace workspace(cuda::pair_attention_workspace(call));
        cuda::pair_attention_gradient(call, to_view(out), to_view(grad), to_view(result), workspace.data, nullptr);
        workspace.check();
    });
    define_configure(m);
}

}  // namespace isotypic
