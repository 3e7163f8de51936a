#include "ops/max_det.hpp"

#include "bind/call.hpp"
#include "ops/max_det_solver.hpp"

namespace isotypic {
namespace {

constexpr int64_t kMaxDegree = 40;

// The tables of ops/max_det_solver.hpp come first, but the first tensor is another one.
View tables_of(Call& call, py::handle tables, int64_t n) {
    return call.tensor(tables, "tables", {max_det::Tables(static_cast<int>(n - 1)).size});
}

void forward(py::handle tables, py::handle p, bool single, bool candidates, bool quick, py::handle solution) {
    Call call("max_det");
    const View in = call.tensor(p, "p", {'B', 'M'});
    call.require(call.dtype() == DType::float64, "p must be float64");
    const int64_t m = call.size('M'), n = m / 2 + 1;
    call.require(m % 2 == 1 && m <= kMaxDegree + 1, "p must have shape (B, 2 d + 1) with 2 d <= 40");
    const View constants = tables_of(call, tables, n), out = call.tensor(solution, "solution", {'B', n * n + 5});
    call.run([&] { cpu::max_det(in, constants, single, candidates, quick, out); },
             [&](void* stream) { cuda::max_det(in, constants, single, candidates, quick, out, stream); });
}

void frame(py::handle tables, py::handle p, py::handle framed) {
    Call call("max_det_frame");
    const View in = call.tensor(p, "p", {'B', 'M'});
    call.require(call.dtype() == DType::float64, "p must be float64");
    const int64_t m = call.size('M');
    call.require(m % 2 == 1 && m > 1 && m <= kMaxDegree + 1, "p must have shape (B, 2 d + 1) with 0 < 2 d <= 40");
    const View constants = tables_of(call, tables, m / 2 + 1), out = call.tensor(framed, "framed", {'B', m + 4});
    call.run([&] { cpu::max_det_frame(in, constants, out); }, [&](void* stream) { cuda::max_det_frame(in, constants, out, stream); });
}

void hessian(const char* name, py::handle tables, py::handle gram, py::handle matrix, py::handle form, py::handle result) {
    Call call(name);
    const View q = call.tensor(gram, "gram", {'B', 'n', 'n'});
    call.require(call.dtype() == DType::float64, "gram must be float64");
    const int64_t n = call.size('n'), m = 2 * n - 1;
    call.require(n >= 1 && m <= kMaxDegree + 1, "gram must have shape (B, n, n) with n from 1 to 21");
    const View given_matrix = call.optional(matrix, "matrix", {'B', 'n', 'n'}), given_form = call.optional(form, "form", {'B', m});
    const View constants = tables_of(call, tables, n), out = call.tensor(result, "result", {'B', m});
    call.require(given_matrix.defined() != given_form.defined(), "one of matrix and form must be given");
    call.run([&] { cpu::max_det_adjoint(q, given_matrix, given_form, constants, out); },
             [&](void* stream) { cuda::max_det_adjoint(q, given_matrix, given_form, constants, out, stream); });
}

void adjoint(py::handle tables, py::handle gram, py::handle matrix, py::handle result) {
    hessian("max_det_adjoint", tables, gram, matrix, py::none(), result);
}

void solve(py::handle tables, py::handle gram, py::handle form, py::handle result) {
    hessian("max_det_solve", tables, gram, py::none(), form, result);
}

}  // namespace

void bind_max_det(py::module_& m) {
    m.def("max_det", &forward, py::arg("tables"), py::arg("p"), py::arg("single"), py::arg("candidates"), py::arg("quick"),
          py::arg("solution"), "The Gram matrices of largest determinant, with status and witness.");
    m.def("max_det_frame", &frame, py::arg("tables"), py::arg("p"), py::arg("framed"), "Forms in frames, and the frames.");
    m.def("max_det_adjoint", &adjoint, py::arg("tables"), py::arg("gram"), py::arg("matrix"), py::arg("result"),
          "The derivative of max_det, transposed: Hess(Q)^-1 A(Q G Q).");
    m.def("max_det_solve", &solve, py::arg("tables"), py::arg("gram"), py::arg("form"), py::arg("result"), "Hess(Q)^-1 r.");
}

}  // namespace isotypic
