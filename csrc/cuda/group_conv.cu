#include "cuda/group_conv_launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

template <class Visit>
void with_policy(DType dtype, bool allow_tf32, const Visit& visit) {
    switch (dtype) {
        case DType::float32:
            return allow_tf32 ? visit(TensorFloat32{}) : visit(Float32{});
        case DType::float64:
            return visit(Float64{});
        case DType::bfloat16:
            return visit(BFloat16{});
        case DType::float16:
            return visit(Float16{});
    }
}

}  // namespace

int64_t group_conv_workspace(const GroupConvPlan& plan, const GroupConvShape& shape, DType dtype, Pass pass) {
    int64_t bytes = 0;
    with_policy(dtype, false, [&](auto policy) { bytes = workspace_bytes<decltype(policy)>(plan, shape, pass); });
    return bytes;
}

void group_conv(const GroupConvPlan& plan, const GroupConvShape& shape, const View& x, const View& weight, const View& bias, const View& y,
                bool allow_tf32, const void* tables, void* workspace, void* stream) {
    with_policy(x.dtype, allow_tf32, [&](auto policy) {
        run_convolution<decltype(policy)>(plan, shape, false, x, weight, bias, y, tables, workspace, stream, "group_conv");
    });
}

void group_conv_transpose(const GroupConvPlan& plan, const GroupConvShape& shape, const View& y, const View& weight, const View& x,
                          bool allow_tf32, const void* tables, void* workspace, void* stream) {
    with_policy(y.dtype, allow_tf32, [&](auto policy) {
        run_convolution<decltype(policy)>(plan, shape, true, y, weight, View{}, x, tables, workspace, stream, "group_conv_transpose");
    });
}

void group_conv_weight(const GroupConvPlan& plan, const GroupConvShape& shape, const View& x, const View& y, const View& weight,
                       bool allow_tf32, const void* tables, void* workspace, void* stream) {
    with_policy(x.dtype, allow_tf32, [&](auto policy) {
        run_weight_gradient<decltype(policy)>(plan, shape, x, y, weight, tables, workspace, stream, "group_conv_weight");
    });
}

}  // namespace cuda
}  // namespace isotypic
