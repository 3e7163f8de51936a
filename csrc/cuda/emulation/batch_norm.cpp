// batch_norm.
#include "cuda/emulation/module.hpp"

#include <string>

#include "cuda/batch_norm.cu"

namespace isotypic {
using namespace emulation;
namespace {

// Calls the operator of this name with the tensors of its signature in order.
void call(const std::string& name, const std::vector<Tensor>& tensors, double eps, bool relu, bool batch) {
    std::vector<View> v;
    for (const Tensor& tensor : tensors) v.push_back(to_view(tensor));
    const int64_t bytes = cuda::batch_norm_workspace(v[0]);
    const Workspace scratch(bytes);
    const cuda::BatchNormContext context{scratch.data, nullptr};
    const BatchNormSettings settings{eps, relu};
    if (name == "batch_norm") cuda::batch_norm(v[0], v[1], v[2], settings, v[3], v[4], context);
    if (name == "batch_norm_apply") cuda::batch_norm_apply(v[0], v[1], v[2], v[3], settings, v[4], context);
    if (name == "batch_norm_backward") cuda::batch_norm_backward(v[0], v[1], v[2], v[3], v[4], settings, batch, v[5], v[6], context);
    scratch.check();
}

}  // namespace

PYBIND11_MODULE(emulated_batch_norm, m) {
    m.def("call", &call, py::arg("name"), py::arg("tensors"), py::arg("eps"), py::arg("relu"), py::arg("batch"));
    define_configure(m);
}

}  // namespace isotypic
