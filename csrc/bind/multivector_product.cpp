#include "ops/multivector_product.hpp"

#include "bind/bind.hpp"
#include "bind/multivectors.hpp"

namespace isotypic {
namespace {

bool is_multivectors(const View& view, const View& like) {
    if (view.ndim != 3 || view.sizes[2] != kMultivector || view.sizes[0] != like.sizes[0] || view.sizes[1] != like.sizes[1]) return false;
    return view.numel() == 0 || (view.strides[2] == 1 && view.strides[0] >= 0 && view.strides[1] >= 0);
}

void multivector_product(py::handle a, py::handle b, py::handle scale, py::handle z, const std::string& table) {
    Call call("multivector_product");
    const View x = call.tensor(a), y = call.tensor(b), result = call.contiguous(z), factors = call.tensor(scale);
    const int product = product_index(table.c_str());
    call.require(product >= 0, "there is no product of this name");
    call.require(is_multivectors(x, x) && is_multivectors(y, x) && is_multivectors(result, x),
                 "a, b and z must have one shape (N, C, 16), with components next to each other");
    call.require(!factors.defined() || (factors.ndim == 2 && factors.sizes[0] == x.sizes[0] && factors.sizes[1] == x.sizes[1]),
                 "scale must have shape (N, C)");
    call.run([&] { cpu::multivector_product(product, x, y, factors, result); },
             [&](void* stream) {
                 if constexpr (kWithCuda) cuda::multivector_product(product, x, y, factors, result, stream);
             });
}

}  // namespace

void bind_multivector_product(py::module_& m) {
    m.def("multivector_product", &multivector_product, py::arg("a"), py::arg("b"), py::arg("scale"), py::arg("z"), py::arg("table"),
          "z = scale sum table a b, multivector by multivector");
}

}  // namespace isotypic
