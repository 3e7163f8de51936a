#include "ops/multivector_linear.hpp"

#include "bind/bind.hpp"
#include "bind/multivectors.hpp"
#include "core/algebra.hpp"

namespace isotypic {
namespace {

constexpr const char* kWhat =
    "x (N, C, 16), y (N, O, 16), weight (O, C, K) and shift (N, O, 1 or 2) must be contiguous and of one dtype, float32 or float64";

struct Arguments {
    View x, weight, y;
    int maps;
};

Arguments arguments(Call& call, py::handle x, py::handle weight, py::handle y, const std::string& algebra) {
    const Arguments a{call.contiguous(x), call.contiguous(weight), call.contiguous(y), linear_maps_index(algebra.c_str())};
    call.require(a.maps >= 0, "there is no algebra of this name");
    const bool multivectors = a.x.ndim == 3 && a.y.ndim == 3 && a.x.sizes[2] == 16 && a.y.sizes[2] == 16 && a.x.sizes[0] == a.y.sizes[0];
    call.require(multivectors && a.weight.ndim == 3 && a.weight.sizes[0] == a.y.sizes[1] && a.weight.sizes[1] == a.x.sizes[1] &&
                     (a.weight.sizes[2] == 5 || a.weight.sizes[2] == algebra::kLinearMaps[a.maps].maps) && itemsize(a.x.dtype) >= 4,
                 kWhat);
    return a;
}

void multivector_linear(py::handle x, py::handle weight, py::handle shift, py::handle y, const std::string& algebra) {
    Call call("multivector_linear");
    const Arguments a = arguments(call, x, weight, y, algebra);
    const View added = call.contiguous(shift);
    call.require(!added.defined() || (added.ndim == 3 && added.sizes[0] == a.y.sizes[0] && added.sizes[1] == a.y.sizes[1] &&
                                      added.sizes[2] >= 1 && added.sizes[2] <= 2),
                 kWhat);
    call.run([&] { cpu::multivector_linear(a.maps, a.x, a.weight, added, a.y); },
             [&](void* stream) {
                 if constexpr (kWithCuda) cuda::multivector_linear(a.maps, a.x, a.weight, added, a.y, stream);
             });
}

void multivector_linear_transpose(py::handle y, py::handle weight, py::handle x, const std::string& algebra) {
    Call call("multivector_linear_transpose");
    const Arguments a = arguments(call, x, weight, y, algebra);
    call.run([&] { cpu::multivector_linear_transpose(a.maps, a.y, a.weight, a.x); },
             [&](void* stream) {
                 if constexpr (kWithCuda) cuda::multivector_linear_transpose(a.maps, a.y, a.weight, a.x, stream);
             });
}

void multivector_linear_weight(py::handle x, py::handle y, py::handle weight, py::handle workspace, const std::string& algebra) {
    Call call("multivector_linear_weight");
    const Arguments a = arguments(call, x, weight, y, algebra);
    const View space = call.contiguous(workspace);
    call.run([&] { cpu::multivector_linear_weight(a.maps, a.x, a.y, a.weight); },
             [&](void* stream) {
                 if constexpr (kWithCuda) {
                     call.require(space.numel() >= cuda::kWeightParts * 32 * a.x.sizes[1] * a.y.sizes[1],
                                  "workspace must have shape (64, O, C, 32)");
                     cuda::multivector_linear_weight(a.maps, a.x, a.y, a.weight, space, stream);
                 }
             });
}

}  // namespace

void bind_multivector_linear(py::module_& m) {
    m.def("multivector_linear", &multivector_linear, py::arg("x"), py::arg("weight"), py::arg("shift"), py::arg("y"), py::arg("algebra"),
          "y = equivariant linear maps of x");
    m.def("multivector_linear_transpose", &multivector_linear_transpose, py::arg("y"), py::arg("weight"), py::arg("x"), py::arg("algebra"),
          "the adjoint of multivector_linear in x");
    m.def("multivector_linear_weight", &multivector_linear_weight, py::arg("x"), py::arg("y"), py::arg("weight"), py::arg("workspace"),
          py::arg("algebra"), "the adjoint of multivector_linear in the weight; CUDA tensors need a workspace (64, O, C, 32)");
}

}  // namespace isotypic
