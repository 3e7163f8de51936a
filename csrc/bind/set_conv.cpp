#include "ops/set_conv.hpp"

#include <pybind11/stl.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "bind/call.hpp"

namespace isotypic {
namespace {

// The tensors of a call: y (B, N, C), grid (B, C, *shape), t (B, N, d), s (d).
struct SetConvCall {
    Call call;
    View points, field, t, s;
    SetConvAxes axes;

    SetConvCall(const char* name, py::handle y, py::handle grid, py::handle at, py::handle scale, const std::vector<int>& powers)
        : call(name) {
        points = call.tensor(y, "y", {'B', 'N', 'C'});
        field = call.unshaped(grid, "grid");
        // Positions are of float64, whatever the values.
        t = placed(at, "t"), s = placed(scale, "s");
        const int dim = t.ndim == 3 ? static_cast<int>(t.sizes[2]) : 0;
        bool right = dim >= 1 && dim <= 3 && t.sizes[0] == points.sizes[0] && t.sizes[1] == points.sizes[1] && s.ndim == 1 &&
                     s.sizes[0] == dim && is_contiguous(t) && is_contiguous(s) && static_cast<int>(powers.size()) == dim;
        right = right && field.ndim == 2 + dim && is_contiguous(field) && field.sizes[0] == points.sizes[0] &&
                field.sizes[1] == points.sizes[2];
        for (int k = 0; right && k < dim; ++k) {
            right = powers[k] >= 0 && field.sizes[2 + k] > 0 && field.sizes[2 + k] < (int64_t{1} << 31);
            axes.nodes[3 - dim + k] = field.sizes[2 + k], axes.powers[3 - dim + k] = powers[k];
        }
        call.require(right, "grid (B, C, *shape), t (B, N, d) and s (d) must fit y (B, N, C) and be contiguous");
        axes.dim = dim;
    }

  private:
    View placed(py::handle handle, const char* argument) const {
        const Tensor tensor = to_tensor(handle);
        const bool here = tensor.on_cuda == call.on_cuda() && (!tensor.on_cuda || tensor.device == call.device());
        call.require(here && tensor.view.dtype == DType::float64, argument == std::string("t")
                                                                      ? "t must be of float64, on the device of y"
                                                                      : "s must be of float64, on the device of y");
        return tensor.view;
    }
};

int64_t set_conv(py::handle y, py::handle t, py::handle s, const std::vector<int>& powers, py::handle grid) {
    const SetConvCall c("set_conv", y, grid, t, s, powers);
    int64_t outside = 0;
    c.call.run([&] { outside = cpu::set_conv(c.points, c.t, c.s, c.axes, c.field); },
               [&](void* stream) { cuda::set_conv(c.points, c.t, c.s, c.axes, c.field, stream); });
    return outside;
}

int64_t set_conv_decode(py::handle grid, py::handle t, py::handle s, const std::vector<int>& powers, py::handle y) {
    const SetConvCall c("set_conv_decode", y, grid, t, s, powers);
    int64_t outside = 0;
    c.call.run([&] { outside = cpu::set_conv_decode(c.field, c.t, c.s, c.axes, c.points); },
               [&](void* stream) { cuda::set_conv_decode(c.field, c.t, c.s, c.axes, c.points, stream); });
    return outside;
}

void set_conv_moments(py::handle y, py::handle grid, py::handle t, py::handle s, bool first, py::handle moments) {
    const View at = to_tensor(t).view;
    const SetConvCall c("set_conv_moments", y, grid, t, s, std::vector<int>(at.ndim == 3 ? static_cast<size_t>(at.sizes[2]) : 0));
    const Tensor result = to_tensor(moments);
    const View& view = result.view;
    const int64_t width = 2 * c.axes.dim + (first ? c.points.sizes[2] : 0);
    const bool fits = view.ndim == 3 && view.sizes[0] == at.sizes[0] && view.sizes[1] == at.sizes[1] && view.sizes[2] == width;
    c.call.require(fits && view.dtype == DType::float64 && is_contiguous(view) && result.on_cuda == c.call.on_cuda(),
                   "moments must be contiguous, (B, N, [C] + 2 d) of float64");
    c.call.run([&] { cpu::set_conv_moments(c.points, c.field, c.t, c.s, c.axes, first, view); },
               [&](void* stream) { cuda::set_conv_moments(c.points, c.field, c.t, c.s, c.axes, first, view, stream); });
}

// First node, distance of the nodes, and whether they are equally spaced.
template <class T>
std::tuple<double, double, bool> line_of(const View& nodes) {
    const T* at = static_cast<const T*>(nodes.data);
    const int64_t count = nodes.sizes[0], stride = nodes.strides[0];
    const double first = static_cast<double>(at[0]), last = static_cast<double>(at[(count - 1) * stride]);
    const double step = count > 1 ? (last - first) / static_cast<double>(count - 1) : 1;
    // Rounded nodes are off by an ulp of the largest one.
    const double tolerance = 1e-4 * std::abs(step) + (sizeof(T) == 4 ? 3e-7 : 1e-15) * std::max(std::abs(first), std::abs(last));
    bool equal = std::isfinite(step) && step != 0;
    for (int64_t i = 0; i < count; ++i)
        equal = equal && std::abs(static_cast<double>(at[i * stride]) - (first + static_cast<double>(i) * step)) <= tolerance;
    return {first, step, equal};
}

std::tuple<double, double, bool> grid_line(py::handle nodes) {
    Call call("grid_line");
    const View view = call.strided(nodes, "nodes", {'N'});
    call.require(!call.on_cuda() && view.sizes[0] > 0, "nodes must be on the CPU, one or more");
    return view.dtype == DType::float64 ? line_of<double>(view) : line_of<float>(view);
}

}  // namespace

void bind_set_conv(py::module_& m) {
    m.def("set_conv", &set_conv, py::arg("y"), py::arg("t"), py::arg("s"), py::arg("powers"), py::arg("grid"),
          "points on a grid; how many lie outside of it");
    m.def("set_conv_decode", &set_conv_decode, py::arg("grid"), py::arg("t"), py::arg("s"), py::arg("powers"), py::arg("y"),
          "a grid at points; how many lie outside of it");
    m.def("set_conv_moments", &set_conv_moments, py::arg("y"), py::arg("grid"), py::arg("t"), py::arg("s"), py::arg("first"),
          py::arg("moments"), "the gradients of set_conv in one pass");
    m.def("grid_line", &grid_line, py::arg("nodes"), "first node, distance, and whether the nodes are equally spaced");
}

}  // namespace isotypic
