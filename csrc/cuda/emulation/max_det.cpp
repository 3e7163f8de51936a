// max_det.
#include "cuda/max_det.cu"
#include "cuda/emulation/module.hpp"

namespace isotypic {
using namespace emulation;

PYBIND11_MODULE(emulated_max_det, m) {
    m.def("max_det", [](const Tensor& p, const Tensor& tables, bool single, bool candidates, bool quick, const Tensor& solution) {
        cuda::max_det(to_view(p), to_view(tables), single, candidates, quick, to_view(solution), nullptr);
    });
    m.def("max_det_frame", [](const Tensor& p, const Tensor& tables, const Tensor& framed) {
        cuda::max_det_frame(to_view(p), to_view(tables), to_view(framed), nullptr);
    });
    m.def("max_det_adjoint", [](const Tensor& gram, const Tensor& matrix, const Tensor& form, const Tensor& tables, const Tensor& result) {
        cuda::max_det_adjoint(to_view(gram), to_view(matrix), to_view(form), to_view(tables), to_view(result), nullptr);
    });
    define_configure(m);
}

}  // namespace isotypic
