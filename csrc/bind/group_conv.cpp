// Python to kernels for group_conv: the last line of defence. What the Python side promised (ops/fields/_arguments.py words the errors) is checked
// again, because a wrong shape here would be a wild read.
#include "ops/group_conv.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <map>

#include "bind/call.hpp"
#include "bind/kept.hpp"

namespace isotypic {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
using Sizes = std::array<int64_t, 3>;

template <class T>
std::vector<T> to_vector(const Array<T>& array) {
    return std::vector<T>(array.data(), array.data() + array.size());
}

std::shared_ptr<GroupConvPlan> make_plan(const std::string& fourier, int order, int sources, int64_t weight_size, const Array<int>& irreps,
                                         const Array<double>& synthesis, const py::list& orbits) {
    auto plan = std::make_shared<GroupConvPlan>();
    plan->fourier = fourier;
    plan->order = order;
    plan->sources = sources;
    plan->weight_size = weight_size;
    if (irreps.ndim() != 2 || irreps.shape(1) != 2) throw py::value_error("GroupConvPlan: irreps must have shape (n, 2)");
    for (py::ssize_t i = 0; i < irreps.shape(0); ++i) plan->irreps.push_back({irreps.at(i, 0), irreps.at(i, 1)});
    plan->synthesis = to_vector(synthesis);
    for (const py::handle& item : orbits) {
        const auto entry = py::cast<py::tuple>(item);
        if (entry.size() != 7)
            throw py::value_error("GroupConvPlan: an orbit is (source, tap, inner, analysis, weight_index, weight_matrix, adjoint_index)");
        TapOrbit orbit;
        orbit.source = to_vector(py::cast<Array<int>>(entry[0]));
        orbit.length = static_cast<int>(orbit.source.size());
        orbit.tap = to_vector(py::cast<Array<int>>(entry[1]));
        orbit.inner = to_vector(py::cast<Array<int>>(entry[2]));
        orbit.analysis = to_vector(py::cast<Array<double>>(entry[3]));
        orbit.weight_index = to_vector(py::cast<Array<int64_t>>(entry[4]));
        orbit.weight_matrix = to_vector(py::cast<Array<double>>(entry[5]));
        orbit.adjoint_index = to_vector(py::cast<Array<int64_t>>(entry[6]));
        plan->orbits.push_back(std::move(orbit));
    }
    plan->finalize();
    return plan;
}

GroupConvSizes make_sizes(int64_t batch, int64_t in_fields, int64_t out_fields, int64_t groups, const Sizes& in_size, const Sizes& out_size,
                          const Sizes& kernel, const Sizes& stride, const Sizes& padding, const Sizes& dilation) {
    GroupConvSizes sizes;
    sizes.batch = batch, sizes.in_fields = in_fields, sizes.out_fields = out_fields, sizes.groups = groups;
    if (groups < 1 || in_fields % groups || out_fields % groups)
        throw py::value_error("GroupConvSizes: groups must divide in_fields and out_fields");
    for (int i = 0; i < 3; ++i) {
        sizes.in_size[i] = in_size[i], sizes.out_size[i] = out_size[i], sizes.kernel[i] = kernel[i];
        sizes.stride[i] = stride[i], sizes.padding[i] = padding[i], sizes.dilation[i] = dilation[i];
        if (stride[i] < 1 || dilation[i] < 1 || kernel[i] < 1 || in_size[i] < 0 || out_size[i] < 0)
            throw py::value_error("GroupConvSizes: sizes must not be negative; kernel, stride and dilation must be positive");
    }
    return sizes;
}

[[noreturn]] void mismatch(const char* what) {
    throw py::value_error(std::string("group_conv kernel: ") + what + " does not fit the plan and sizes");
}

// (B, C[, group], *spatial) as (B, C, group, s0, s1, s2); one and two spatial axes become (1, 1, W) and (H, 1, W).
View field_view(const View& view, int spatial, int64_t fields, int64_t group, int64_t batch, const int64_t size[3], const char* name) {
    const bool has_group = view.ndim == spatial + 3;
    if (!has_group && (view.ndim != spatial + 2 || group != 1)) mismatch(name);
    View out = view;
    out.ndim = 6;
    for (int i = 2; i < 6; ++i) out.sizes[i] = 1, out.strides[i] = 0;
    if (has_group) out.sizes[2] = view.sizes[2], out.strides[2] = view.strides[2];
    const int first = view.ndim - spatial, target[3][3] = {{5, 0, 0}, {3, 5, 0}, {3, 4, 5}};
    for (int i = 0; i < spatial; ++i)
        out.sizes[target[spatial - 1][i]] = view.sizes[first + i], out.strides[target[spatial - 1][i]] = view.strides[first + i];
    const bool fits = out.sizes[0] == batch && out.sizes[1] == fields && out.sizes[2] == group && out.sizes[3] == size[0] &&
                      out.sizes[4] == size[1] && out.sizes[5] == size[2];
    if (!fits) mismatch(name);
    return out;
}

// A field without positions, (B, C, group), as one whose samples are the positions of one row: (1, C, group, 1, 1, B).
View row_view(const View& view, const int64_t expected[3], const char* name) {
    View out = view;
    out.ndim = 6;
    for (int i = 0; i < 6; ++i) out.sizes[i] = 1, out.strides[i] = 0;
    const int from[3] = {1, 2, 0}, to[3] = {1, 2, 5};
    bool fits = view.ndim == 3;
    for (int i = 0; fits && i < 3; ++i) {
        out.sizes[to[i]] = view.sizes[from[i]], out.strides[to[i]] = view.strides[from[i]];
        fits = out.sizes[to[i]] == expected[i];
    }
    if (!fits) mismatch(name);
    return out;
}

// The tensors of a call, as fields on three axes. What is written is contiguous as such: without positions it lies in memory as (C, |G|, B).
struct GroupConvCall : Call {
    View x, weight, bias, y;
    cuda::Context context;

    GroupConvCall(const char* name, const GroupConvPlan& plan, const GroupConvSizes& sizes, py::handle x_, py::handle weight_,
                  py::handle bias_, py::handle y_, bool writes_x, py::handle context_)
        : Call(name, Floats::all) {
        for (int i = 0; i < 3; ++i)
            if (plan.last_tap[i] >= sizes.kernel[i]) mismatch("the kernel of the sizes");
        const View given_x = unshaped(x_, "x"), given_y = unshaped(y_, "y");
        const int spatial = given_y.ndim - 3;
        if (spatial < 0 || spatial > 3) mismatch("y");
        if (spatial == 0) {
            if (sizes.batch != 1) mismatch("y");
            const int64_t of_x[3] = {sizes.in_fields, plan.sources, sizes.in_size[2]},
                          of_y[3] = {sizes.out_fields, plan.order, sizes.out_size[2]};
            x = row_view(given_x, of_x, "x"), y = row_view(given_y, of_y, "y");
        } else {
            x = field_view(given_x, spatial, sizes.in_fields, plan.sources, sizes.batch, sizes.in_size, "x");
            y = field_view(given_y, spatial, sizes.out_fields, plan.order, sizes.batch, sizes.out_size, "y");
        }
        weight = unshaped(weight_, "weight");
        if (weight.numel() != sizes.out_fields * (sizes.in_fields / sizes.groups) * plan.weight_size || !is_contiguous(weight))
            mismatch("weight");
        if (!is_contiguous(y)) mismatch("the memory layout of y");
        if (writes_x && !is_contiguous(x)) mismatch("the memory layout of x");
        bias = optional(bias_, "bias", {sizes.out_fields});
        if (!on_cuda()) return;
        if (!kWithCuda) refuse_cuda(name);
        const auto [tables, workspace, allow_tf32] = py::cast<std::tuple<py::object, py::object, bool>>(context_);
        const Buffer read = buffer(tables, "tables"), scratch = buffer(workspace, "workspace");
        context = {read.data, scratch.data, scratch.bytes, nullptr, allow_tf32};
    }
    cuda::Context on(void* stream) const {
        cuda::Context queued = context;
        queued.stream = stream;
        return queued;
    }
};

void forward(const GroupConvPlan& plan, const GroupConvSizes& sizes, py::handle x, py::handle weight, py::handle bias, py::handle y,
             py::handle kept, py::handle context) {
    const GroupConvCall a("group_conv", plan, sizes, x, weight, bias, y, false, context);
    // Not a pointer among the arguments: for None pybind11 looks whether NoneType comes from another module, which takes half a
    // microsecond.
    cpu::GroupConvBlocks* blocks = kept.is_none() ? nullptr : kept.cast<cpu::GroupConvBlocks*>();
    a.run([&] { cpu::group_conv(plan, sizes, a.x, a.weight, a.bias, a.y, blocks); },
          [&](void* stream) { cuda::group_conv(plan, sizes, a.x, a.weight, a.bias, a.y, a.on(stream)); });
}

void transpose(const GroupConvPlan& plan, const GroupConvSizes& sizes, py::handle y, py::handle weight, py::handle x, py::handle context) {
    const GroupConvCall a("group_conv_transpose", plan, sizes, x, weight, py::none(), y, true, context);
    a.run([&] { cpu::group_conv_transpose(plan, sizes, a.y, a.weight, a.x); },
          [&](void* stream) { cuda::group_conv_transpose(plan, sizes, a.y, a.weight, a.x, a.on(stream)); });
}

void weight_gradient(const GroupConvPlan& plan, const GroupConvSizes& sizes, py::handle x, py::handle y, py::handle weight,
                     py::handle context) {
    const GroupConvCall a("group_conv_weight", plan, sizes, x, weight, py::none(), y, false, context);
    a.run([&] { cpu::group_conv_weight(plan, sizes, a.x, a.y, a.weight); },
          [&](void* stream) { cuda::group_conv_weight(plan, sizes, a.x, a.y, a.weight, a.on(stream)); });
}

py::array_t<uint8_t> tables(const GroupConvPlan& plan) {
    if constexpr (kWithCuda) {
        const std::vector<std::byte> bytes = cuda::plan_tables(plan);
        return py::array_t<uint8_t>(static_cast<py::ssize_t>(bytes.size()), reinterpret_cast<const uint8_t*>(bytes.data()));
    }
    refuse_cuda("group_conv_tables");
}

int64_t workspace(const GroupConvPlan& plan, const GroupConvSizes& sizes, const std::string& dtype, const std::string& kernel) {
    static const std::map<std::string, DType> dtypes = {
        {"float32", DType::float32}, {"float64", DType::float64}, {"bfloat16", DType::bfloat16}, {"float16", DType::float16}};
    static const std::map<std::string, cuda::Pass> passes = {
        {"group_conv", cuda::Pass::forward}, {"group_conv_transpose", cuda::Pass::transpose}, {"group_conv_weight", cuda::Pass::weight}};
    const auto found_dtype = dtypes.find(dtype);
    const auto found_pass = passes.find(kernel);
    if (found_dtype == dtypes.end())
        throw py::value_error("group_conv_workspace: dtype must be float32, float64, bfloat16 or float16, got " + dtype);
    if (found_pass == passes.end())
        throw py::value_error("group_conv_workspace: kernel must be the name of one of the three, got " + kernel);
    if constexpr (kWithCuda) return cuda::group_conv_workspace(plan, sizes, found_dtype->second, found_pass->second);
    refuse_cuda("group_conv_workspace");
}

}  // namespace

void bind_group_conv(py::module_& m) {
    py::class_<GroupConvPlan, std::shared_ptr<GroupConvPlan>>(
        m, "GroupConvPlan", "The part of a group convolution that depends on group, field and kernel box.")
        .def(py::init(&make_plan), py::arg("fourier"), py::arg("order"), py::arg("sources"), py::arg("weight_size"), py::arg("irreps"),
             py::arg("synthesis"), py::arg("orbits"));
    py::class_<GroupConvSizes>(m, "GroupConvSizes", "Sizes of one call, with three spatial axes.")
        .def(py::init(&make_sizes), py::arg("batch"), py::arg("in_fields"), py::arg("out_fields"), py::arg("groups"), py::arg("in_size"),
             py::arg("out_size"), py::arg("kernel"), py::arg("stride"), py::arg("padding"), py::arg("dilation"));
    bind_kept<cpu::GroupConvBlocks>(
        m, "GroupConvBlocks", "What the CPU kernel makes of a weight, kept while the weight stays the same. Copied and pickled empty.");
    m.def("group_conv", &forward, py::arg("plan"), py::arg("sizes"), py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("y"),
          py::arg("kept") = py::none(), py::arg("context") = py::none(), "y = x * weight + bias; kept: a GroupConvBlocks");
    m.def("group_conv_transpose", &transpose, py::arg("plan"), py::arg("sizes"), py::arg("y"), py::arg("weight"), py::arg("x"),
          py::arg("context") = py::none(), "adjoint in x");
    m.def("group_conv_weight", &weight_gradient, py::arg("plan"), py::arg("sizes"), py::arg("x"), py::arg("y"), py::arg("weight"),
          py::arg("context") = py::none(), "adjoint in weight");
    m.def("group_conv_tables", &tables, py::arg("plan"), "The plan as the CUDA kernels read it, once copied to the device.");
    m.def("group_conv_workspace", &workspace, py::arg("plan"), py::arg("sizes"), py::arg("dtype"), py::arg("kernel"),
          "Bytes of scratch that a call of the kernel of this name needs on the current device.");
}

}  // namespace isotypic
