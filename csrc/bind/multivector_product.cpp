#include "ops/multivector_product.hpp"

#include "bind/call.hpp"

namespace isotypic {
namespace {

// (N, C, 16) with components next to each other.
View multivectors(Call& call, py::handle handle, const char* argument) {
    const View view = call.strided(handle, argument, {'N', 'C', kMultivector});
    call.require(view.numel() == 0 || (view.strides[2] == 1 && view.strides[0] >= 0 && view.strides[1] >= 0),
                 "components must lie next to each other");
    return view;
}

void multivector_product(py::handle a, py::handle b, py::handle scale, py::handle z, const std::string& table) {
    Call call("multivector_product", Floats::all);
    const View x = multivectors(call, a, "a"), y = multivectors(call, b, "b"), result = multivectors(call, z, "z");
    const View factors = scale.is_none() ? View{} : call.strided(scale, "scale", {'N', 'C'});
    const int product = product_index(table.c_str());
    call.require(product >= 0, "there is no product of this name");
    call.run([&] { cpu::multivector_product(product, x, y, factors, result); },
             [&](void* stream) { cuda::multivector_product(product, x, y, factors, result, stream); });
}

}  // namespace

void bind_multivector_product(py::module_& m) {
    m.def("multivector_product", &multivector_product, py::arg("a"), py::arg("b"), py::arg("scale"), py::arg("z"), py::arg("table"),
          "z = scale sum table a b, multivector by multivector");
}

}  // namespace isotypic
