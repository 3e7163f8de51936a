#include "ops/small_matrix.hpp"

#include <array>
#include <string>

#include "bind/bind.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

using small_matrix::Operation;

// Checks the tensors of an operation, inputs first, and runs it on their device.
template <size_t Count>
void run(const char* name, Operation operation, bool proper, const std::array<py::handle, Count>& handles) {
    const small_matrix::Shape shape = small_matrix::shape_of(operation);
    std::array<Tensor, Count> tensors;
    for (size_t i = 0; i < Count; ++i) tensors[i] = to_tensor(handles[i]);
    const View& matrices = tensors[shape.values_in[0] ? 1 : 0].view;
    bool right = matrices.ndim == 3 && matrices.sizes[1] >= 2 && matrices.sizes[1] <= 4;
    std::array<View, Count> views;
    for (size_t i = 0; right && i < Count; ++i) {
        const bool values =
            i < static_cast<size_t>(shape.inputs) ? shape.values_in[i] : shape.values_out[i - static_cast<size_t>(shape.inputs)];
        const View& view = views[i] = tensors[i].view;
        right = view.ndim == (values ? 2 : 3) && view.dtype == matrices.dtype && itemsize(view.dtype) >= 4 && is_contiguous(view) &&
                tensors[i].on_cuda == tensors[0].on_cuda && tensors[i].device == tensors[0].device;
        for (int axis = 0; right && axis < view.ndim; ++axis) right = view.sizes[axis] == matrices.sizes[axis == 0 ? 0 : 1];
    }
    if (!right)
        throw py::value_error(
            std::string(name) +
            " kernel: matrices must be (N, d, d) with d = 2, 3 or 4 and values (N, d), contiguous, float32 or float64, on one device");
    void* stream = nullptr;
    if (tensors[0].on_cuda) {
        if (!kWithCuda)
            throw std::runtime_error(std::string(name) +
                                     ": this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
        stream = current_stream(handles[0], tensors[0].device);
    } else {
        join_torch_threads();
    }
    const py::gil_scoped_release release;
    const View* out = views.data() + shape.inputs;
    if (!tensors[0].on_cuda) return cpu::small_matrix(operation, views.data(), proper, out);
    if constexpr (kWithCuda) cuda::small_matrix(operation, views.data(), proper, out, stream);
}

}  // namespace

void bind_small_matrix(py::module_& m) {
    using py::arg;
    m.def(
        "orthonormal_frame",
        [](py::handle v, bool proper, py::handle frame, py::handle inverse) {
            run<3>("orthonormal_frame", Operation::frame, proper, {v, frame, inverse});
        },
        arg("v"), arg("proper"), arg("frame"), arg("inverse"), "v = frame r, inverse = r^-1, or 0 where columns are dependent");
    m.def(
        "orthonormal_frame_backward",
        [](py::handle grad, py::handle frame, py::handle inverse, py::handle result) {
            run<4>("orthonormal_frame_backward", Operation::frame_backward, false, {grad, frame, inverse, result});
        },
        arg("grad"), arg("frame"), arg("inverse"), arg("result"), "the adjoint of orthonormal_frame");
    m.def(
        "symmetric_eigen",
        [](py::handle a, py::handle values, py::handle vectors) {
            run<3>("symmetric_eigen", Operation::eigen, false, {a, values, vectors});
        },
        arg("a"), arg("values"), arg("vectors"), "eigenvalues, ascending, and eigenvectors of the symmetric part");
    m.def(
        "symmetric_eigen_backward",
        [](py::handle grad_values, py::handle grad_vectors, py::handle values, py::handle vectors, py::handle result) {
            run<5>("symmetric_eigen_backward", Operation::eigen_backward, false, {grad_values, grad_vectors, values, vectors, result});
        },
        arg("grad_values"), arg("grad_vectors"), arg("values"), arg("vectors"), arg("result"), "the adjoint of symmetric_eigen");
    m.def(
        "polar",
        [](py::handle a, py::handle rotation, py::handle stretch) { run<3>("polar", Operation::polar, false, {a, rotation, stretch}); },
        arg("a"), arg("rotation"), arg("stretch"), "a = rotation stretch");
    m.def(
        "polar_backward",
        [](py::handle grad_rotation, py::handle grad_stretch, py::handle rotation, py::handle stretch, py::handle result) {
            run<5>("polar_backward", Operation::polar_backward, false, {grad_rotation, grad_stretch, rotation, stretch, result});
        },
        arg("grad_rotation"), arg("grad_stretch"), arg("rotation"), arg("stretch"), arg("result"), "the adjoint of polar");
    m.def(
        "sylvester", [](py::handle s, py::handle w, py::handle x) { run<3>("sylvester", Operation::sylvester, false, {s, w, x}); },
        arg("s"), arg("w"), arg("x"), "s x + x s = w for symmetric s and antisymmetric w");
}

}  // namespace isotypic
