// Driver of the CPU kernels of distance_attention: a few samples at a time, whose keys are packed first; then blocks of queries of all
// heads, or for gradients whole heads, go to the threads. Sums over heads that share their keys are taken in their order.
#include "ops/distance_attention.hpp"

#include <algorithm>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/distance_attention_kernel.hpp"
#include "cpu/isa.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kItems = 16;  // that a group of samples should have, for threads to share

template <class T>
const AttentionKernel<T>& kernel_of();
template <>
const AttentionKernel<float>& kernel_of<float>() {
    return ISOTYPIC_SELECT_ISA(distance_attention_kernels).float32;
}
template <>
const AttentionKernel<double>& kernel_of<double>() {
    return ISOTYPIC_SELECT_ISA(distance_attention_kernels).float64;
}

int64_t rounded(int64_t value, int64_t step) {
    return (value + step - 1) / step * step;
}

AttentionHead head_of(const AttentionCall& a, int lanes) {
    AttentionHead head{};
    const AttentionSettings& settings = a.settings;
    head.queries = a.q_mv.sizes[1];
    head.keys = a.k_mv.sizes[1];
    head.keys_padded = rounded(head.keys, kKeyBlock);
    head.C = static_cast<int>(a.q_mv.sizes[2] / settings.heads);
    head.S = static_cast<int>(a.q_s.sizes[2] / settings.heads);
    head.Cv = static_cast<int>(a.v_mv.sizes[2] / settings.key_heads);
    head.Sv = static_cast<int>(a.v_s.sizes[2] / settings.key_heads);
    head.inner = settings.inner;
    std::copy(settings.index, settings.index + 16, head.index);
    std::copy(settings.sign, settings.sign + 16, head.sign);
    head.distance = settings.distance;
    head.scale = settings.scale;
    head.epsilon = kAttentionEpsilon;
    head.features = head.C * head.inner + head.S;
    head.geometry = settings.distance ? kGeometry * head.C : 0;
    head.row = head.features + head.geometry;
    head.row_padded = rounded(head.row, lanes);
    head.values = 16 * head.Cv + head.Sv;
    head.values_padded = rounded(head.values, lanes);
    head.shared = settings.heads / settings.key_heads;
    return head;
}

// One head of one sample, `heads` to a tensor.
template <class T>
Rows<T> rows(const View& view, int64_t sample, int64_t head, int64_t heads) {
    const int64_t width = view.ndim == 4 ? 16 : 1;
    auto* data = static_cast<std::remove_const_t<T>*>(view.data);
    return {data + sample * view.strides[0] + head * (view.sizes[2] / heads) * width, view.strides[1]};
}

template <class T>
AttentionData<T> data_of(const AttentionCall& a, const AttentionHead& head, int64_t sample, int64_t h) {
    const int64_t H = a.settings.heads, of_keys = a.settings.key_heads, k = of_keys == 1 ? 0 : h;
    AttentionData<T> data{rows<const T>(a.q_mv, sample, h, H),
                          rows<const T>(a.k_mv, sample, k, of_keys),
                          rows<const T>(a.v_mv, sample, k, of_keys),
                          rows<const T>(a.q_s, sample, h, H),
                          rows<const T>(a.k_s, sample, k, of_keys),
                          rows<const T>(a.v_s, sample, k, of_keys),
                          nullptr,
                          nullptr,
                          nullptr,
                          rows<T>(a.mv, sample, h, H),
                          rows<T>(a.s, sample, h, H),
                          static_cast<T*>(a.lse.data) + (sample * H + h) * head.queries};
    if (a.weight.defined()) data.weight = static_cast<const T*>(a.weight.data) + h * head.C;
    if (a.mask) data.mask = a.mask + sample * head.queries * head.keys;
    if (a.ranges) data.ranges = a.ranges + sample * head.queries * 2;
    return data;
}

// The packed keys of a group of samples.
template <class T>
class Packing {
  public:
    Packing(const AttentionHead& head, int64_t parts, bool gradients)
        : panel_(head.keys_padded * head.row),
          values_(head.keys_padded * head.values_padded),
          rows_(gradients ? head.keys_padded * head.row_padded : 0),
          value_panel_(gradients ? head.keys_padded * head.values : 0),
          spoiled_(head.keys_padded),
          scratch_((panel_ + values_ + spoiled_ + rows_ + value_panel_ + 3 * head.C) * static_cast<int64_t>(sizeof(T)), parts),
          gradients_(gradients) {}

    AttentionPacked<T> part(int64_t i) const {
        T* p = reinterpret_cast<T*>(scratch_.part(i));
        T *values = p + panel_, *spoiled = values + values_, *rows = spoiled + spoiled_;
        if (!gradients_) return {p, values, spoiled, nullptr, nullptr, nullptr};
        return {p, values, spoiled, rows, rows + rows_, rows + rows_ + value_panel_};
    }

  private:
    int64_t panel_, values_, rows_, value_panel_, spoiled_;
    Scratch scratch_;
    bool gradients_;
};

template <class T>
void pack(const AttentionKernel<T>& kernel, const AttentionCall& a, const AttentionHead& head, int64_t first, int64_t samples,
          const Packing<T>& packing) {
    const int64_t of_keys = a.settings.key_heads;
    parallel_for(samples * of_keys, max_threads(), [&](int64_t item, int) {
        kernel.pack(head, data_of<T>(a, head, first + item / of_keys, item % of_keys), packing.part(item));
    });
}

template <class T>
void forward(const AttentionCall& a) {
    const AttentionKernel<T>& kernel = kernel_of<T>();
    const AttentionHead head = head_of(a, kernel.lanes);
    const int64_t H = a.settings.heads, batch = a.q_mv.sizes[0], blocks = (head.queries + kQueryBlock - 1) / kQueryBlock;
    if (!batch || !blocks) return;
    const int64_t group = std::min(batch, std::max<int64_t>(1, kItems / (H * blocks)));
    const int threads = max_threads();
    const Packing<T> packing(head, group * a.settings.key_heads, false);
    const Scratch workspace(kernel.workspace(head) * static_cast<int64_t>(sizeof(T)), threads);
    for (int64_t first = 0; first < batch; first += group) {
        const int64_t samples = std::min(group, batch - first);
        pack(kernel, a, head, first, samples, packing);
        parallel_for(samples * H * blocks, threads, [&](int64_t item, int thread) {
            const int64_t sample = item / (H * blocks), h = item / blocks % H, block = item % blocks * kQueryBlock;
            kernel.forward(head, data_of<T>(a, head, first + sample, h), packing.part(a.settings.key_heads == 1 ? sample : sample * H + h),
                           block, std::min(kQueryBlock, head.queries - block), reinterpret_cast<T*>(workspace.part(thread)));
        });
    }
}

template <class T>
void backward(const AttentionCall& a, const AttentionGradients& g) {
    const AttentionKernel<T>& kernel = kernel_of<T>();
    const AttentionHead head = head_of(a, kernel.lanes);
    const int64_t H = a.settings.heads, of_keys = a.settings.key_heads, batch = a.q_mv.sizes[0];
    const int64_t group = std::max<int64_t>(1, std::min(batch, (kItems + H - 1) / H)), C = head.C;
    T* weight = static_cast<T*>(g.weight.data);
    std::fill(weight, weight + H * C, T{});
    const int threads = max_threads();
    const int64_t key_rows = head.keys_padded * head.row_padded, values = head.keys_padded * head.values_padded;
    const int64_t sums = key_rows + values + C;
    const Packing<T> packing(head, group * of_keys, true);
    const Scratch workspace(kernel.workspace(head) * static_cast<int64_t>(sizeof(T)), threads);
    const Scratch partial(sums * static_cast<int64_t>(sizeof(T)), group * H);
    for (int64_t first = 0; first < batch; first += group) {
        const int64_t samples = std::min(group, batch - first);
        pack(kernel, a, head, first, samples, packing);
        parallel_for(samples * H, threads, [&](int64_t item, int thread) {
            const int64_t sample = first + item / H, h = item % H;
            T* p = reinterpret_cast<T*>(partial.part(item));
            std::fill(p, p + sums, T{});
            kernel.backward(head, data_of<T>(a, head, sample, h), packing.part(of_keys == 1 ? item / H : item),
                            rows<const T>(g.g_mv, sample, h, H), rows<const T>(g.g_s, sample, h, H), rows<T>(g.q_mv, sample, h, H),
                            rows<T>(g.q_s, sample, h, H), p + key_rows + values, p, p + key_rows,
                            reinterpret_cast<T*>(workspace.part(thread)));
        });
        parallel_for(samples * of_keys, threads, [&](int64_t item, int) {
            const int64_t sample = first + item / of_keys, k = item % of_keys;
            T* total = reinterpret_cast<T*>(partial.part(item * head.shared));
            for (int64_t other = 1; other < head.shared; ++other) {
                const T* more = reinterpret_cast<const T*>(partial.part(item * head.shared + other));
                for (int64_t i = 0; i < key_rows + values; ++i) total[i] += more[i];
            }
            kernel.unpack(head, data_of<T>(a, head, sample, k), packing.part(item), total, total + key_rows,
                          rows<T>(g.k_mv, sample, k, of_keys), rows<T>(g.k_s, sample, k, of_keys), rows<T>(g.v_mv, sample, k, of_keys),
                          rows<T>(g.v_s, sample, k, of_keys));
        });
        for (int64_t item = 0; item < samples * H; ++item) {
            const T* part = reinterpret_cast<const T*>(partial.part(item)) + key_rows + values;
            for (int64_t c = 0; c < C; ++c) weight[item % H * C + c] += part[c];
        }
    }
}

}  // namespace

void distance_attention(const AttentionCall& a) {
    a.q_mv.dtype == DType::float64 ? forward<double>(a) : forward<float>(a);
}

void distance_attention_backward(const AttentionCall& a, const AttentionGradients& g) {
    a.q_mv.dtype == DType::float64 ? backward<double>(a, g) : backward<float>(a, g);
}

}  // namespace isotypic::cpu
