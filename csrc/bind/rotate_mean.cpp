#include "ops/rotate_mean.hpp"

#include "bind/bind.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

// Checks r (B, k, d, d), x (B, n, d), y (B, k, n, d) and runs host() or device(stream).
template <class Host, class Device>
void run(const Tensor& r, const Tensor& x, const Tensor& y, py::handle handle, const Host& host, const Device& device) {
    bool right = r.view.ndim == 4 && x.view.ndim == 3 && y.view.ndim == 4;
    const int64_t *m = r.view.sizes, *p = x.view.sizes, *s = y.view.sizes;
    right = right && m[0] == s[0] && m[1] == s[1] && m[2] == s[3] && m[3] == s[3] && p[0] == s[0] && p[1] == s[2] && p[2] == s[3] &&
            s[3] >= 2 && s[3] <= 4;
    for (const Tensor* tensor : {&r, &x, &y})
        right = right && tensor->view.dtype == y.view.dtype && itemsize(tensor->view.dtype) >= 4 && is_contiguous(tensor->view) &&
                tensor->on_cuda == y.on_cuda && tensor->device == y.device;
    if (!right)
        throw py::value_error(
            "rotate_mean kernel: matrices (B, k, d, d), x (B, n, d) and y (B, k, n, d) with d = 2, 3 or 4 must be contiguous, float32 or "
            "float64, "
            "on one device");
    if (y.on_cuda) {
        if constexpr (kWithCuda) {
            void* const stream = current_stream(handle, y.device);
            const py::gil_scoped_release release;
            device(stream);
            return;
        } else {
            throw std::runtime_error("rotate_mean: this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
        }
    }
    join_torch_threads();
    const py::gil_scoped_release release;
    host();
}

void rotate_sum(py::handle rotation, py::handle y, double scale, py::handle x) {
    const Tensor r = to_tensor(rotation), from = to_tensor(y), to = to_tensor(x);
    run(
        r, to, from, y, [&] { cpu::rotate_sum(r.view, from.view, scale, to.view); },
        [&]([[maybe_unused]] void* stream) {
            if constexpr (kWithCuda) cuda::rotate_sum(r.view, from.view, scale, to.view, stream);
        });
}

void rotate_each(py::handle rotation, py::handle x, double scale, py::handle y) {
    const Tensor r = to_tensor(rotation), from = to_tensor(x), to = to_tensor(y);
    run(
        r, from, to, y, [&] { cpu::rotate_each(r.view, from.view, scale, to.view); },
        [&]([[maybe_unused]] void* stream) {
            if constexpr (kWithCuda) cuda::rotate_each(r.view, from.view, scale, to.view, stream);
        });
}

void rotate_outer(py::handle x, py::handle y, double scale, py::handle rotation) {
    const Tensor first = to_tensor(x), second = to_tensor(y), to = to_tensor(rotation);
    run(
        to, first, second, y, [&] { cpu::rotate_outer(first.view, second.view, scale, to.view); },
        [&]([[maybe_unused]] void* stream) {
            if constexpr (kWithCuda) cuda::rotate_outer(first.view, second.view, scale, to.view, stream);
        });
}

}  // namespace

void bind_rotate_mean(py::module_& m) {
    using py::arg;
    m.def("rotate_sum", &rotate_sum, arg("rotation"), arg("y"), arg("scale"), arg("x"), "x = scale sum_j R_j y_j");
    m.def("rotate_each", &rotate_each, arg("rotation"), arg("x"), arg("scale"), arg("y"), "y_j = scale R_j^T x");
    m.def("rotate_outer", &rotate_outer, arg("x"), arg("y"), arg("scale"), arg("rotation"), "R_j = scale sum_i x_i y_ji^T");
}

}  // namespace isotypic
