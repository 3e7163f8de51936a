// Python to kernels for the weight-space operators: what the Python side promised is checked again, because a wrong shape here would be a
// wild read.
#include "ops/weight_linear.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <initializer_list>
#include <map>
#include <optional>
#include <vector>

#include "bind/call.hpp"
#include "bind/kept.hpp"
#include "bind/weight_linear_plan.hpp"

namespace isotypic {
namespace {

// A call whose tensors have the plan's shapes: weights (B, P, C), and what belongs to their plan.
class WeightCall : public Call {
  public:
    WeightCall(const char* name, const WeightPlan& plan) : Call(name, Floats::all), plan_(plan) {}

    View weights(py::handle handle, const char* argument, char channels) {
        return tensor(handle, argument, {'B', plan_.entries, channels});
    }
    View pooled(py::handle handle, const char* argument, char channels) { return tensor(handle, argument, {'B', plan_.rows, channels}); }
    // (q, d_0), undefined where the plan has none.
    View basis(py::handle handle, const char* argument) {
        require(handle.is_none() == (plan_.rank == 0), "a basis must be given where the plan has one, and only there");
        return optional(handle, argument, {plan_.rank, plan_.widths[0]});
    }
    // The widths of each network, or null. Those on a device are not looked at here: kernels keep within the plan's widths.
    const int64_t* sizes(py::handle handle) {
        const int labels = plan_.layers + 1;
        const int64_t* values = this->values<int64_t>(handle, "sizes", {'B', labels});
        if (!values || on_cuda()) return values;
        for (int64_t i = 0; i < size('B') * labels; ++i) {
            const int label = static_cast<int>(i % labels), most = plan_.widths[label];
            const bool fixed = plan_.nodes_of[label] < 0;
            if (values[i] < (fixed ? most : 1) || values[i] > most)
                throw py::value_error(std::string(name()) + ": sizes must be " + (fixed ? "" : "between 1 and ") + std::to_string(most) +
                                      " at label " + std::to_string(label) + (fixed ? ", whose axis is fixed" : "") + ", got " +
                                      std::to_string(values[i]) + " for network " + std::to_string(i / labels));
        }
        return values;
    }
    // Scratch of a pass on a device, as large as it needs; of kernels that need none, where there is no pass.
    Buffer scratch(py::handle workspace, std::optional<cuda::WeightPass> pass = {}, int64_t in_channels = 0, int64_t out_channels = 0) {
        const Buffer found = buffer(workspace, "workspace");
        if constexpr (kWithCuda)
            require(!on_cuda() || !pass ||
                        found.bytes >= cuda::weight_linear_workspace(plan_, *pass, size('B'), in_channels, out_channels, dtype()),
                    "the workspace is too small");
        return found;
    }

  private:
    const WeightPlan& plan_;
};

void pool(const WeightPlan& plan, py::handle x, py::handle basis, py::handle sizes, bool mean, py::handle pooled, py::handle workspace) {
    WeightCall call("weight_pool", plan);
    const View in = call.weights(x, "x", 'C'), features = call.basis(basis, "basis"), out = call.pooled(pooled, "pooled", 'C');
    const int64_t* widths = call.sizes(sizes);
    const Buffer scratch = call.scratch(workspace);
    call.run([&] { cpu::weight_pool(plan, in, features, widths, mean, out); },
             [&](void* stream) { cuda::weight_pool(plan, in, features, widths, mean, out, {scratch.data, scratch.bytes, stream}); });
}

void affine(const WeightPlan& plan, py::handle x, py::handle mix, py::handle terms, py::handle basis, py::handle sizes, bool mean,
            py::handle y, py::handle workspace) {
    WeightCall call("weight_affine", plan);
    call.require(x.is_none() == mix.is_none(), "x and mix must be given together");
    call.require(terms.is_none() || !plan.rank || !basis.is_none(), "terms of a plan with a basis need the basis");
    const View out = call.weights(y, "y", 'O');
    const View in = x.is_none() ? View{} : call.weights(x, "x", 'C'), matrices = call.optional(mix, "mix", {plan.mixed, 'C', 'O'});
    const View added = terms.is_none() ? View{} : call.pooled(terms, "terms", 'O');
    const View features = call.optional(basis, "basis", {plan.rank, plan.widths[0]});
    const int64_t* widths = call.sizes(sizes);
    const Buffer scratch = call.scratch(workspace);
    call.run([&] { cpu::weight_affine(plan, in, matrices, added, features, widths, mean, out); },
             [&](void* stream) {
                 cuda::weight_affine(plan, in, matrices, added, features, widths, mean, out, {scratch.data, scratch.bytes, stream});
             });
}

void linear(const WeightPlan& plan, py::handle x, py::handle weight, py::handle bias, py::handle project, py::handle expand,
            py::handle sizes, bool mean, py::handle y, py::handle kept, py::handle workspace) {
    WeightCall call("weight_linear", plan);
    const View in = call.weights(x, "x", 'C'), parameters = call.tensor(weight, "weight", {plan.parameters(), 'C', 'O'});
    const View offsets = call.optional(bias, "bias", {plan.global_slots, 'O'}), out = call.weights(y, "y", 'O');
    const View reads = call.basis(project, "project"), writes = call.basis(expand, "expand");
    const int64_t* widths = call.sizes(sizes);
    const Buffer scratch = call.scratch(workspace, cuda::WeightPass::linear, call.size('C'), call.size('O'));
    cpu::WeightMatrices* matrices = kept.is_none() ? nullptr : kept.cast<cpu::WeightMatrices*>();
    call.run([&] { cpu::weight_linear(plan, in, parameters, offsets, reads, writes, widths, mean, out, matrices); },
             [&](void* stream) {
                 cuda::weight_linear(plan, in, parameters, offsets, reads, writes, widths, mean, out,
                                     {scratch.data, scratch.bytes, stream});
             });
}

void linear_transpose(const WeightPlan& plan, py::handle y, py::handle weight, py::handle sizes, bool mean, py::handle x,
                      py::handle workspace) {
    WeightCall call("weight_linear_transpose", plan);
    call.require(!plan.rank, "the plan must have no basis");
    const View in = call.weights(y, "y", 'O'), parameters = call.tensor(weight, "weight", {plan.parameters(), 'C', 'O'});
    const View out = call.weights(x, "x", 'C');
    const int64_t* widths = call.sizes(sizes);
    const Buffer scratch = call.scratch(workspace, cuda::WeightPass::linear, call.size('O'), call.size('C'));
    call.run([&] { cpu::weight_linear_transpose(plan, in, parameters, widths, mean, out); },
             [&](void* stream) {
                 cuda::weight_linear_transpose(plan, in, parameters, widths, mean, out, {scratch.data, scratch.bytes, stream});
             });
}

void linear_gradient(const WeightPlan& plan, py::handle x, py::handle y, py::handle sizes, bool mean, py::handle gradient,
                     py::handle workspace) {
    WeightCall call("weight_linear_gradient", plan);
    call.require(!plan.rank, "the plan must have no basis");
    const View in = call.weights(x, "x", 'C'), out = call.weights(y, "y", 'O');
    const View sum = call.tensor(gradient, "gradient", {plan.parameters() * call.size('C') + plan.global_slots, 'O'});
    const int64_t* widths = call.sizes(sizes);
    const Buffer scratch = call.scratch(workspace, cuda::WeightPass::gradient, call.size('C'), call.size('O'));
    call.run([&] { cpu::weight_linear_gradient(plan, in, out, widths, mean, sum); },
             [&](void* stream) { cuda::weight_linear_gradient(plan, in, out, widths, mean, sum, {scratch.data, scratch.bytes, stream}); });
}

void mix_gradient(const WeightPlan& plan, py::handle x, py::handle y, py::handle sizes, py::handle mix, py::handle workspace) {
    WeightCall call("weight_mix_gradient", plan);
    const View in = call.weights(x, "x", 'C'), out = call.weights(y, "y", 'O'), sum = call.tensor(mix, "mix", {plan.mixed, 'C', 'O'});
    const int64_t* widths = call.sizes(sizes);
    const Buffer scratch = call.scratch(workspace, cuda::WeightPass::mix_gradient, call.size('C'), call.size('O'));
    call.run([&] { cpu::weight_mix_gradient(plan, in, out, widths, sum); },
             [&](void* stream) { cuda::weight_mix_gradient(plan, in, out, widths, sum, {scratch.data, scratch.bytes, stream}); });
}

void basis_gradient(const WeightPlan& plan, py::handle x, py::handle terms, py::handle sizes, bool mean, py::handle basis,
                    py::handle workspace) {
    WeightCall call("weight_basis_gradient", plan);
    call.require(plan.rank > 0, "the plan must have a basis");
    const View in = call.weights(x, "x", 'C'), added = call.pooled(terms, "terms", 'C'), sum = call.basis(basis, "basis");
    const int64_t* widths = call.sizes(sizes);
    const Buffer scratch = call.scratch(workspace);
    call.run([&] { cpu::weight_basis_gradient(plan, in, added, widths, mean, sum); },
             [&](void* stream) { cuda::weight_basis_gradient(plan, in, added, widths, mean, sum, {scratch.data, scratch.bytes, stream}); });
}

void select(const WeightPlan& plan, py::handle values, py::handle x, py::handle sizes, py::handle pooled, py::handle workspace) {
    WeightCall call("weight_select", plan);
    call.require(!plan.rank, "the plan must have no basis");
    const View keys = call.weights(x, "x", 'C'), in = call.weights(values, "values", 'C'), out = call.pooled(pooled, "pooled", 'C');
    const int64_t* widths = call.sizes(sizes);
    const Buffer scratch = call.scratch(workspace);
    call.run([&] { cpu::weight_select(plan, in, keys, widths, out); },
             [&](void* stream) { cuda::weight_select(plan, in, keys, widths, out, {scratch.data, scratch.bytes, stream}); });
}

void scatter(const WeightPlan& plan, py::handle pooled, py::handle x, py::handle sizes, py::handle values, py::handle workspace) {
    WeightCall call("weight_scatter", plan);
    call.require(!plan.rank, "the plan must have no basis");
    const View keys = call.weights(x, "x", 'C'), in = call.pooled(pooled, "pooled", 'C'), out = call.weights(values, "values", 'C');
    const int64_t* widths = call.sizes(sizes);
    const Buffer scratch = call.scratch(workspace, cuda::WeightPass::scatter, call.size('C'), call.size('C'));
    call.run([&] { cpu::weight_scatter(plan, in, keys, widths, out); },
             [&](void* stream) { cuda::weight_scatter(plan, in, keys, widths, out, {scratch.data, scratch.bytes, stream}); });
}

int64_t workspace_bytes(const WeightPlan& plan, const std::string& kernel, int64_t batch, int64_t in_channels, int64_t out_channels,
                        const std::string& dtype) {
    static const std::map<std::string, DType> dtypes = {
        {"float32", DType::float32}, {"float64", DType::float64}, {"bfloat16", DType::bfloat16}, {"float16", DType::float16}};
    static const std::map<std::string, cuda::WeightPass> passes = {{"weight_linear", cuda::WeightPass::linear},
                                                                   {"weight_linear_transpose", cuda::WeightPass::linear},
                                                                   {"weight_linear_gradient", cuda::WeightPass::gradient},
                                                                   {"weight_mix_gradient", cuda::WeightPass::mix_gradient},
                                                                   {"weight_scatter", cuda::WeightPass::scatter}};
    const auto type = dtypes.find(dtype);
    const auto pass = passes.find(kernel);
    if (type == dtypes.end())
        throw py::value_error("weight_linear_workspace: dtype must be float32, float64, bfloat16 or float16, got " + dtype);
    if (pass == passes.end()) return 0;
    if constexpr (kWithCuda)
        return cuda::weight_linear_workspace(plan, pass->second, batch, in_channels, out_channels, type->second);
    else
        refuse_cuda("weight_linear_workspace");
}

}  // namespace

void bind_weight_linear(py::module_& m) {
    const py::arg_v workspace = py::arg("workspace") = py::none();
    py::class_<WeightPlan>(m, "WeightPlan", "Where everything lies in the flat tensors of weight-space operators.")
        .def(py::init(&make_plan), py::arg("widths"), py::arg("layers"), py::arg("nodes"), py::arg("entries"), py::arg("rows"),
             py::arg("global_offset"), py::arg("global_slots"), py::arg("global_parameter"), py::arg("mixed"), py::arg("rank"));
    m.def("weight_pool", &pool, py::arg("plan"), py::arg("x"), py::arg("basis"), py::arg("sizes"), py::arg("mean"), py::arg("pooled"),
          workspace, "pooled = S x");
    m.def("weight_affine", &affine, py::arg("plan"), py::arg("x"), py::arg("mix"), py::arg("terms"), py::arg("basis"), py::arg("sizes"),
          py::arg("mean"), py::arg("y"), workspace, "y = x mixed + terms");
    m.def("weight_linear", &linear, py::arg("plan"), py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("project"),
          py::arg("expand"), py::arg("sizes"), py::arg("mean"), py::arg("y"), py::arg("kept") = py::none(), workspace,
          "a whole layer; kept: a WeightMatrices");
    bind_kept<cpu::WeightMatrices>(
        m, "WeightMatrices",
        "What the CPU kernel makes of a layer's weight, kept while the weight stays the same. Copied and pickled empty.");
    m.def("weight_linear_transpose", &linear_transpose, py::arg("plan"), py::arg("y"), py::arg("weight"), py::arg("sizes"), py::arg("mean"),
          py::arg("x"), workspace, "its adjoint in x");
    m.def("weight_linear_gradient", &linear_gradient, py::arg("plan"), py::arg("x"), py::arg("y"), py::arg("sizes"), py::arg("mean"),
          py::arg("gradient"), workspace, "its adjoint in weight and bias");
    m.def("weight_mix_gradient", &mix_gradient, py::arg("plan"), py::arg("x"), py::arg("y"), py::arg("sizes"), py::arg("mix"), workspace,
          "the adjoint of weight_affine in mix");
    m.def("weight_basis_gradient", &basis_gradient, py::arg("plan"), py::arg("x"), py::arg("terms"), py::arg("sizes"), py::arg("mean"),
          py::arg("basis"), workspace, "the adjoint of weight_pool in its basis");
    m.def("weight_select", &select, py::arg("plan"), py::arg("values"), py::arg("x"), py::arg("sizes"), py::arg("pooled"), workspace,
          "values at the maxima of x");
    m.def("weight_scatter", &scatter, py::arg("plan"), py::arg("pooled"), py::arg("x"), py::arg("sizes"), py::arg("values"), workspace,
          "its adjoint");
    m.def("weight_linear_workspace", &workspace_bytes, py::arg("plan"), py::arg("kernel"), py::arg("batch"), py::arg("in_channels"),
          py::arg("out_channels"), py::arg("dtype"), "Bytes of scratch that a call on a device needs.");
}

}  // namespace isotypic
