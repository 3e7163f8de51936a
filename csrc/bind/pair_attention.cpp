#include "ops/pair_attention.hpp"

#include <pybind11/stl.h>

#include <vector>

#include "bind/call.hpp"

namespace isotypic {
namespace {

using Tensors = std::vector<py::object>;  // q, k, v, x_q, x_k, w1, b1, w2, b2, w3, b3

PairAttentionCall read(Call& call, const Tensors& tensors, const py::object& mask, bool mix, bool softmax, int difference) {
    call.require(tensors.size() == 11 && difference >= 0 && difference <= 2, "there must be 11 tensors and a known difference");
    PairAttentionCall c;
    c.mix = mix, c.softmax = softmax, c.difference = static_cast<PairDifference>(difference);
    c.q = call.tensor(tensors[0], "q", {'B', 'H', 'Q', 'D'});
    c.k = call.tensor(tensors[1], "k", {'B', 'H', 'K', 'D'});
    c.v = call.tensor(tensors[2], "v", {'B', 'H', 'K', 'D'});
    int64_t inputs = mix ? call.size('H') : 0;
    if (c.difference != PairDifference::none) {
        c.x_q = call.tensor(tensors[3], "x_q", {'B', 'Q', 'd'});
        c.x_k = call.tensor(tensors[4], "x_k", {'B', 'K', 'd'});
        inputs += c.difference == PairDifference::vector ? call.size('d') : 1;
    }
    c.w1 = call.tensor(tensors[5], "W1", {'V', inputs});
    c.b1 = call.tensor(tensors[6], "b1", {'V'});
    c.w2 = call.tensor(tensors[7], "W2", {'W', 'V'});
    c.b2 = call.tensor(tensors[8], "b2", {'W'});
    c.w3 = call.tensor(tensors[9], "W3", {'H', 'W'});
    c.b3 = call.tensor(tensors[10], "b3", {'H'});
    c.mask = reinterpret_cast<const uint8_t*>(call.values<bool>(mask, "mask", {'B', 'M', 'K'}));
    if (c.mask) c.mask_rows = call.size('M');
    call.require(!c.mask || c.mask_rows == 1 || c.mask_rows == call.size('Q'), "mask must have 1 or N_q rows");
    return c;
}

void pair_attention(const Tensors& tensors, const py::object& mask, bool mix, bool softmax, int difference, py::handle out) {
    Call call("pair_attention");
    const PairAttentionCall c = read(call, tensors, mask, mix, softmax, difference);
    const View result = call.tensor(out, "out", {'B', 'H', 'Q', c.out_width()});
    call.run([&] { cpu::pair_attention(c, result); }, [&](void* stream) { cuda::pair_attention(c, result, stream); });
}

int64_t pair_attention_workspace(const Tensors& tensors, const py::object& mask, bool mix, bool softmax, int difference) {
    Call call("pair_attention_workspace");
    const PairAttentionCall c = read(call, tensors, mask, mix, softmax, difference);
    int64_t bytes = 0;
    call.run([] {}, [&](void*) { bytes = cuda::pair_attention_workspace(c); });
    return bytes;
}

void pair_attention_gradient(const Tensors& tensors, const py::object& mask, bool mix, bool softmax, int difference, py::handle out,
                             py::handle grad, py::handle result, py::handle workspace) {
    Call call("pair_attention_gradient");
    const PairAttentionCall c = read(call, tensors, mask, mix, softmax, difference);
    const View values = call.tensor(out, "out", {'B', 'H', 'Q', c.out_width()});
    const View incoming = call.tensor(grad, "grad", {'B', 'H', 'Q', c.out_width()});
    const View flat = call.tensor(result, "result", {c.gradient_size()});
    const Buffer buffer = call.buffer(workspace, "workspace");
    call.run([&] { cpu::pair_attention_gradient(c, values, incoming, flat); },
             [&](void* stream) { cuda::pair_attention_gradient(c, values, incoming, flat, buffer.data, stream); });
}

}  // namespace

void bind_pair_attention(py::module_& m) {
    m.def("pair_attention", &pair_attention, py::arg("tensors"), py::arg("mask"), py::arg("mix"), py::arg("softmax"), py::arg("difference"),
          py::arg("out"), "attention with an MLP on each pair");
    m.def("pair_attention_workspace", &pair_attention_workspace, py::arg("tensors"), py::arg("mask"), py::arg("mix"), py::arg("softmax"),
          py::arg("difference"), "bytes that the gradient needs on a device");
    m.def("pair_attention_gradient", &pair_attention_gradient, py::arg("tensors"), py::arg("mask"), py::arg("mix"), py::arg("softmax"),
          py::arg("difference"), py::arg("out"), py::arg("grad"), py::arg("result"), py::arg("workspace") = py::none(),
          "the gradients of pair_attention, one behind the other");
}

}  // namespace isotypic
