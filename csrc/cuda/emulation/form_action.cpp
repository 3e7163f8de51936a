#include "cuda/form_action.cu"
#include "cuda/emulation/module.hpp"

namespace isotypic {
using namespace emulation;

PYBIND11_MODULE(emulated_form_action, m) {
    m.def("form_action",
          [](const Tensor& p, const Tensor& g, const Tensor& y) { cuda::form_action(to_view(p), to_view(g), to_view(y), nullptr); });
    m.def("form_action_adjoint", [](const Tensor& z, const Tensor& g, const Tensor& p) {
        cuda::form_action_adjoint(to_view(z), to_view(g), to_view(p), nullptr);
    });
    m.def("form_action_matrix", [](const Tensor& p, const Tensor& g, const Tensor& z, const Tensor& r) {
        cuda::form_action_matrix(to_view(p), to_view(g), to_view(z), to_view(r), nullptr);
    });
    define_configure(m);
}

}  // namespace isotypic
