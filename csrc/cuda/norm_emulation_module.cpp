// The CUDA kernels of batch_norm run on the host, as the Python module _norm_emulation that tests/cuda/test_norm_emulation.py compiles:
//     g++ -std=c++17 -O1 -DISOTYPIC_EMULATE -shared -fPIC ... csrc/cuda/norm_emulation_module.cpp
#if !defined(ISOTYPIC_EMULATE)
#error "compile with -DISOTYPIC_EMULATE"
#endif

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <string>
#include <vector>

#include "cuda/batch_norm.cu"

namespace py = pybind11;

namespace isotypic {
namespace {

// A contiguous tensor as (address, dtype, sizes); no tensor is (0, 0, []).
using Tensor = std::tuple<uintptr_t, int, std::vector<int64_t>>;

View to_view(const Tensor& tensor) {
    const auto& [address, dtype, sizes] = tensor;
    View view;
    view.data = reinterpret_cast<void*>(address);
    view.dtype = static_cast<DType>(dtype);
    view.ndim = static_cast<int>(sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) view.sizes[i] = sizes[i];
    return view;
}

// Calls the operator of this name with the tensors of its signature in order; scratch is NaN patterns, exactly as long as it asks for.
void call(const std::string& name, const std::vector<Tensor>& tensors, double eps, bool relu, bool batch, bool reverse) {
    emulation::machine().reverse = reverse;
    std::vector<View> v;
    for (const Tensor& tensor : tensors) v.push_back(to_view(tensor));
    const int64_t bytes = cuda::batch_norm_workspace(v[0]), guard = 4096;
    std::vector<char> scratch(bytes + guard, char(0xff));
    const cuda::BatchNormContext context{scratch.data(), nullptr};
    const BatchNormSettings settings{eps, relu};
    if (name == "batch_norm") cuda::batch_norm(v[0], v[1], v[2], settings, v[3], v[4], context);
    if (name == "batch_norm_apply") cuda::batch_norm_apply(v[0], v[1], v[2], v[3], settings, v[4], context);
    if (name == "batch_norm_backward") cuda::batch_norm_backward(v[0], v[1], v[2], v[3], v[4], settings, batch, v[5], v[6], context);
    for (int64_t i = bytes; i < bytes + guard; ++i)
        if (scratch[i] != char(0xff)) throw std::runtime_error("emulation: a kernel wrote past its workspace");
}

}  // namespace

PYBIND11_MODULE(_norm_emulation, m) {
    m.def("call", &call, py::arg("name"), py::arg("tensors"), py::arg("eps"), py::arg("relu"), py::arg("batch"), py::arg("reverse"));
}

}  // namespace isotypic
