// multivector_linear on a device: a thread sums one component of several items and outputs in registers.
//
// 24 multiply-adds to a pair of channels and item in G(3,0,1), computed as 32. A block has the 16 components times 16 groups of items, four
// items each, and kOutputs outputs: 64 sums of two multiply-adds to a channel in 8 + 16 reads of shared memory. Coefficients A and B are
// spread over the components when a chunk of channels is read.
#include "ops/multivector_linear.hpp"

#include "core/algebra.hpp"
#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kBlock = 256, kItems = 64, kOfThread = 4, kOutputs = 8, kChannels = 4;

// The maps as a kernel reads them: the coefficients of component i, and the component that the second one takes.
template <class T>
struct Maps {
    T direct[16], turned[16];
    int direct_map[16], turned_map[16], order[16];
};

template <class T>
Maps<T> maps_of(int index, int64_t K, bool transposed) {
    const algebra::LinearMaps& table = algebra::kLinearMaps[index];
    Maps<T> maps;
    for (int i = 0; i < 16; ++i) {
        const int from = transposed ? table.target[i] : i;
        const bool there = table.turned_map[from] < K;
        maps.direct[i] = static_cast<T>(table.direct[i]);
        maps.turned[i] = there ? static_cast<T>(table.turned[from]) : T{};
        maps.direct_map[i] = table.direct_map[i];
        maps.turned_map[i] = there ? table.turned_map[from] : 0;
        maps.order[i] = transposed ? table.target[i] : table.source[i];
    }
    return maps;
}

// y (N, O, 16) from x (N, C, 16); the weights of output o and channel c are K numbers at o w_output + c w_channel.
template <class T>
__global__ void __launch_bounds__(kBlock) map(Maps<T> maps, const T* x, const T* weight, const T* shift, T* y, int64_t N, int C, int O,
                                              int K, int64_t w_output, int64_t w_channel, int scalars) {
    T* xs = reinterpret_cast<T*>(shared_memory());  // (kItems, kChannels, 16)
    T* ws = xs + kItems * kChannels * 16;           // (kChannels, kOutputs, A and B, 16)
    const int tiles = (O + kOutputs - 1) / kOutputs;
    const int64_t first = static_cast<int64_t>(block_index() / static_cast<unsigned>(tiles)) * kItems;
    const int output = static_cast<int>(block_index() % static_cast<unsigned>(tiles)) * kOutputs;
    const int i = thread_index() % 16, group = thread_index() / 16;
    const int here = static_cast<int>(N - first < kItems ? N - first : kItems), order = maps.order[i];
    T sum[kOfThread][kOutputs];
    for (int n = 0; n < kOfThread; ++n)
        for (int o = 0; o < kOutputs; ++o) sum[n][o] = T{};
    for (int chunk = 0; chunk < C; chunk += kChannels) {
        const int channels = C - chunk < kChannels ? C - chunk : kChannels;
        __syncthreads();
        for (int e = thread_index(); e < here * kChannels * 16; e += kBlock) {
            const int n = e / (kChannels * 16), rest = e % (kChannels * 16);
            xs[e] = rest / 16 < channels ? x[((first + n) * C + chunk) * 16 + rest] : T{};
        }
        for (int e = thread_index(); e < kChannels * kOutputs * 16; e += kBlock) {
            const int c = e / (kOutputs * 16), o = e / 16 % kOutputs, j = e % 16;
            const bool there = c < channels && output + o < O;
            const T* w = weight + (output + o) * w_output + (chunk + c) * w_channel;
            ws[(e / 16) * 32 + j] = there ? maps.direct[j] * w[maps.direct_map[j]] : T{};
            ws[(e / 16) * 32 + 16 + j] = there ? maps.turned[j] * w[maps.turned_map[j]] : T{};
        }
        __syncthreads();
        for (int c = 0; c < channels; ++c) {
            T a[kOfThread], b[kOfThread];
            for (int n = 0; n < kOfThread; ++n) {
                const int item = group + n * 16;
                a[n] = item < here ? xs[(item * kChannels + c) * 16 + i] : T{};
                b[n] = item < here ? xs[(item * kChannels + c) * 16 + order] : T{};
            }
            for (int o = 0; o < kOutputs; ++o) {
                const T direct = ws[(c * kOutputs + o) * 32 + i], mixed = ws[(c * kOutputs + o) * 32 + 16 + i];
                for (int n = 0; n < kOfThread; ++n) sum[n][o] += a[n] * direct + b[n] * mixed;
            }
        }
    }
    const int scalar = i == 0 ? 0 : i == 15 ? 1 : 2;  // which of the scalars enters here
    for (int n = 0; n < kOfThread; ++n) {
        const int64_t item = first + group + n * 16;
        for (int o = 0; o < kOutputs && item < N; ++o) {
            if (output + o >= O) continue;
            const int64_t place = item * O + output + o;
            y[place * 16 + i] = sum[n][o] + (scalar < scalars ? shift[place * scalars + scalar] : T{});
        }
    }
}

template <class T>
void run_map(int index, const View& x, const View& weight, const View& shift, bool transposed, const View& y, void* stream) {
    const int64_t N = x.sizes[0], K = weight.sizes[2], inner = weight.sizes[1] * K;
    const int C = static_cast<int>(x.sizes[1]), O = static_cast<int>(y.sizes[1]);
    const int64_t grid = (N + kItems - 1) / kItems * ((O + kOutputs - 1) / kOutputs);
    launch("multivector_linear", map<T>, grid, kBlock, sizeof(T) * (kItems * kChannels * 16 + kChannels * kOutputs * 32), stream,
           maps_of<T>(index, K, transposed), static_cast<const T*>(x.data), static_cast<const T*>(weight.data),
           static_cast<const T*>(shift.data), static_cast<T*>(y.data), N, C, O, static_cast<int>(K), transposed ? K : inner,
           transposed ? inner : K, shift.defined() ? static_cast<int>(shift.sizes[2]) : 0);
}

constexpr int kSide = 4;  // outputs and channels of a block of the gradient

// sums (part, O, C, A and B, 16) of y x and y (x turned) over the part's items.
template <class T>
__global__ void __launch_bounds__(kBlock) gradient_sums(Maps<T> maps, const T* x, const T* y, T* sums, int64_t N, int C, int O) {
    const int across = (C + kSide - 1) / kSide, down = (O + kSide - 1) / kSide;
    const unsigned block = block_index();
    const int part = static_cast<int>(block / static_cast<unsigned>(across * down)),
              rest = static_cast<int>(block % static_cast<unsigned>(across * down));
    const int i = thread_index() % 16, pair = thread_index() / 16;
    const int o = rest / across * kSide + pair / kSide, c = rest % across * kSide + pair % kSide;
    if (o >= O || c >= C) return;
    const int order = maps.order[i];
    const int64_t size = (N + kWeightParts - 1) / kWeightParts, end = (part + 1) * size < N ? (part + 1) * size : N;
    T direct = T{}, mixed = T{};
    for (int64_t n = part * size; n < end; ++n) {
        const T g = y[(n * O + o) * 16 + i];
        const T* from = x + (n * C + c) * 16;
        direct += g * from[i];
        mixed += g * from[order];
    }
    T* to = sums + ((static_cast<int64_t>(part) * O + o) * C + c) * 32;
    to[i] = direct;
    to[16 + i] = mixed;
}

// weight (O, C, K) from the sums of all parts, in their order.
template <class T>
__global__ void __launch_bounds__(kBlock) gradient_maps(Maps<T> maps, const T* sums, T* weight, int64_t pairs, int K) {
    const int64_t pair = static_cast<int64_t>(block_index()) * kBlock + thread_index();
    if (pair >= pairs) return;
    T w[16];
    for (int k = 0; k < K; ++k) w[k] = T{};
    for (int i = 0; i < 16; ++i) {
        T direct = T{}, mixed = T{};
        for (int part = 0; part < kWeightParts; ++part) {
            const T* from = sums + (part * pairs + pair) * 32;
            direct += from[i];
            mixed += from[16 + i];
        }
        w[maps.direct_map[i]] += maps.direct[i] * direct;
        w[maps.turned_map[i]] += maps.turned[i] * mixed;
    }
    for (int k = 0; k < K; ++k) weight[pair * K + k] = w[k];
}

template <class T>
void run_weight(int index, const View& x, const View& y, const View& weight, const View& workspace, void* stream) {
    const int64_t N = x.sizes[0], pairs = weight.sizes[0] * weight.sizes[1], K = weight.sizes[2];
    const int C = static_cast<int>(x.sizes[1]), O = static_cast<int>(y.sizes[1]);
    const int64_t grid = static_cast<int64_t>(kWeightParts) * ((C + kSide - 1) / kSide) * ((O + kSide - 1) / kSide);
    const Maps<T> maps = maps_of<T>(index, K, false);
    launch("multivector_linear_weight", gradient_sums<T>, grid, kBlock, 0, stream, maps, static_cast<const T*>(x.data),
           static_cast<const T*>(y.data), static_cast<T*>(workspace.data), N, C, O);
    launch("multivector_linear_weight", gradient_maps<T>, (pairs + kBlock - 1) / kBlock, kBlock, 0, stream, maps,
           static_cast<const T*>(workspace.data), static_cast<T*>(weight.data), pairs, static_cast<int>(K));
}

}  // namespace

void multivector_linear(int maps, const View& x, const View& weight, const View& shift, const View& y, void* stream) {
    x.dtype == DType::float64 ? run_map<double>(maps, x, weight, shift, false, y, stream)
                              : run_map<float>(maps, x, weight, shift, false, y, stream);
}
void multivector_linear_transpose(int maps, const View& y, const View& weight, const View& shift, const View& x, void* stream) {
    y.dtype == DType::float64 ? run_map<double>(maps, y, weight, shift, true, x, stream)
                              : run_map<float>(maps, y, weight, shift, true, x, stream);
}
void multivector_linear_weight(int maps, const View& x, const View& y, const View& weight, const View& workspace, void* stream) {
    x.dtype == DType::float64 ? run_weight<double>(maps, x, y, weight, workspace, stream)
                              : run_weight<float>(maps, x, y, weight, workspace, stream);
}

}  // namespace cuda
}  // namespace isotypic
