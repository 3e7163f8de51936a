#include "ops/set_conv.hpp"

#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <vector>

#include "bind/bind.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

struct Call {
    Tensor y, grid, t, s;
    SetConvAxes axes;
    void* stream = nullptr;
};

// The tensors of a call, checked: y (B, N, C), grid (B, C, *shape), t (B, N, d), s (d,).
Call read(const char* what, py::handle y, py::handle grid, py::handle t, py::handle s, const std::vector<int>& powers) {
    Call call{to_tensor(y), to_tensor(grid), to_tensor(t), to_tensor(s), {}};
    const View &points = call.y.view, &field = call.grid.view, &at = call.t.view, &scale = call.s.view;
    const int dim = at.ndim == 3 ? static_cast<int>(at.sizes[2]) : 0;
    bool right = dim >= 1 && dim <= 3 && points.ndim == 3 && field.ndim == 2 + dim && scale.ndim == 1 && scale.sizes[0] == dim &&
                 points.sizes[0] == at.sizes[0] && points.sizes[1] == at.sizes[1] && field.sizes[0] == at.sizes[0] &&
                 field.sizes[1] == points.sizes[2] && static_cast<int>(powers.size()) == dim && at.dtype == DType::float64 &&
                 scale.dtype == DType::float64 && points.dtype == field.dtype && itemsize(points.dtype) >= 4;
    for (const Tensor* tensor : {&call.grid, &call.t, &call.s})
        right = right && tensor->on_cuda == call.y.on_cuda && tensor->device == call.y.device;
    for (const Tensor* tensor : {&call.y, &call.grid, &call.t, &call.s}) right = right && is_contiguous(tensor->view);
    for (int k = 0; right && k < dim; ++k) {
        right = powers[k] >= 0 && field.sizes[2 + k] < (int64_t{1} << 31) && field.sizes[2 + k] > 0;
        call.axes.nodes[3 - dim + k] = field.sizes[2 + k];
        call.axes.powers[3 - dim + k] = powers[k];
    }
    if (!right)
        throw py::value_error(std::string(what) +
                              " kernel: y (B, N, C) and grid (B, C, *shape) must be float32 or float64, t (B, N, d) and s " +
                              "(d) float64, all contiguous on one device");
    call.axes.dim = dim;
    if (call.y.on_cuda) {
        if (!kWithCuda)
            throw std::runtime_error(std::string(what) +
                                     ": this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
        call.stream = current_stream(y, call.y.device);
    }
    return call;
}

int64_t set_conv(py::handle y, py::handle t, py::handle s, const std::vector<int>& powers, py::handle grid) {
    const Call c = read("set_conv", y, grid, t, s, powers);
    join_torch_threads();
    const py::gil_scoped_release release;
    if (!c.y.on_cuda) return cpu::set_conv(c.y.view, c.t.view, c.s.view, c.axes, c.grid.view);
    if constexpr (kWithCuda) cuda::set_conv(c.y.view, c.t.view, c.s.view, c.axes, c.grid.view, c.stream);
    return 0;
}

int64_t set_conv_decode(py::handle grid, py::handle t, py::handle s, const std::vector<int>& powers, py::handle y) {
    const Call c = read("set_conv_decode", y, grid, t, s, powers);
    join_torch_threads();
    const py::gil_scoped_release release;
    if (!c.y.on_cuda) return cpu::set_conv_decode(c.grid.view, c.t.view, c.s.view, c.axes, c.y.view);
    if constexpr (kWithCuda) cuda::set_conv_decode(c.grid.view, c.t.view, c.s.view, c.axes, c.y.view, c.stream);
    return 0;
}

void set_conv_moments(py::handle y, py::handle grid, py::handle t, py::handle s, bool first, py::handle moments) {
    const View at = to_tensor(t).view;
    const Call c = read("set_conv_moments", y, grid, t, s, std::vector<int>(at.ndim == 3 ? static_cast<size_t>(at.sizes[2]) : 0));
    const Tensor result = to_tensor(moments);
    const int64_t width = 2 * c.axes.dim + (first ? c.y.view.sizes[2] : 0);
    if (result.view.ndim != 3 || result.view.dtype != DType::float64 || result.view.sizes[0] != at.sizes[0] ||
        result.view.sizes[1] != at.sizes[1] || result.view.sizes[2] != width || !is_contiguous(result.view) ||
        result.on_cuda != c.y.on_cuda)
        throw py::value_error("set_conv_moments kernel: moments must be a contiguous float64 tensor (B, N, [C] + 2 d)");
    join_torch_threads();
    const py::gil_scoped_release release;
    if (!c.y.on_cuda) return cpu::set_conv_moments(c.y.view, c.grid.view, c.t.view, c.s.view, c.axes, first, result.view);
    if constexpr (kWithCuda) cuda::set_conv_moments(c.y.view, c.grid.view, c.t.view, c.s.view, c.axes, first, result.view, c.stream);
}

// First node, distance of the nodes, and whether they are equally spaced, of a 1-D tensor of float32 or float64 on the CPU.
template <class T>
std::array<double, 2> line_of(const View& nodes, bool& equal) {
    const T* at = static_cast<const T*>(nodes.data);
    const int64_t count = nodes.sizes[0];
    const double first = static_cast<double>(at[0]), last = static_cast<double>(at[(count - 1) * nodes.strides[0]]);
    const double step = count > 1 ? (last - first) / static_cast<double>(count - 1) : 1;
    // Rounded nodes are off by an ulp of the largest one.
    const double tolerance = 1e-4 * std::abs(step) + (sizeof(T) == 4 ? 3e-7 : 1e-15) * std::max(std::abs(first), std::abs(last));
    equal = std::isfinite(step) && step != 0;
    for (int64_t i = 0; i < count; ++i)
        equal = equal && std::abs(static_cast<double>(at[i * nodes.strides[0]]) - (first + static_cast<double>(i) * step)) <= tolerance;
    return {first, step};
}

std::tuple<double, double, bool> grid_line(py::handle nodes) {
    const Tensor tensor = to_tensor(nodes);
    if (tensor.on_cuda || tensor.view.ndim != 1 || tensor.view.sizes[0] < 1 || itemsize(tensor.view.dtype) < 4)
        throw py::value_error("grid_line: nodes must be a float32 or float64 vector on the CPU");
    bool equal = false;
    const auto [first, step] =
        tensor.view.dtype == DType::float64 ? line_of<double>(tensor.view, equal) : line_of<float>(tensor.view, equal);
    return {first, step, equal};
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
