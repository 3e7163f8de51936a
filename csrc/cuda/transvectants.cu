// transvectants on a device: products in shared memory, a chunk of channels at a time, and the mix from there; see
// csrc/ops/transvectants.hpp.
//
//     transvectants         a block owns a sample, an output degree and up to 1,024 of its (output channel, coefficient) pairs, four to a
//     thread. For
//                           a chunk of channels it makes the products that lead to this degree in shared memory, then adds them up: a
//                           product is read by all threads at once, the weights of neighbouring output channels lie side by side.
//     transvectants_input   a block owns a sample and a chunk of channels: the gradients of their products, in shared memory, then those of
//     their
//                           coefficients from lists of terms.
//     transvectants_weight  a block owns a channel, an output degree and 256 of its (path, output channel) pairs, and runs through the
//     samples.
//
// Every result is summed by one thread in one order. For 50 channels and irreps up to 10 a sample takes 1.08 M multiply-adds of the mix and
// 15 kB of features; all blocks read the same 0.63 MB of weights, from L2. Nothing here has been measured on a device.
#include "ops/transvectants.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kOutputs = 4;  // of a thread, in transvectants
constexpr size_t kSharedBytes = 40 * 1024;

// What the tables begin with; offsets in bytes from there.
struct Tables {
    int in_size, out_size, paths, out_slots;
    int path_begin, out_begin, slot, rows_before, rows, coefficients, coefficients32, gradient_begin, gradient_terms;
};

template <class Element>
DEVICE const Element* table(const Tables* tables, int offset) {
    return reinterpret_cast<const Element*>(reinterpret_cast<const char*>(tables) + offset);
}
DEVICE const double* coefficients_of(const Tables* tables, double) {
    return table<double>(tables, tables->coefficients);
}
DEVICE const float* coefficients_of(const Tables* tables, float) {
    return table<float>(tables, tables->coefficients32);
}

struct Sizes {
    int64_t batch, channels, out_channels;
    int chunk;       // channels whose products are in shared memory at a time
    int64_t blocks;  // of outputs to a (sample, slot) or (channel, slot); chunks of channels to a sample
};

// The coefficient of a transvectant, or of its polarisation.
template <class T>
DEVICE T product(const TransvectantRow& row, const T* coefficients, const T* f, const T* h) {
    T sum = 0;
    for (int t = 0; t < row.count; ++t) {
        const T c = coefficients[row.coefficient + t];
        sum += c * f[row.first + t] * (h ? h : f)[row.second - t];
        if (h) sum += c * h[row.first + t] * f[row.second - t];
    }
    return sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads) mix(const Tables* tables, Sizes s, const T* f, const T* h, const T* weight, T* y) {
    const unsigned block = block_index(), blocks = static_cast<unsigned>(s.blocks), slots = static_cast<unsigned>(tables->out_slots);
    const int part = static_cast<int>(block % blocks), slot = static_cast<int>(block / blocks % slots);
    const int64_t sample = block / blocks / slots;
    const int* rows_before = table<int>(tables, tables->rows_before);
    const int first_path = table<int>(tables, tables->path_begin)[slot],
              paths = table<int>(tables, tables->path_begin)[slot + 1] - first_path;
    const int first_out = table<int>(tables, tables->out_begin)[slot], width = table<int>(tables, tables->out_begin)[slot + 1] - first_out;
    const TransvectantRow* rows = table<TransvectantRow>(tables, tables->rows) + rows_before[first_out];
    const int row_count = paths * width;
    const T* coefficients = coefficients_of(tables, T());
    T* panel = reinterpret_cast<T*>(shared_memory());
    T* left = panel + s.chunk * row_count;
    T* right = h ? left + s.chunk * tables->in_size : nullptr;
    T sums[kOutputs] = {};
    for (int64_t c0 = 0; c0 < s.channels; c0 += s.chunk) {
        const int channels = static_cast<int>(s.channels - c0 < s.chunk ? s.channels - c0 : s.chunk);
        const int64_t from = (sample * s.channels + c0) * tables->in_size;
        for (int i = thread_index(); i < channels * tables->in_size; i += kThreads) {
            left[i] = f[from + i];
            if (h) right[i] = h[from + i];
        }
        __syncthreads();
        for (int i = thread_index(); i < channels * row_count; i += kThreads) {
            const int c = i / row_count;
            panel[i] =
                product(rows[i - c * row_count], coefficients, left + c * tables->in_size, h ? right + c * tables->in_size : nullptr);
        }
        __syncthreads();
        for (int u = 0; u < kOutputs; ++u) {
            const int64_t output = (static_cast<int64_t>(part) * kOutputs + u) * kThreads + thread_index();
            if (output >= s.out_channels * width) continue;
            const int64_t o = output % s.out_channels;
            const T* mine = panel + output / s.out_channels * paths;
            for (int c = 0; c < channels; ++c)
                for (int q = 0; q < paths; ++q)
                    sums[u] += mine[c * row_count + q] * weight[((c0 + c) * tables->paths + first_path + q) * s.out_channels + o];
        }
        __syncthreads();
    }
    for (int u = 0; u < kOutputs; ++u) {
        const int64_t output = (static_cast<int64_t>(part) * kOutputs + u) * kThreads + thread_index();
        if (output < s.out_channels * width)
            y[(sample * s.out_channels + output % s.out_channels) * tables->out_size + first_out + output / s.out_channels] = sums[u];
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads) gradient(const Tables* tables, Sizes s, const T* f, const T* weight, const T* z, T* x) {
    const unsigned blocks = static_cast<unsigned>(s.blocks);
    const int64_t sample = block_index() / blocks, c0 = static_cast<int64_t>(block_index() % blocks) * s.chunk;
    const int channels = static_cast<int>(s.channels - c0 < s.chunk ? s.channels - c0 : s.chunk);
    const int row_count = table<int>(tables, tables->rows_before)[tables->out_size];
    const TransvectantRow* rows = table<TransvectantRow>(tables, tables->rows);
    const int* slots = table<int>(tables, tables->slot);
    const int* path_begin = table<int>(tables, tables->path_begin);
    const T* coefficients = coefficients_of(tables, T());
    T* panel = reinterpret_cast<T*>(shared_memory());
    T* features = panel + s.chunk * row_count;
    const int64_t from = (sample * s.channels + c0) * tables->in_size;
    for (int i = thread_index(); i < channels * tables->in_size; i += kThreads) features[i] = f[from + i];
    for (int i = thread_index(); i < channels * row_count; i += kThreads) {
        const int c = i / row_count;
        const TransvectantRow& row = rows[i - c * row_count];
        const T* w = weight + ((c0 + c) * tables->paths + path_begin[slots[row.out]] + row.path) * s.out_channels;
        const T* cotangent = z + sample * s.out_channels * tables->out_size + row.out;
        T sum = 0;
        for (int64_t o = 0; o < s.out_channels; ++o) sum += w[o] * cotangent[o * tables->out_size];
        panel[i] = sum;
    }
    __syncthreads();
    const int* begin = table<int>(tables, tables->gradient_begin);
    const TransvectantGradientTerm* terms = table<TransvectantGradientTerm>(tables, tables->gradient_terms);
    for (int i = thread_index(); i < channels * tables->in_size; i += kThreads) {
        const int c = i / tables->in_size, at = i - c * tables->in_size;
        T sum = 0;
        for (int t = begin[at]; t < begin[at + 1]; ++t)
            sum +=
                coefficients[terms[t].coefficient] * panel[c * row_count + terms[t].place] * features[c * tables->in_size + terms[t].other];
        x[from + i] = sum;
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads) weight_gradient(const Tables* tables, Sizes s, const T* f, const T* h, const T* z, T* weight) {
    const unsigned block = block_index(), blocks = static_cast<unsigned>(s.blocks), slots = static_cast<unsigned>(tables->out_slots);
    const int slot = static_cast<int>(block / blocks % slots);
    const int64_t channel = block / blocks / slots, output = static_cast<int64_t>(block % blocks) * kThreads + thread_index();
    const int first_path = table<int>(tables, tables->path_begin)[slot],
              paths = table<int>(tables, tables->path_begin)[slot + 1] - first_path;
    const int first_out = table<int>(tables, tables->out_begin)[slot], width = table<int>(tables, tables->out_begin)[slot + 1] - first_out;
    const TransvectantRow* rows = table<TransvectantRow>(tables, tables->rows) + table<int>(tables, tables->rows_before)[first_out];
    const T* coefficients = coefficients_of(tables, T());
    T* panel = reinterpret_cast<T*>(shared_memory());
    T* left = panel + paths * width;
    T* right = h ? left + tables->in_size : nullptr;
    const int64_t o = output % s.out_channels, q = output / s.out_channels;
    T sum = 0;
    for (int64_t sample = 0; sample < s.batch; ++sample) {
        const int64_t from = (sample * s.channels + channel) * tables->in_size;
        for (int i = thread_index(); i < tables->in_size; i += kThreads) {
            left[i] = f[from + i];
            if (h) right[i] = h[from + i];
        }
        __syncthreads();
        for (int i = thread_index(); i < paths * width; i += kThreads) panel[i] = product(rows[i], coefficients, left, right);
        __syncthreads();
        if (q < paths) {
            const T* cotangent = z + (sample * s.out_channels + o) * tables->out_size + first_out;
            for (int l = 0; l < width; ++l) sum += panel[l * paths + q] * cotangent[l];
        }
        __syncthreads();
    }
    if (q < paths) weight[(channel * tables->paths + first_path + q) * s.out_channels + o] = sum;
}

// The sizes that launches need of the largest slot.
struct Largest {
    int rows = 0, width = 0, paths = 0;
    explicit Largest(const TransvectantsPlan& plan) {
        for (int s = 0; s < plan.out_slots; ++s) {
            const int w = plan.out_begin[s + 1] - plan.out_begin[s], p = plan.path_begin[s + 1] - plan.path_begin[s];
            rows = std::max(rows, w * p), width = std::max(width, w), paths = std::max(paths, p);
        }
    }
};

int chunk_of(int64_t channels, size_t bytes_of_channel, const char* name) {
    if (bytes_of_channel > shared_memory_limit(name))
        throw std::runtime_error(std::string(name) + ": the degrees and paths need more shared memory than this device has");
    return static_cast<int>(std::clamp<int64_t>(static_cast<int64_t>(kSharedBytes / std::max<size_t>(bytes_of_channel, 1)), 1, channels));
}

template <class T>
void run_mix(const TransvectantsPlan& plan, const View& f, const View& h, const View& weight, const View& y, const void* tables,
             void* stream) {
    const char* name = "transvectants";
    const Largest largest(plan);
    Sizes s{f.sizes[0], f.sizes[1], y.sizes[1], 1, 1};
    const size_t bytes = sizeof(T) * (largest.rows + plan.in_size * (h.defined() ? 2 : 1));
    s.chunk = chunk_of(std::max<int64_t>(s.channels, 1), bytes, name);
    s.blocks = (s.out_channels * largest.width + kThreads * kOutputs - 1) / (kThreads * kOutputs);
    const int64_t grid = s.batch * plan.out_slots * s.blocks;
    launch(name, mix<T>, grid, kThreads, bytes * s.chunk, stream, static_cast<const Tables*>(tables), s, static_cast<const T*>(f.data),
           h.defined() ? static_cast<const T*>(h.data) : nullptr, static_cast<const T*>(weight.data), static_cast<T*>(y.data));
}

template <class T>
void run_input(const TransvectantsPlan& plan, const View& f, const View& weight, const View& z, const View& x, const void* tables,
               void* stream) {
    const char* name = "transvectants_input";
    Sizes s{f.sizes[0], f.sizes[1], z.sizes[1], 1, 1};
    const size_t bytes = sizeof(T) * (plan.rows.size() + plan.in_size);
    s.chunk = chunk_of(std::max<int64_t>(s.channels, 1), bytes, name);
    s.blocks = (s.channels + s.chunk - 1) / s.chunk;
    const int64_t grid = s.batch * s.blocks;
    launch(name, gradient<T>, grid, kThreads, bytes * s.chunk, stream, static_cast<const Tables*>(tables), s, static_cast<const T*>(f.data),
           static_cast<const T*>(weight.data), static_cast<const T*>(z.data), static_cast<T*>(x.data));
}

template <class T>
void run_weight(const TransvectantsPlan& plan, const View& f, const View& h, const View& z, const View& weight, const void* tables,
                void* stream) {
    const char* name = "transvectants_weight";
    const Largest largest(plan);
    Sizes s{f.sizes[0], f.sizes[1], z.sizes[1], 1, 1};
    const size_t bytes = sizeof(T) * (largest.rows + plan.in_size * (h.defined() ? 2 : 1));
    chunk_of(1, bytes, name);
    s.blocks = (s.out_channels * largest.paths + kThreads - 1) / kThreads;
    const int64_t grid = s.channels * plan.out_slots * s.blocks;
    launch(name, weight_gradient<T>, grid, kThreads, bytes, stream, static_cast<const Tables*>(tables), s, static_cast<const T*>(f.data),
           h.defined() ? static_cast<const T*>(h.data) : nullptr, static_cast<const T*>(z.data), static_cast<T*>(weight.data));
}

template <class Element>
int append(std::vector<std::byte>& bytes, const std::vector<Element>& array) {
    bytes.resize((bytes.size() + 15) / 16 * 16);
    const size_t offset = bytes.size(), size = array.size() * sizeof(Element);
    bytes.resize(offset + size);
    if (size) std::memcpy(bytes.data() + offset, array.data(), size);
    return static_cast<int>(offset);
}

}  // namespace

std::vector<std::byte> transvectants_tables(const TransvectantsPlan& plan) {
    std::vector<std::byte> bytes(sizeof(Tables));
    Tables t{plan.in_size, plan.out_size, plan.paths, plan.out_slots, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    t.path_begin = append(bytes, plan.path_begin), t.out_begin = append(bytes, plan.out_begin);
    t.slot = append(bytes, plan.slot), t.rows_before = append(bytes, plan.rows_before);
    t.rows = append(bytes, plan.placed);
    t.coefficients = append(bytes, plan.coefficients), t.coefficients32 = append(bytes, plan.coefficients32);
    t.gradient_begin = append(bytes, plan.gradient_begin), t.gradient_terms = append(bytes, plan.gradient_terms);
    std::memcpy(bytes.data(), &t, sizeof(t));
    return bytes;
}

void transvectants(const TransvectantsPlan& plan, const View& f, const View& h, const View& weight, const View& y, const void* tables,
                   void* stream) {
    if (f.dtype == DType::float64) return run_mix<double>(plan, f, h, weight, y, tables, stream);
    run_mix<float>(plan, f, h, weight, y, tables, stream);
}

void transvectants_input(const TransvectantsPlan& plan, const View& f, const View& weight, const View& z, const View& x, const void* tables,
                         void* stream) {
    if (f.dtype == DType::float64) return run_input<double>(plan, f, weight, z, x, tables, stream);
    run_input<float>(plan, f, weight, z, x, tables, stream);
}

void transvectants_weight(const TransvectantsPlan& plan, const View& f, const View& h, const View& z, const View& weight,
                          const void* tables, void* stream) {
    if (f.dtype == DType::float64) return run_weight<double>(plan, f, h, z, weight, tables, stream);
    run_weight<float>(plan, f, h, z, weight, tables, stream);
}

}  // namespace cuda
}  // namespace isotypic
