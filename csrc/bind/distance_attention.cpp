#include "ops/distance_attention.hpp"

#include <pybind11/stl.h>

#include <array>

#include "bind/call.hpp"

namespace isotypic {
namespace {

constexpr const char* kWhat =
    "queries (B, Nq, heads C, 16) and (B, Nq, heads S), keys and values (B, Nk, key_heads C, 16) and (B, Nk, key_heads S) of one dtype, "
    "float32 or float64, with channels next to each other";

using Tensors = std::vector<py::handle>;

// Items of multivectors or scalars whose channels lie next to each other.
bool is_items(const View& v, int64_t batch, int64_t items, int64_t heads) {
    const int axes = v.ndim;
    if ((axes != 3 && axes != 4) || v.sizes[0] != batch || v.sizes[1] != items || v.sizes[2] % heads) return false;
    if (axes == 4 && v.sizes[3] != 16) return false;
    if (v.numel() == 0) return true;
    const bool last = axes == 3 ? (v.sizes[2] == 1 || v.strides[2] == 1) : (v.strides[3] == 1 && (v.sizes[2] == 1 || v.strides[2] == 16));
    return last && v.strides[0] >= 0 && v.strides[1] >= 0;
}

View contiguous(Call& call, py::handle handle, const char* argument) {
    const View view = call.unshaped(handle, argument);
    call.require(is_contiguous(view), "results and gradients must be contiguous");
    return view;
}

// tensors: q_mv, k_mv, v_mv, q_s, k_s, v_s, mv, s, lse
AttentionCall arguments(Call& call, const Tensors& tensors, py::handle weight, py::handle mask, py::handle ranges, int heads,
                        const std::array<double, 16>& signs, bool distance, double scale) {
    AttentionCall a;
    call.require(tensors.size() == 9 && heads > 0, "there must be nine tensors and at least one head");
    View* places[] = {&a.q_mv, &a.k_mv, &a.v_mv, &a.q_s, &a.k_s, &a.v_s, &a.mv, &a.s, &a.lse};
    constexpr const char* names[] = {"q_mv", "k_mv", "v_mv", "q_s", "k_s", "v_s", "mv", "s", "lse"};
    for (size_t i = 0; i < 9; ++i) *places[i] = i < 6 ? call.unshaped(tensors[i], names[i]) : contiguous(call, tensors[i], names[i]);
    a.weight = weight.is_none() ? View{} : contiguous(call, weight, "weight");
    AttentionSettings& settings = a.settings;
    settings.heads = heads;
    settings.distance = distance;
    settings.scale = scale;
    for (int i = 0; i < 16; ++i)
        if (signs[static_cast<size_t>(i)] != 0)
            settings.index[settings.inner] = i, settings.sign[settings.inner++] = signs[static_cast<size_t>(i)];
    call.require(a.q_mv.ndim == 4 && a.k_mv.ndim == 4 && a.q_s.ndim == 3 && a.k_s.ndim == 3, kWhat);
    const bool shared = a.k_mv.sizes[2] * heads == a.q_mv.sizes[2] && a.k_s.sizes[2] * heads == a.q_s.sizes[2];
    settings.key_heads = shared ? 1 : heads;
    const int64_t batch = a.q_mv.sizes[0], queries = a.q_mv.sizes[1], keys = a.k_mv.sizes[1], times = heads / settings.key_heads;
    bool fits = itemsize(a.q_mv.dtype) >= 4 && a.v_mv.ndim == 4 && a.v_s.ndim == 3 && a.mv.ndim == 4 && a.s.ndim == 3 && a.lse.ndim == 3;
    for (const View* v : {&a.q_mv, &a.q_s, &a.mv, &a.s}) fits = fits && is_items(*v, batch, queries, heads);
    for (const View* v : {&a.k_mv, &a.k_s, &a.v_mv, &a.v_s}) fits = fits && is_items(*v, batch, keys, settings.key_heads);
    fits = fits && a.k_mv.sizes[2] * times == a.q_mv.sizes[2] && a.k_s.sizes[2] * times == a.q_s.sizes[2];
    fits = fits && a.mv.sizes[2] == a.v_mv.sizes[2] * times && a.s.sizes[2] == a.v_s.sizes[2] * times;
    fits = fits && a.lse.sizes[0] == batch && a.lse.sizes[1] == heads && a.lse.sizes[2] == queries;
    fits =
        fits && (!a.weight.defined() || (a.weight.ndim == 2 && a.weight.sizes[0] == heads && a.weight.sizes[1] == a.q_mv.sizes[2] / heads));
    call.require(fits, kWhat);
    a.mask = reinterpret_cast<const uint8_t*>(call.values<bool>(mask, "mask", {batch, queries, keys}));
    a.ranges = call.values<int32_t>(ranges, "ranges", {batch, queries, 2});
    return a;
}

void distance_attention(const Tensors& tensors, py::handle weight, py::handle mask, py::handle ranges, int heads,
                        const std::array<double, 16>& signs, bool distance, double scale) {
    Call call("distance_attention");
    const AttentionCall a = arguments(call, tensors, weight, mask, ranges, heads, signs, distance, scale);
    call.run([&] { cpu::distance_attention(a); }, [&](void* stream) { cuda::distance_attention(a, stream); });
}

// gradients: g_mv, g_s and those of q_mv, k_mv, v_mv, q_s, k_s, v_s, weight
void distance_attention_backward(const Tensors& tensors, const Tensors& gradients, py::handle weight, py::handle mask, py::handle ranges,
                                 py::handle workspace, int heads, const std::array<double, 16>& signs, bool distance, double scale) {
    Call call("distance_attention_backward");
    const AttentionCall a = arguments(call, tensors, weight, mask, ranges, heads, signs, distance, scale);
    call.require(gradients.size() == 9, "there must be nine gradients");
    AttentionGradients g;
    View* places[] = {&g.g_mv, &g.g_s, &g.q_mv, &g.k_mv, &g.v_mv, &g.q_s, &g.k_s, &g.v_s, &g.weight};
    const View* like[] = {&a.mv, &a.s, &a.q_mv, &a.k_mv, &a.v_mv, &a.q_s, &a.k_s, &a.v_s};
    for (size_t i = 0; i < 9; ++i) *places[i] = contiguous(call, gradients[i], "gradients");
    for (size_t i = 0; i < 8; ++i)
        for (int axis = 0; axis < like[i]->ndim; ++axis)
            call.require(places[i]->ndim == like[i]->ndim && places[i]->sizes[axis] == like[i]->sizes[axis],
                         "gradients must have the shapes");
    call.require(g.weight.numel() == a.q_mv.sizes[2], "the gradient of weight must have shape (heads, C)");
    const View space = call.optional(workspace, "workspace", {'W'});
    call.run([&] { cpu::distance_attention_backward(a, g); },
             [&](void* stream) {
                 const int64_t needed = cuda::attention_workspace(a.q_mv.sizes[0], a.q_mv.sizes[1], a.q_mv.sizes[2]);
                 call.require(space.numel() >= needed, "the workspace is too small");
                 cuda::distance_attention_backward(a, g, space, stream);
             });
}

}  // namespace

void bind_distance_attention(py::module_& m) {
    m.def("distance_attention", &distance_attention, py::arg("tensors"), py::arg("weight"), py::arg("mask"), py::arg("ranges"),
          py::arg("heads"), py::arg("signs"), py::arg("distance"), py::arg("scale"),
          "attention of q_mv, k_mv, v_mv, q_s, k_s, v_s into mv, s, lse");
    m.def("distance_attention_backward", &distance_attention_backward, py::arg("tensors"), py::arg("gradients"), py::arg("weight"),
          py::arg("mask"), py::arg("ranges"), py::arg("workspace"), py::arg("heads"), py::arg("signs"), py::arg("distance"),
          py::arg("scale"), "the gradients of distance_attention");
}

}  // namespace isotypic
