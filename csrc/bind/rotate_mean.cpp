#include "ops/rotate_mean.hpp"

#include "bind/call.hpp"

namespace isotypic {
namespace {

void rotate_sum(py::handle rotation, py::handle y, double scale, py::handle x) {
    Call call("rotate_sum");
    const View r = call.tensor(rotation, "rotation", {'B', 'k', 'd', 'd'}), from = call.tensor(y, "y", {'B', 'k', 'n', 'd'});
    const View to = call.tensor(x, "x", {'B', 'n', 'd'});
    call.require(call.size('d') >= 2 && call.size('d') <= 4, "d must be 2, 3 or 4");
    call.run([&] { cpu::rotate_sum(r, from, scale, to); }, [&](void* stream) { cuda::rotate_sum(r, from, scale, to, stream); });
}

void rotate_each(py::handle rotation, py::handle x, double scale, py::handle y) {
    Call call("rotate_each");
    const View r = call.tensor(rotation, "rotation", {'B', 'k', 'd', 'd'}), from = call.tensor(x, "x", {'B', 'n', 'd'});
    const View to = call.tensor(y, "y", {'B', 'k', 'n', 'd'});
    call.require(call.size('d') >= 2 && call.size('d') <= 4, "d must be 2, 3 or 4");
    call.run([&] { cpu::rotate_each(r, from, scale, to); }, [&](void* stream) { cuda::rotate_each(r, from, scale, to, stream); });
}

void rotate_outer(py::handle x, py::handle y, double scale, py::handle rotation) {
    Call call("rotate_outer");
    const View first = call.tensor(x, "x", {'B', 'n', 'd'}), second = call.tensor(y, "y", {'B', 'k', 'n', 'd'});
    const View to = call.tensor(rotation, "rotation", {'B', 'k', 'd', 'd'});
    call.require(call.size('d') >= 2 && call.size('d') <= 4, "d must be 2, 3 or 4");
    call.run([&] { cpu::rotate_outer(first, second, scale, to); },
             [&](void* stream) { cuda::rotate_outer(first, second, scale, to, stream); });
}

void rotate_both(py::handle x, py::handle rotation, py::handle y, double scale, py::handle to_rotation, py::handle to_y) {
    Call call("rotate_both");
    const View first = call.tensor(x, "x", {'B', 'n', 'd'}), second = call.tensor(y, "y", {'B', 'k', 'n', 'd'});
    const View r = call.tensor(rotation, "rotation", {'B', 'k', 'd', 'd'});
    const View sums = call.tensor(to_rotation, "to_rotation", {'B', 'k', 'd', 'd'}),
               turned = call.tensor(to_y, "to_y", {'B', 'k', 'n', 'd'});
    call.require(call.size('d') >= 2 && call.size('d') <= 4, "d must be 2, 3 or 4");
    call.run([&] { cpu::rotate_both(first, r, second, scale, sums, turned); },
             [&](void* stream) { cuda::rotate_both(first, r, second, scale, sums, turned, stream); });
}

}  // namespace

void bind_rotate_mean(py::module_& m) {
    using py::arg;
    m.def("rotate_sum", &rotate_sum, arg("rotation"), arg("y"), arg("scale"), arg("x"), "x = scale sum_j R_j y_j");
    m.def("rotate_each", &rotate_each, arg("rotation"), arg("x"), arg("scale"), arg("y"), "y_j = scale R_j^T x");
    m.def("rotate_outer", &rotate_outer, arg("x"), arg("y"), arg("scale"), arg("rotation"), "R_j = scale sum_i x_i y_ji^T");
    m.def("rotate_both", &rotate_both, arg("x"), arg("rotation"), arg("y"), arg("scale"), arg("to_rotation"), arg("to_y"),
          "rotate_outer of x and y, and rotate_each of rotation and x");
}

}  // namespace isotypic
