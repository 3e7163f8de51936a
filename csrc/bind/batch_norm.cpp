#include "ops/batch_norm.hpp"

#include "bind/call.hpp"

namespace isotypic {
namespace {

// x, which decides 'O', 'C' and 'I'. There is an element.
View values_of(Call& call, py::handle x) {
    const View in = call.tensor(x, "x", {'O', 'C', 'I'});
    call.require(in.numel() > 0, "x must have an element");
    return in;
}

void* workspace_of(const Call& call, const View& x, py::handle workspace) {
    const Buffer buffer = call.buffer(workspace, "workspace");
    if constexpr (kWithCuda) call.require(!call.on_cuda() || buffer.bytes >= cuda::batch_norm_workspace(x), "the workspace is too small");
    return buffer.data;
}

int64_t batch_norm_workspace(py::handle x) {
    Call call("batch_norm_workspace", Floats::all);
    const View in = call.tensor(x, "x", {'O', 'C', 'I'});
    if constexpr (kWithCuda)
        return cuda::batch_norm_workspace(in);
    else
        return 0;
}

void batch_norm(py::handle x, py::handle weight, py::handle bias, double eps, bool relu, py::handle y, py::handle statistics,
                py::handle workspace) {
    Call call("batch_norm", Floats::all);
    const View in = values_of(call, x), out = call.tensor(y, "y", {'O', 'C', 'I'});
    const View w = call.optional_wide(weight, "weight", {'C'}), b = call.optional_wide(bias, "bias", {'C'});
    const View s = call.wide(statistics, "statistics", {2, 'C'});
    void* scratch = workspace_of(call, in, workspace);
    call.run([&] { cpu::batch_norm(in, w, b, {eps, relu}, out, s); },
             [&](void* stream) { cuda::batch_norm(in, w, b, {eps, relu}, out, s, {scratch, stream}); });
}

void batch_norm_apply(py::handle x, py::handle statistics, py::handle weight, py::handle bias, double eps, bool relu, py::handle y) {
    Call call("batch_norm_apply", Floats::all);
    const View in = values_of(call, x), out = call.tensor(y, "y", {'O', 'C', 'I'});
    const View s = call.wide(statistics, "statistics", {2, 'C'});
    const View w = call.optional_wide(weight, "weight", {'C'}), b = call.optional_wide(bias, "bias", {'C'});
    call.run([&] { cpu::batch_norm_apply(in, s, w, b, {eps, relu}, out); },
             [&](void* stream) { cuda::batch_norm_apply(in, s, w, b, {eps, relu}, out, {nullptr, stream}); });
}

void batch_norm_backward(py::handle g, py::handle x, py::handle statistics, py::handle weight, py::handle bias, double eps, bool relu,
                         bool batch, py::handle dx, py::handle sums, py::handle workspace) {
    Call call("batch_norm_backward", Floats::all);
    const View in = values_of(call, x), gradient = call.tensor(g, "g", {'O', 'C', 'I'}), out = call.tensor(dx, "dx", {'O', 'C', 'I'});
    const View s = call.wide(statistics, "statistics", {2, 'C'}), totals = call.wide(sums, "sums", {2, 'C'});
    const View w = call.optional_wide(weight, "weight", {'C'}), b = call.optional_wide(bias, "bias", {'C'});
    void* scratch = workspace_of(call, in, workspace);
    call.run([&] { cpu::batch_norm_backward(gradient, in, s, w, b, {eps, relu}, batch, out, totals); },
             [&](void* stream) { cuda::batch_norm_backward(gradient, in, s, w, b, {eps, relu}, batch, out, totals, {scratch, stream}); });
}

}  // namespace

void bind_batch_norm(py::module_& m) {
    m.def("batch_norm_workspace", &batch_norm_workspace, py::arg("x"), "Bytes of a workspace on the device of x.");
    m.def("batch_norm", &batch_norm, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("eps"), py::arg("relu"), py::arg("y"),
          py::arg("statistics"), py::arg("workspace") = py::none(), "Normalises channels; statistics are their mean and variance.");
    m.def("batch_norm_apply", &batch_norm_apply, py::arg("x"), py::arg("statistics"), py::arg("weight"), py::arg("bias"), py::arg("eps"),
          py::arg("relu"), py::arg("y"), "The same with given statistics.");
    m.def("batch_norm_backward", &batch_norm_backward, py::arg("g"), py::arg("x"), py::arg("statistics"), py::arg("weight"),
          py::arg("bias"), py::arg("eps"), py::arg("relu"), py::arg("batch"), py::arg("dx"), py::arg("sums"),
          py::arg("workspace") = py::none(), "Gradients of x and, in sums, of bias and weight; batch: the statistics are those of x.");
}

}  // namespace isotypic
