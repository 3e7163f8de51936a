// Python to kernels for max_det: the last line of defence. A wrong shape here would be a wild read.
#include "ops/max_det.hpp"

#include "bind/bind.hpp"
#include "bind/tensor.hpp"
#include "core/max_det.hpp"

namespace isotypic {
namespace {

constexpr int64_t kMaxDegree = 40;

void require(bool holds, const char* message) {
    if (!holds) throw py::value_error(message);
}

// Contiguous, of the dtype of the first, float32 or float64, and on its device.
void check_tensors(const Tensor& first, std::initializer_list<const Tensor*> others, const char* message) {
    require(first.view.dtype == DType::float32 || first.view.dtype == DType::float64, message);
    for (const Tensor* tensor : others)
        require(is_contiguous(tensor->view) && tensor->view.dtype == first.view.dtype && tensor->on_cuda == first.on_cuda &&
                    tensor->device == first.device,
                message);
    require(kWithCuda || !first.on_cuda, "max_det kernel: this build of isotypic has no CUDA kernels");
}

bool shape(const Tensor& tensor, int64_t a, int64_t b) {
    return tensor.view.ndim == 2 && tensor.view.sizes[0] == a && tensor.view.sizes[1] == b;
}
bool square(const Tensor& tensor, int64_t batch, int64_t n) {
    return tensor.view.ndim == 3 && tensor.view.sizes[0] == batch && tensor.view.sizes[1] == n && tensor.view.sizes[2] == n;
}
bool is_table(const Tensor& tensor, int64_t d) {
    return tensor.view.ndim == 1 && tensor.view.sizes[0] == max_det::Tables(static_cast<int>(d)).size;
}

void solve(py::handle p, py::handle tables, bool single, py::handle solution) {
    const char* message =
        "max_det kernel: p (B, 2 d + 1) with 2 d <= 40, tables and solution (B, (d + 1)^2 + 4) must be contiguous tensors of one dtype, "
        "float32 or float64, on one device";
    const Tensor in = to_tensor(p), constants = to_tensor(tables), out = to_tensor(solution);
    require(in.view.ndim == 2 && in.view.sizes[1] % 2 == 1 && in.view.sizes[1] <= kMaxDegree + 1, message);
    const int64_t batch = in.view.sizes[0], d = in.view.sizes[1] / 2, n = d + 1;
    require(is_table(constants, d) && shape(out, batch, n * n + 4), message);
    check_tensors(in, {&in, &constants, &out}, message);
    void* stream = in.on_cuda ? current_stream(p, in.device) : nullptr;
    const py::gil_scoped_release release;
    if (!in.on_cuda) return cpu::max_det(in.view, constants.view, single, out.view);
    if constexpr (kWithCuda) cuda::max_det(in.view, constants.view, single, out.view, stream);
}

void adjoint(py::handle gram, py::handle matrix, py::handle form, py::handle tables, py::handle result) {
    const char* message =
        "max_det_adjoint kernel: gram (B, n, n) with n <= 21, one of matrix (B, n, n) and form (B, 2 n - 1), tables and result (B, 2 n - "
        "1) "
        "must be contiguous tensors of one dtype, float32 or float64, on one device";
    const Tensor q = to_tensor(gram), constants = to_tensor(tables), out = to_tensor(result);
    require(matrix.is_none() != form.is_none(), message);
    const Tensor source = to_tensor(matrix.is_none() ? form : matrix);
    require(q.view.ndim == 3 && q.view.sizes[1] >= 1 && 2 * q.view.sizes[1] - 2 <= kMaxDegree, message);
    const int64_t batch = q.view.sizes[0], n = q.view.sizes[1];
    require(square(q, batch, n) && is_table(constants, n - 1) && shape(out, batch, 2 * n - 1), message);
    require(matrix.is_none() ? shape(source, batch, 2 * n - 1) : square(source, batch, n), message);
    check_tensors(q, {&q, &source, &constants, &out}, message);
    void* stream = q.on_cuda ? current_stream(gram, q.device) : nullptr;
    const View given_matrix = matrix.is_none() ? View{} : source.view, given_form = matrix.is_none() ? source.view : View{};
    const py::gil_scoped_release release;
    if (!q.on_cuda) return cpu::max_det_adjoint(q.view, given_matrix, given_form, constants.view, out.view);
    if constexpr (kWithCuda) cuda::max_det_adjoint(q.view, given_matrix, given_form, constants.view, out.view, stream);
}

}  // namespace

void bind_max_det(py::module_& m) {
    m.def("max_det", &solve, py::arg("p"), py::arg("tables"), py::arg("single"), py::arg("solution"),
          "The Gram matrices of largest determinant, with status and witness.");
    m.def("max_det_adjoint", &adjoint, py::arg("gram"), py::arg("matrix"), py::arg("form"), py::arg("tables"), py::arg("result"),
          "The derivative of max_det, transposed: Hess(Q)^-1 A(Q G Q), or Hess(Q)^-1 r.");
}

}  // namespace isotypic
