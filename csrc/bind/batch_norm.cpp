#include "ops/batch_norm.hpp"

#include <cstring>
#include <vector>

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

// Of contiguous x with any axes, with the statistics where a layer keeps them: the call of a network in use. On the CPU.
void batch_norm_eval(py::handle x, py::handle mean, py::handle var, py::handle weight, py::handle bias, double eps, bool relu, int axis,
                     py::handle y) {
    Call call("batch_norm_eval", Floats::all);
    const View given = call.unshaped(x, "x"), result = call.unshaped(y, "y");
    call.require(axis >= 0 && axis < given.ndim && given.numel() > 0, "x must have an element, and the axis");
    bool fits = given.ndim == result.ndim && is_contiguous(given) && is_contiguous(result);
    for (int i = 0; fits && i < given.ndim; ++i) fits = given.sizes[i] == result.sizes[i];
    call.require(fits, "x and y must be contiguous and of one shape");
    View in, out;
    in.dtype = given.dtype, in.data = given.data, in.ndim = 3;
    for (int i = 0; i < 3; ++i) in.sizes[i] = 1;
    for (int i = 0; i < given.ndim; ++i) in.sizes[i < axis ? 0 : i == axis ? 1 : 2] *= given.sizes[i];
    in.strides[2] = 1, in.strides[1] = in.sizes[2], in.strides[0] = in.sizes[1] * in.sizes[2];
    out = in, out.data = result.data;
    const int64_t channels = in.sizes[1];
    const View m = call.wide(mean, "mean", {channels}), v = call.wide(var, "var", {channels});
    const View w = call.optional_wide(weight, "weight", {channels}), b = call.optional_wide(bias, "bias", {channels});
    const size_t bytes = static_cast<size_t>(channels) * static_cast<size_t>(itemsize(m.dtype));
    std::vector<char> both(2 * bytes);
    std::memcpy(both.data(), m.data, bytes), std::memcpy(both.data() + bytes, v.data, bytes);
    View s;
    s.dtype = m.dtype, s.data = both.data(), s.ndim = 2, s.sizes[0] = 2, s.sizes[1] = channels, s.strides[0] = channels, s.strides[1] = 1;
    call.run([&] { cpu::batch_norm_apply(in, s, w, b, {eps, relu}, out); });
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
    m.def("batch_norm_eval", &batch_norm_eval, py::arg("x"), py::arg("mean"), py::arg("var"), py::arg("weight"), py::arg("bias"),
          py::arg("eps"), py::arg("relu"), py::arg("axis"), py::arg("y"), "The same of x with any axes, on the CPU.");
    m.def("batch_norm_backward", &batch_norm_backward, py::arg("g"), py::arg("x"), py::arg("statistics"), py::arg("weight"),
          py::arg("bias"), py::arg("eps"), py::arg("relu"), py::arg("batch"), py::arg("dx"), py::arg("sums"),
          py::arg("workspace") = py::none(), "Gradients of x and, in sums, of bias and weight; batch: the statistics are those of x.");
}

}  // namespace isotypic
