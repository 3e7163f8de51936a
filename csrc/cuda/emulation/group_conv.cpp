// group_conv.
#include "cuda/emulation/module.hpp"

#include <pybind11/numpy.h>

#include "cuda/group_conv.cu"
#include "cuda/group_conv_tables.cpp"
#include "ops/group_conv_plan.cpp"

namespace isotypic {
using namespace emulation;
namespace {

template <class T>
std::vector<T> to_vector(const py::handle& object) {
    const auto array = py::cast<py::array_t<T, py::array::c_style | py::array::forcecast>>(object);
    return std::vector<T>(array.data(), array.data() + array.size());
}

struct Tables {
    GroupConvPlan plan;
    std::vector<std::byte> bytes;
};

std::unique_ptr<Tables> make_tables(const std::string& fourier, int order, int sources, int64_t weight_size, const py::handle& irreps,
                                    const py::handle& synthesis, const py::list& orbits) {
    auto tables = std::make_unique<Tables>();
    GroupConvPlan& plan = tables->plan;
    plan.fourier = fourier, plan.order = order, plan.sources = sources, plan.weight_size = weight_size;
    const std::vector<int> pairs = to_vector<int>(irreps);
    for (size_t i = 0; i < pairs.size(); i += 2) plan.irreps.push_back({pairs[i], pairs[i + 1]});
    plan.synthesis = to_vector<double>(synthesis);
    for (const py::handle& item : orbits) {
        TapOrbit orbit;
        orbit.source = to_vector<int>(item.attr("source"));
        orbit.length = static_cast<int>(orbit.source.size());
        orbit.tap = to_vector<int>(item.attr("tap"));
        orbit.inner = to_vector<int>(item.attr("inner"));
        orbit.analysis = to_vector<double>(item.attr("analysis"));
        orbit.weight_index = to_vector<int64_t>(item.attr("weight_index"));
        orbit.weight_matrix = to_vector<double>(item.attr("weight_matrix"));
        orbit.adjoint_index = to_vector<int64_t>(item.attr("adjoint_index"));
        plan.orbits.push_back(std::move(orbit));
    }
    plan.finalize();
    tables->bytes = cuda::plan_tables(plan);
    return tables;
}

int dtype_of(const Tensor& tensor) {
    return std::get<1>(*tensor);
}

using Axes = std::array<int64_t, 3>;

GroupConvSizes make_sizes(int64_t batch, int64_t in_fields, int64_t out_fields, int64_t groups, const std::array<Axes, 6>& axes) {
    GroupConvSizes sizes;
    sizes.batch = batch, sizes.in_fields = in_fields, sizes.out_fields = out_fields, sizes.groups = groups;
    int64_t* targets[6] = {sizes.in_size, sizes.out_size, sizes.kernel, sizes.stride, sizes.padding, sizes.dilation};
    for (int i = 0; i < 6; ++i) std::copy(axes[i].begin(), axes[i].end(), targets[i]);
    return sizes;
}

int64_t workspace(const Tables& tables, const GroupConvSizes& sizes, int dtype, int pass) {
    return cuda::group_conv_workspace(tables.plan, sizes, static_cast<DType>(dtype), static_cast<cuda::Pass>(pass));
}

// Calls run(context) with scratch of exactly the size that the pass asks for.
template <class Run>
void with_context(const Tables& t, const GroupConvSizes& sizes, int dtype, int pass, bool allow_tf32, const Run& run) {
    const int64_t bytes = workspace(t, sizes, dtype, pass);
    const Workspace scratch(bytes);
    run(cuda::Context{t.bytes.data(), scratch.data, bytes, nullptr, allow_tf32});
    scratch.check();
}

void forward(const Tables& t, const GroupConvSizes& sizes, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y,
             bool allow_tf32) {
    with_context(t, sizes, dtype_of(x), 0, allow_tf32, [&](const cuda::Context& context) {
        cuda::group_conv(t.plan, sizes, to_view(x), to_view(weight), to_view(bias), to_view(y), context);
    });
}

void transpose(const Tables& t, const GroupConvSizes& sizes, const Tensor& y, const Tensor& weight, const Tensor& x, bool allow_tf32) {
    with_context(t, sizes, dtype_of(y), 1, allow_tf32, [&](const cuda::Context& context) {
        cuda::group_conv_transpose(t.plan, sizes, to_view(y), to_view(weight), to_view(x), context);
    });
}

void weight_gradient(const Tables& t, const GroupConvSizes& sizes, const Tensor& x, const Tensor& y, const Tensor& weight,
                     bool allow_tf32) {
    with_context(t, sizes, dtype_of(x), 2, allow_tf32, [&](const cuda::Context& context) {
        cuda::group_conv_weight(t.plan, sizes, to_view(x), to_view(y), to_view(weight), context);
    });
}

}  // namespace

PYBIND11_MODULE(emulated_group_conv, m) {
    py::class_<Tables>(m, "Tables")
        .def(py::init(&make_tables), py::arg("fourier"), py::arg("order"), py::arg("sources"), py::arg("weight_size"), py::arg("irreps"),
             py::arg("synthesis"), py::arg("orbits"))
        .def_property_readonly("size", [](const Tables& t) { return t.bytes.size(); });
    // Local to this module: isotypic._C has its own class for these sizes.
    py::class_<GroupConvSizes>(m, "Sizes", py::module_local()).def(py::init(&make_sizes));
    m.def("workspace", &workspace);
    m.def("group_conv", &forward);
    m.def("group_conv_transpose", &transpose);
    m.def("group_conv_weight", &weight_gradient);
    define_configure(m);
}

}  // namespace isotypic
