// The CUDA kernels of max_det run on the host, as the Python module _max_det_emulation that tests/cuda/test_max_det_emulation.py compiles:
//     g++ -std=c++17 -O1 -DISOTYPIC_EMULATE -shared -fPIC ... csrc/cuda/max_det_emulation.cpp
#if !defined(ISOTYPIC_EMULATE)
#error "compile with -DISOTYPIC_EMULATE"
#endif

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cuda/max_det.cu"

namespace py = pybind11;

namespace isotypic {
namespace {

// A contiguous tensor as (address, is it float64, sizes); nothing for one that is not given.
using Tensor = std::optional<std::tuple<uintptr_t, bool, std::vector<int64_t>>>;

View to_view(const Tensor& tensor) {
    View view;
    if (!tensor) return view;
    const auto& [address, wide, sizes] = *tensor;
    view.data = reinterpret_cast<void*>(address);
    view.dtype = wide ? DType::float64 : DType::float32;
    view.ndim = static_cast<int>(sizes.size());
    std::copy(sizes.begin(), sizes.end(), view.sizes);
    return view;
}

}  // namespace

PYBIND11_MODULE(_max_det_emulation, m) {
    m.def("max_det", [](const Tensor& p, const Tensor& tables, bool single, const Tensor& solution) {
        cuda::max_det(to_view(p), to_view(tables), single, to_view(solution), nullptr);
    });
    m.def("max_det_adjoint", [](const Tensor& gram, const Tensor& matrix, const Tensor& form, const Tensor& tables, const Tensor& result) {
        cuda::max_det_adjoint(to_view(gram), to_view(matrix), to_view(form), to_view(tables), to_view(result), nullptr);
    });
    m.def("configure", [](bool reverse) { emulation::machine().reverse = reverse; }, py::arg("reverse"), "Order of the threads.");
}

}  // namespace isotypic
