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

#include "bind/bind.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

WeightPlan make_plan(const std::vector<int>& widths, const std::vector<std::array<int, 14>>& layers,
                     const std::vector<std::array<int, 5>>& nodes, int entries, int rows, int global_offset, int global_slots,
                     int global_parameter, int mixed, int rank) {
    if (layers.empty() || layers.size() > kMaxWeightLayers || widths.size() != layers.size() + 1 || nodes.size() > widths.size())
        throw py::value_error("WeightPlan: 1 to " + std::to_string(kMaxWeightLayers) + " layers are possible, got " +
                              std::to_string(layers.size()));
    WeightPlan plan{};
    plan.layers = static_cast<int>(layers.size()), plan.node_count = static_cast<int>(nodes.size());
    plan.entries = entries, plan.rows = rows, plan.global_offset = global_offset, plan.global_slots = global_slots;
    plan.global_parameter = global_parameter, plan.mixed = mixed, plan.rank = rank;
    for (size_t i = 0; i < widths.size(); ++i) plan.widths[i] = widths[i], plan.nodes_of[i] = -1;
    for (size_t i = 0; i < layers.size(); ++i) {
        const auto& l = layers[i];
        plan.layer[i] = {l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7], l[8], l[9], l[10], l[11], l[12], l[13]};
    }
    for (size_t i = 0; i < nodes.size(); ++i) {
        const auto& n = nodes[i];
        plan.nodes[i] = {n[0], n[1], n[2], n[3], n[4]};
        if (n[0] < 0 || n[0] > plan.layers) throw py::value_error("WeightPlan: a label is out of range");
        plan.nodes_of[n[0]] = static_cast<int>(i);
    }
    return plan;
}

// The arguments of one call: their shapes as the plan has them, one dtype, one device.
class Arguments {
  public:
    Arguments(const char* name, const WeightPlan& plan, py::handle first)
        : name_(name), plan_(plan), first_(to_tensor(first)), handle_(first) {}

    // A contiguous tensor of this shape; -1 stands for any size. An undefined view for None.
    View view(py::handle handle, const char* argument, std::initializer_list<int64_t> shape) const {
        if (handle.is_none()) return View{};
        const Tensor tensor = to_tensor(handle);
        bool fits = tensor.view.ndim == static_cast<int>(shape.size()) && is_contiguous(tensor.view);
        int axis = 0;
        for (const int64_t size : shape) {
            fits = fits && (size < 0 || tensor.view.sizes[axis] == size);
            ++axis;
        }
        fits = fits && tensor.view.dtype == first_.view.dtype && tensor.on_cuda == first_.on_cuda && tensor.device == first_.device;
        if (!fits) throw py::value_error(std::string(name_) + " kernel: " + argument + " does not fit the plan and the other tensors");
        return tensor.view;
    }

    // The widths of each network, or null. Those on a device are not looked at here: kernels keep within the plan's widths.
    const int64_t* sizes(py::handle handle, int64_t batch) const {
        if (handle.is_none()) return nullptr;
        const DLTensor dl = borrow(handle);
        const int64_t labels = plan_.layers + 1;
        const bool integers = dl.dtype.code == kDLInt && dl.dtype.bits == 64 && dl.dtype.lanes == 1;
        const bool contiguous =
            dl.ndim == 2 && (!dl.strides || ((dl.strides[1] == 1 || dl.shape[1] == 1) && (dl.strides[0] == labels || dl.shape[0] < 2)));
        const bool here = (dl.device.device_type == kDLCUDA) == first_.on_cuda && dl.device.device_id == first_.device;
        if (!integers || !contiguous || !here || dl.shape[0] != batch || dl.shape[1] != labels)
            throw py::value_error(std::string(name_) + " kernel: sizes must be contiguous int64 of shape (" + std::to_string(batch) + ", " +
                                  std::to_string(labels) + ") on the device of the other tensors");
        const auto* values = reinterpret_cast<const int64_t*>(static_cast<char*>(dl.data) + dl.byte_offset);
        for (int64_t i = 0; !first_.on_cuda && i < batch * labels; ++i) {
            const int label = static_cast<int>(i % labels), most = plan_.widths[label];
            const bool fixed = plan_.nodes_of[label] < 0;
            if (values[i] < (fixed ? most : 1) || values[i] > most)
                throw py::value_error(std::string(name_) + ": sizes must be " + (fixed ? "" : "between 1 and ") + std::to_string(most) +
                                      " at label " + std::to_string(label) + (fixed ? ", whose axis is fixed" : "") + ", got " +
                                      std::to_string(values[i]) + " for network " + std::to_string(i / labels));
        }
        return values;
    }

    int64_t size(int axis) const { return axis < first_.view.ndim ? first_.view.sizes[axis] : -2; }

    // Runs one of the two with the interpreter's lock released. Kernels of a pass need scratch, the others none.
    template <class OnCpu, class OnCuda>
    void run(py::handle workspace, const OnCpu& on_cpu, const OnCuda& on_cuda, std::optional<cuda::WeightPass> pass = {},
             int64_t in_channels = 0, int64_t out_channels = 0) const {
        if (!first_.on_cuda) {
            const py::gil_scoped_release release;
            return on_cpu();
        }
        if constexpr (kWithCuda) {
            const Buffer scratch = to_buffer(workspace, first_.device, "workspace");
            if (pass && scratch.bytes < cuda::weight_linear_workspace(plan_, *pass, size(0), in_channels, out_channels, first_.view.dtype))
                throw py::value_error(std::string(name_) + ": the workspace is too small");
            const cuda::WeightContext context{scratch.data, scratch.bytes, current_stream(handle_, first_.device)};
            const py::gil_scoped_release release;
            on_cuda(context);
        } else {
            throw std::runtime_error(std::string(name_) +
                                     ": this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
        }
    }

  private:
    const char* name_;
    const WeightPlan& plan_;
    Tensor first_;
    py::handle handle_;
};

// The second function of a call in a build without CUDA must not name cuda::, which is not linked.
#if defined(ISOTYPIC_WITH_CUDA)
#define ISOTYPIC_ON_CUDA(call) [&](const cuda::WeightContext& context) { call; }
#else
#define ISOTYPIC_ON_CUDA(call) [](const cuda::WeightContext&) {}
#endif

void pool(const WeightPlan& plan, py::handle x, py::handle basis, py::handle sizes, bool mean, py::handle pooled, py::handle workspace) {
    const Arguments a("weight_pool", plan, x);
    const View in = a.view(x, "x", {-1, plan.entries, -1}), out = a.view(pooled, "pooled", {a.size(0), plan.rows, a.size(2)});
    const View features = a.view(basis, "basis", {plan.rank, plan.widths[0]});
    if (features.defined() != (plan.rank > 0)) throw py::value_error("weight_pool kernel: basis does not fit the plan");
    const int64_t* widths = a.sizes(sizes, in.sizes[0]);
    a.run(
        workspace, [&] { cpu::weight_pool(plan, in, features, widths, mean, out); },
        ISOTYPIC_ON_CUDA(cuda::weight_pool(plan, in, features, widths, mean, out, context)));
}

void affine(const WeightPlan& plan, py::handle x, py::handle mix, py::handle terms, py::handle basis, py::handle sizes, bool mean,
            py::handle y, py::handle workspace) {
    const Arguments a("weight_affine", plan, y);
    const View out = a.view(y, "y", {-1, plan.entries, -1}), in = a.view(x, "x", {out.sizes[0], plan.entries, -1});
    const View matrices = a.view(mix, "mix", {plan.mixed, in.defined() ? in.sizes[2] : -1, out.sizes[2]});
    const View added = a.view(terms, "terms", {out.sizes[0], plan.rows, out.sizes[2]}),
               features = a.view(basis, "basis", {plan.rank, plan.widths[0]});
    if (in.defined() != matrices.defined() || (added.defined() && plan.rank && !features.defined()))
        throw py::value_error("weight_affine kernel: x and mix go together, and so do terms and a basis");
    const int64_t* widths = a.sizes(sizes, out.sizes[0]);
    a.run(
        workspace, [&] { cpu::weight_affine(plan, in, matrices, added, features, widths, mean, out); },
        ISOTYPIC_ON_CUDA(cuda::weight_affine(plan, in, matrices, added, features, widths, mean, out, context)));
}

void linear(const WeightPlan& plan, py::handle x, py::handle weight, py::handle bias, py::handle project, py::handle expand,
            py::handle sizes, bool mean, py::handle y, py::handle workspace) {
    const Arguments a("weight_linear", plan, x);
    const View in = a.view(x, "x", {-1, plan.entries, -1}), out = a.view(y, "y", {a.size(0), plan.entries, -1});
    const View parameters = a.view(weight, "weight", {plan.parameters(), in.sizes[2], out.sizes[2]});
    const View offsets = a.view(bias, "bias", {plan.global_slots, out.sizes[2]});
    const View reads = a.view(project, "project", {plan.rank, plan.widths[0]}),
               writes = a.view(expand, "expand", {plan.rank, plan.widths[0]});
    if (!parameters.defined() || reads.defined() != (plan.rank > 0) || writes.defined() != (plan.rank > 0))
        throw py::value_error("weight_linear kernel: weight is missing, or project and expand do not fit the plan");
    const int64_t* widths = a.sizes(sizes, in.sizes[0]);
    a.run(
        workspace, [&] { cpu::weight_linear(plan, in, parameters, offsets, reads, writes, widths, mean, out); },
        ISOTYPIC_ON_CUDA(cuda::weight_linear(plan, in, parameters, offsets, reads, writes, widths, mean, out, context)),
        cuda::WeightPass::linear, in.sizes[2], out.sizes[2]);
}

void linear_transpose(const WeightPlan& plan, py::handle y, py::handle weight, py::handle sizes, bool mean, py::handle x,
                      py::handle workspace) {
    const Arguments a("weight_linear_transpose", plan, y);
    const View in = a.view(y, "y", {-1, plan.entries, -1}), out = a.view(x, "x", {a.size(0), plan.entries, -1});
    const View parameters = a.view(weight, "weight", {plan.parameters(), out.sizes[2], in.sizes[2]});
    if (!parameters.defined() || plan.rank)
        throw py::value_error("weight_linear_transpose kernel: weight is missing, or the plan has a basis");
    const int64_t* widths = a.sizes(sizes, in.sizes[0]);
    a.run(
        workspace, [&] { cpu::weight_linear_transpose(plan, in, parameters, widths, mean, out); },
        ISOTYPIC_ON_CUDA(cuda::weight_linear_transpose(plan, in, parameters, widths, mean, out, context)), cuda::WeightPass::linear,
        in.sizes[2], out.sizes[2]);
}

void linear_gradient(const WeightPlan& plan, py::handle x, py::handle y, py::handle sizes, bool mean, py::handle gradient,
                     py::handle workspace) {
    const Arguments a("weight_linear_gradient", plan, x);
    const View in = a.view(x, "x", {-1, plan.entries, -1}), out = a.view(y, "y", {a.size(0), plan.entries, -1});
    const View sum = a.view(gradient, "gradient", {plan.parameters() * in.sizes[2] + plan.global_slots, out.sizes[2]});
    if (!sum.defined() || plan.rank) throw py::value_error("weight_linear_gradient kernel: gradient is missing, or the plan has a basis");
    const int64_t* widths = a.sizes(sizes, in.sizes[0]);
    a.run(
        workspace, [&] { cpu::weight_linear_gradient(plan, in, out, widths, mean, sum); },
        ISOTYPIC_ON_CUDA(cuda::weight_linear_gradient(plan, in, out, widths, mean, sum, context)), cuda::WeightPass::gradient, in.sizes[2],
        out.sizes[2]);
}

void mix_gradient(const WeightPlan& plan, py::handle x, py::handle y, py::handle sizes, py::handle mix, py::handle workspace) {
    const Arguments a("weight_mix_gradient", plan, x);
    const View in = a.view(x, "x", {-1, plan.entries, -1}), out = a.view(y, "y", {a.size(0), plan.entries, -1});
    const View sum = a.view(mix, "mix", {plan.mixed, in.sizes[2], out.sizes[2]});
    const int64_t* widths = a.sizes(sizes, in.sizes[0]);
    a.run(
        workspace, [&] { cpu::weight_mix_gradient(plan, in, out, widths, sum); },
        ISOTYPIC_ON_CUDA(cuda::weight_mix_gradient(plan, in, out, widths, sum, context)), cuda::WeightPass::mix_gradient, in.sizes[2],
        out.sizes[2]);
}

void basis_gradient(const WeightPlan& plan, py::handle x, py::handle terms, py::handle sizes, bool mean, py::handle basis,
                    py::handle workspace) {
    const Arguments a("weight_basis_gradient", plan, x);
    const View in = a.view(x, "x", {-1, plan.entries, -1}), added = a.view(terms, "terms", {a.size(0), plan.rows, a.size(2)});
    const View sum = a.view(basis, "basis", {plan.rank, plan.widths[0]});
    if (!plan.rank || !sum.defined() || !added.defined())
        throw py::value_error("weight_basis_gradient kernel: the plan has no basis, or a tensor is missing");
    const int64_t* widths = a.sizes(sizes, in.sizes[0]);
    a.run(
        workspace, [&] { cpu::weight_basis_gradient(plan, in, added, widths, mean, sum); },
        ISOTYPIC_ON_CUDA(cuda::weight_basis_gradient(plan, in, added, widths, mean, sum, context)));
}

void select(const WeightPlan& plan, py::handle values, py::handle x, py::handle sizes, py::handle pooled, py::handle workspace) {
    const Arguments a("weight_select", plan, x);
    const View keys = a.view(x, "x", {-1, plan.entries, -1}), in = a.view(values, "values", {a.size(0), plan.entries, a.size(2)});
    const View out = a.view(pooled, "pooled", {a.size(0), plan.rows, a.size(2)});
    if (plan.rank || !in.defined() || !out.defined())
        throw py::value_error("weight_select kernel: the plan has a basis, or a tensor is missing");
    const int64_t* widths = a.sizes(sizes, keys.sizes[0]);
    a.run(
        workspace, [&] { cpu::weight_select(plan, in, keys, widths, out); },
        ISOTYPIC_ON_CUDA(cuda::weight_select(plan, in, keys, widths, out, context)));
}

void scatter(const WeightPlan& plan, py::handle pooled, py::handle x, py::handle sizes, py::handle values, py::handle workspace) {
    const Arguments a("weight_scatter", plan, x);
    const View keys = a.view(x, "x", {-1, plan.entries, -1}), out = a.view(values, "values", {a.size(0), plan.entries, a.size(2)});
    const View in = a.view(pooled, "pooled", {a.size(0), plan.rows, a.size(2)});
    if (plan.rank || !in.defined() || !out.defined())
        throw py::value_error("weight_scatter kernel: the plan has a basis, or a tensor is missing");
    const int64_t* widths = a.sizes(sizes, keys.sizes[0]);
    a.run(
        workspace, [&] { cpu::weight_scatter(plan, in, keys, widths, out); },
        ISOTYPIC_ON_CUDA(cuda::weight_scatter(plan, in, keys, widths, out, context)), cuda::WeightPass::scatter, in.sizes[2], in.sizes[2]);
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
#if defined(ISOTYPIC_WITH_CUDA)
    return cuda::weight_linear_workspace(plan, pass->second, batch, in_channels, out_channels, type->second);
#else
    (void)plan, (void)batch, (void)in_channels, (void)out_channels;
    throw std::runtime_error(
        "weight_linear_workspace: this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
#endif
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
          py::arg("expand"), py::arg("sizes"), py::arg("mean"), py::arg("y"), workspace, "a whole layer");
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
