#include "ops/small_matrix.hpp"

#include <array>

#include "bind/call.hpp"

namespace isotypic {
namespace {

using small_matrix::Operation;

// The tensors of an operation with their names, inputs first.
struct Argument {
    py::handle tensor;
    const char* name;
};

template <size_t Count>
void run(const char* name, Operation operation, bool proper, const std::array<Argument, Count>& arguments) {
    Call call(name);
    const small_matrix::Signature signature = small_matrix::signature_of(operation);
    std::array<View, Count> views;
    for (size_t i = 0; i < Count; ++i) {
        const size_t inputs = static_cast<size_t>(signature.inputs);
        const bool values = i < inputs ? signature.values_in[i] : signature.values_out[i - inputs];
        const Argument& argument = arguments[i];
        views[i] =
            values ? call.tensor(argument.tensor, argument.name, {'N', 'd'}) : call.tensor(argument.tensor, argument.name, {'N', 'd', 'd'});
    }
    call.require(call.size('d') >= 2 && call.size('d') <= 4, "matrices must be 2 x 2, 3 x 3 or 4 x 4");
    const View *in = views.data(), *out = in + signature.inputs;
    call.run([&] { cpu::small_matrix(operation, in, proper, out); },
             [&](void* stream) { cuda::small_matrix(operation, in, proper, out, stream); });
}

void orthonormal_frame(py::handle v, bool proper, py::handle frame, py::handle inverse) {
    run<3>("orthonormal_frame", Operation::frame, proper, {{{v, "v"}, {frame, "frame"}, {inverse, "inverse"}}});
}
void orthonormal_frame_backward(py::handle grad, py::handle frame, py::handle inverse, py::handle result) {
    run<4>("orthonormal_frame_backward", Operation::frame_backward, false,
           {{{grad, "grad"}, {frame, "frame"}, {inverse, "inverse"}, {result, "result"}}});
}
void symmetric_eigen(py::handle a, py::handle values, py::handle vectors) {
    run<3>("symmetric_eigen", Operation::eigen, false, {{{a, "a"}, {values, "values"}, {vectors, "vectors"}}});
}
void symmetric_eigen_backward(py::handle grad_values, py::handle grad_vectors, py::handle values, py::handle vectors, py::handle result) {
    run<5>("symmetric_eigen_backward", Operation::eigen_backward, false,
           {{{grad_values, "grad_values"}, {grad_vectors, "grad_vectors"}, {values, "values"}, {vectors, "vectors"}, {result, "result"}}});
}
void polar(py::handle a, py::handle rotation, py::handle stretch) {
    run<3>("polar", Operation::polar, false, {{{a, "a"}, {rotation, "rotation"}, {stretch, "stretch"}}});
}
void polar_backward(py::handle grad_rotation, py::handle grad_stretch, py::handle rotation, py::handle stretch, py::handle result) {
    run<5>("polar_backward", Operation::polar_backward, false,
           {{{grad_rotation, "grad_rotation"},
             {grad_stretch, "grad_stretch"},
             {rotation, "rotation"},
             {stretch, "stretch"},
             {result, "result"}}});
}
void sylvester(py::handle s, py::handle w, py::handle x) {
    run<3>("sylvester", Operation::sylvester, false, {{{s, "s"}, {w, "w"}, {x, "x"}}});
}

}  // namespace

void bind_small_matrix(py::module_& m) {
    using py::arg;
    m.def("orthonormal_frame", &orthonormal_frame, arg("v"), arg("proper"), arg("frame"), arg("inverse"),
          "v = frame r, inverse = r^-1, or 0 where columns are dependent");
    m.def("orthonormal_frame_backward", &orthonormal_frame_backward, arg("grad"), arg("frame"), arg("inverse"), arg("result"),
          "the adjoint of orthonormal_frame");
    m.def("symmetric_eigen", &symmetric_eigen, arg("a"), arg("values"), arg("vectors"),
          "eigenvalues, ascending, and eigenvectors of the symmetric part");
    m.def("symmetric_eigen_backward", &symmetric_eigen_backward, arg("grad_values"), arg("grad_vectors"), arg("values"), arg("vectors"),
          arg("result"), "the adjoint of symmetric_eigen");
    m.def("polar", &polar, arg("a"), arg("rotation"), arg("stretch"), "a = rotation stretch");
    m.def("polar_backward", &polar_backward, arg("grad_rotation"), arg("grad_stretch"), arg("rotation"), arg("stretch"), arg("result"),
          "the adjoint of polar");
    m.def("sylvester", &sylvester, arg("s"), arg("w"), arg("x"), "s x + x s = w for symmetric s and antisymmetric w");
}

}  // namespace isotypic
