// transvectants on a device: products in shared memory, a chunk of channels at a time, and the mix from there; see
// csrc/ops/transvectants.hpp. G, F: coefficients of a result and of a feature; a row is one coefficient of one path.
//
//     transvectants         a block owns an output degree, 256 of its (coefficient, output channel) pairs, one to a thread, and four
//                           samples, or in small batches one sample and 1,024 pairs, four to a thread. For a chunk of channels it makes the
//                           products that lead to this degree in shared memory, those of the four samples side by side, then adds them up:
//                           one weight from memory and one vector from shared memory for four multiply-adds.
//     transvectants_input   a block owns a sample and a chunk of channels. The weights of the chunk and z come through shared memory, 32
//                           output channels at a time (lines of weights of odd pitch, so that neighbouring paths are in different banks);
//                           a thread makes the gradients of four coefficients of a path, 2 loads for 4 multiply-adds, which stay in
//                           shared memory. Then those of the features, from lists of terms that lie so that neighbouring coefficients
//                           read neighbouring numbers.
//     transvectants_weight  a block owns a channel, an output degree, 32 output channels, one a lane, and 32 paths, and runs through the
//                           samples, several at a time: their products and their z through shared memory, 1 + 4 loads for 4 multiply-adds.
//
// Every result is summed by one thread in one order, which depends on no size of a chunk. Shared memory is kept to 40 KB where degrees
// allow it, so that several blocks share a multiprocessor.
//
// Count for 50 channels in and out and irreps up to 10, where F = G = 66: a sample takes 1.08 M multiply-adds of the mix, 13 kB of features
// and 13 kB of results; the weights have 0.63 MB. For batch 512 in float32 on an H200 at 4.3 TB/s, 67 Tflop/s and about 900 G instructions
// of a warp a second:
//                              memory        arithmetic     floor     expected
//     transvectants            14 MB, 3 us   1.1 Gflop      17 us     60 us    6 instructions for 4 multiply-adds, 80 MB of weights from L2
//     transvectants_input      21 MB, 5 us   1.1 Gflop      17 us     100 us   7 instructions for 4; 320 MB of weights from L2
//     transvectants_weight     14 MB, 3 us   1.1 Gflop      17 us     200 us   25 rounds of loads and barriers behind each other
// Registers on sm_90a (ptxas 13.0), float32 / float64, no spills: mix 48/64 (one sample) and 64/64 (four), gradient 48/48,
// weight_gradient 48/60.
// These figures are counted: nothing here has been measured on a device yet.
#include "ops/transvectants.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kThreads = 256, kLanes = 32, kWarps = kThreads / kLanes;
constexpr int kSums = 4;           // of a thread
constexpr int kLeastBlocks = 264;  // from so many on, blocks own several samples: a fixed number
constexpr size_t kSharedBytes = 40 * 1024;

// Up to four coefficients of a path, `column` .. + count - 1 where each degree begins at a multiple of four; their rows begin at `place`
// and are `step` apart.
struct PathItem {
    int path, column, count, place, step;
};

// What the tables begin with; offsets in bytes from there.
struct Tables {
    int in_size, out_size, padded_size, paths, out_slots, items;
    int path_begin, out_begin, rows_before, rows, coefficients, coefficients32, path_items, padded;  // padded[out]: its column
    // Of the terms of the gradient in coefficient i of a feature, term t is number t F + i.
    int term_count, term_place, term_other, term_value, term_value32;
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

DEVICE const double* term_values_of(const Tables* tables, double) {
    return table<double>(tables, tables->term_value);
}
DEVICE const float* term_values_of(const Tables* tables, float) {
    return table<float>(tables, tables->term_value32);
}

struct Sizes {
    int64_t batch, channels;
    int out_channels;
    int chunk;   // channels, or samples, whose products are in shared memory at a time
    int width;   // output channels at a time
    int blocks;  // of outputs to a (sample, slot) or (channel, slot); chunks of channels to a sample
};

template <class T, int Samples>
struct alignas(Samples * sizeof(T) < 16 ? Samples * sizeof(T) : 16) Together {
    T value[Samples];
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

// Samples times outputs of a thread are kSums.
template <class T, int Samples>
__global__ void __launch_bounds__(kThreads)
    mix(const Tables* tables, Sizes s, const T* __restrict__ f, const T* __restrict__ h, const T* __restrict__ weight, T* __restrict__ y) {
    constexpr int kOutputs = kSums / Samples;
    using Products = Together<T, Samples>;
    const unsigned block = block_index(), blocks = s.blocks, slots = tables->out_slots, O = s.out_channels;
    const unsigned part = block % blocks, slot = block / blocks % slots;
    const int64_t first_sample = static_cast<int64_t>(block / blocks / slots) * Samples;
    const int samples = static_cast<int>(s.batch - first_sample < Samples ? s.batch - first_sample : Samples);
    const int* rows_before = table<int>(tables, tables->rows_before);
    const int first_path = table<int>(tables, tables->path_begin)[slot],
              paths = table<int>(tables, tables->path_begin)[slot + 1] - first_path;
    const int first_out = table<int>(tables, tables->out_begin)[slot], width = table<int>(tables, tables->out_begin)[slot + 1] - first_out;
    const TransvectantRow* rows = table<TransvectantRow>(tables, tables->rows) + rows_before[first_out];
    const int row_count = paths * width, F = tables->in_size;
    const T* coefficients = coefficients_of(tables, T());
    Products* panel = reinterpret_cast<Products*>(shared_memory());  // [channel][row]
    T* left = reinterpret_cast<T*>(panel + s.chunk * row_count);     // [sample][channel][F]
    T* right = h ? left + Samples * s.chunk * F : nullptr;
    T sums[kOutputs][Samples] = {};
    for (int64_t c0 = 0; c0 < s.channels; c0 += s.chunk) {
        const int channels = static_cast<int>(s.channels - c0 < s.chunk ? s.channels - c0 : s.chunk);
        for (int i = 0; i < samples; ++i) {
            const int64_t from = ((first_sample + i) * s.channels + c0) * F;
            for (int k = thread_index(); k < channels * F; k += kThreads) {
                left[i * s.chunk * F + k] = f[from + k];
                if (h) right[i * s.chunk * F + k] = h[from + k];
            }
        }
        __syncthreads();
        for (unsigned i = thread_index(); i < static_cast<unsigned>(channels * row_count); i += kThreads) {
            const unsigned c = i / row_count;
            const TransvectantRow row = rows[i - c * row_count];
            Products products{};
#pragma unroll
            for (int k = 0; k < Samples; ++k)
                if (k < samples) {
                    const int at = (k * s.chunk + static_cast<int>(c)) * F;
                    products.value[k] = product(row, coefficients, left + at, h ? right + at : nullptr);
                }
            panel[i] = products;
        }
        __syncthreads();
#pragma unroll
        for (int u = 0; u < kOutputs; ++u) {
            const unsigned output = (part * kOutputs + u) * kThreads + thread_index(), l = output / O;
            if (l >= static_cast<unsigned>(width)) continue;
            const Products* mine = panel + l * paths;
            const T* weights = weight + (c0 * tables->paths + first_path) * O + (output - l * O);
            for (int c = 0; c < channels; ++c, mine += row_count, weights += static_cast<int64_t>(tables->paths) * O) {
#pragma unroll 4
                for (int q = 0; q < paths; ++q) {
                    const Products products = mine[q];
                    const T w = weights[static_cast<int64_t>(q) * O];
#pragma unroll
                    for (int k = 0; k < Samples; ++k) sums[u][k] += products.value[k] * w;
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int u = 0; u < kOutputs; ++u) {
        const unsigned output = (part * kOutputs + u) * kThreads + thread_index(), l = output / O, o = output - l * O;
        if (l >= static_cast<unsigned>(width)) continue;
#pragma unroll
        for (int k = 0; k < Samples; ++k)
            if (k < samples) y[((first_sample + k) * O + o) * tables->out_size + first_out + l] = sums[u][k];
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads) gradient(const Tables* tables, Sizes s, const T* __restrict__ f, const T* __restrict__ weight,
                                                     const T* __restrict__ z, T* __restrict__ x) {
    const unsigned blocks = s.blocks, items = tables->items;
    const int64_t sample = block_index() / blocks, c0 = static_cast<int64_t>(block_index() % blocks) * s.chunk;
    const int channels = static_cast<int>(s.channels - c0 < s.chunk ? s.channels - c0 : s.chunk);
    const int F = tables->in_size, G = tables->out_size, P = tables->paths, O = s.out_channels, pitch = s.width | 1;
    const int row_count = table<int>(tables, tables->rows_before)[G];
    T* cotangents = reinterpret_cast<T*>(shared_memory());  // [output channel][column]
    T* panel = cotangents + s.width * tables->padded_size;  // [channel][row]
    T* features = panel + s.chunk * row_count;              // [channel][F]
    T* weights = features + s.chunk * F;                    // [channel][path][output channel]
    const int *padded = table<int>(tables, tables->padded), columns = tables->padded_size;
    const PathItem* path_items = table<PathItem>(tables, tables->path_items);
    const int64_t from = (sample * s.channels + c0) * F;
    for (int i = thread_index(); i < channels * F; i += kThreads) features[i] = f[from + i];
    for (int i = thread_index(); i < s.width * columns; i += kThreads) cotangents[i] = T(0);  // vectors reach into what pads the columns
    const int warp = thread_index() / kLanes, lane = thread_index() % kLanes;
    int o0 = 0;
    do {
        const int n = O - o0 < s.width ? O - o0 : s.width;
        __syncthreads();
        for (int line = warp; line < channels * P; line += kWarps)
            for (int k = lane; k < n; k += kLanes) weights[line * pitch + k] = weight[(c0 * P + line) * O + o0 + k];
        for (unsigned i = thread_index(); i < static_cast<unsigned>(n * G); i += kThreads) {
            const unsigned o = i / G;
            cotangents[o * columns + padded[i - o * G]] = z[(sample * O + o0) * G + i];
        }
        __syncthreads();
        for (unsigned i = thread_index(); i < channels * items; i += kThreads) {
            const unsigned c = i / items;
            const PathItem item = path_items[i - c * items];
            T* rows = panel + c * row_count + item.place;
            const T *w = weights + (c * P + item.path) * pitch, *v = cotangents + item.column;
            T sums[kSums];
#pragma unroll
            for (int j = 0; j < kSums; ++j) sums[j] = o0 > 0 && j < item.count ? rows[j * item.step] : T(0);
#pragma unroll 4
            for (int k = 0; k < n; ++k) {
                const auto four = *reinterpret_cast<const Together<T, kSums>*>(v + k * columns);
#pragma unroll
                for (int j = 0; j < kSums; ++j) sums[j] += w[k] * four.value[j];
            }
#pragma unroll
            for (int j = 0; j < kSums; ++j)
                if (j < item.count) rows[j * item.step] = sums[j];
        }
        o0 += s.width;
    } while (o0 < O);
    __syncthreads();
    const int *count = table<int>(tables, tables->term_count), *place = table<int>(tables, tables->term_place),
              *other = table<int>(tables, tables->term_other);
    const T* value = term_values_of(tables, T());
    for (unsigned i = thread_index(); i < static_cast<unsigned>(channels * F); i += kThreads) {
        const unsigned c = i / F, at = i - c * F;
        const int terms = count[at];
        T sum = 0;
#pragma unroll 4
        for (int t = 0; t < terms; ++t) {
            const int k = t * F + static_cast<int>(at);
            sum += value[k] * panel[c * row_count + place[k]] * features[c * F + other[k]];
        }
        x[from + i] = sum;
    }
}

// Block: (channel, slot, 32 paths, 32 output channels); a thread has four paths, kWarps apart.
template <class T>
__global__ void __launch_bounds__(kThreads) weight_gradient(const Tables* tables, Sizes s, const T* __restrict__ f, const T* __restrict__ h,
                                                            const T* __restrict__ z, T* __restrict__ weight) {
    const unsigned blocks = s.blocks, slots = tables->out_slots, columns = (s.out_channels + kLanes - 1) / kLanes;
    const unsigned part = block_index() % blocks, slot = block_index() / blocks % slots;
    const int64_t channel = block_index() / blocks / slots;
    const int first_path = table<int>(tables, tables->path_begin)[slot],
              paths = table<int>(tables, tables->path_begin)[slot + 1] - first_path;
    const int first_out = table<int>(tables, tables->out_begin)[slot], width = table<int>(tables, tables->out_begin)[slot + 1] - first_out;
    const int warp = thread_index() / kLanes, lane = thread_index() % kLanes;
    const int first_o = static_cast<int>(part % columns) * kLanes, first_q = static_cast<int>(part / columns) * kWarps * kSums + warp;
    if (first_q - warp >= paths) return;
    const TransvectantRow* rows = table<TransvectantRow>(tables, tables->rows) + table<int>(tables, tables->rows_before)[first_out];
    const T* coefficients = coefficients_of(tables, T());
    const int F = tables->in_size, G = tables->out_size, O = s.out_channels, row_count = paths * width, pitch = width | 1;
    T* panel = reinterpret_cast<T*>(shared_memory());  // [sample][row]
    T* left = panel + s.chunk * row_count;             // [sample][F]
    T* right = h ? left + s.chunk * F : nullptr;
    T* cotangents = left + s.chunk * F * (h ? 2 : 1);  // [sample][output channel][coefficient]
    T sums[kSums] = {};
    for (int64_t b0 = 0; b0 < s.batch; b0 += s.chunk) {
        const int samples = static_cast<int>(s.batch - b0 < s.chunk ? s.batch - b0 : s.chunk);
        for (unsigned i = thread_index(); i < static_cast<unsigned>(samples * F); i += kThreads) {
            const unsigned b = i / F;
            const int64_t from = ((b0 + b) * s.channels + channel) * F + (i - b * F);
            left[i] = f[from];
            if (h) right[i] = h[from];
        }
        for (unsigned i = thread_index(); i < static_cast<unsigned>(samples * kLanes * width); i += kThreads) {
            const unsigned line = i / width, l = i - line * width, o = first_o + line % kLanes;
            cotangents[line * pitch + l] = o < static_cast<unsigned>(O) ? z[((b0 + line / kLanes) * O + o) * G + first_out + l] : T(0);
        }
        __syncthreads();
        for (unsigned i = thread_index(); i < static_cast<unsigned>(samples * row_count); i += kThreads) {
            const unsigned b = i / row_count;
            panel[i] = product(rows[i - b * row_count], coefficients, left + b * F, h ? right + b * F : nullptr);
        }
        __syncthreads();
        for (int b = 0; b < samples; ++b) {
            const T *mine = panel + b * row_count + first_q, *v = cotangents + (b * kLanes + lane) * pitch;
#pragma unroll 4
            for (int l = 0; l < width; ++l)
#pragma unroll
                for (int u = 0; u < kSums; ++u)
                    if (first_q + u * kWarps < paths) sums[u] += mine[l * paths + u * kWarps] * v[l];
        }
        __syncthreads();
    }
    if (first_o + lane >= O) return;
#pragma unroll
    for (int u = 0; u < kSums; ++u)
        if (first_q + u * kWarps < paths)
            weight[(channel * tables->paths + first_path + first_q + u * kWarps) * O + first_o + lane] = sums[u];
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

// How many of `most` units of this size fit in a block beside `fixed` bytes: one at the least, for which a device must have room.
int chunk_of(int64_t most, size_t bytes, size_t fixed, const char* name) {
    if (bytes + fixed > shared_memory_limit(name))
        throw std::runtime_error(std::string(name) + ": the degrees and paths need more shared memory than this device has");
    const int64_t fit = fixed < kSharedBytes ? static_cast<int64_t>((kSharedBytes - fixed) / std::max<size_t>(bytes, 1)) : 0;
    return static_cast<int>(std::clamp<int64_t>(fit, 1, std::max<int64_t>(most, 1)));
}

// Where each coefficient of a result lies when every degree begins at a multiple of four; behind them, how many there are in all.
std::vector<int> padded_columns(const TransvectantsPlan& plan) {
    std::vector<int> columns(plan.out_size + 1);
    int first = 0;
    for (int slot = 0; slot < plan.out_slots; ++slot) {
        const int begin = plan.out_begin[slot], end = plan.out_begin[slot + 1];
        for (int out = begin; out < end; ++out) columns[out] = first + out - begin;
        first += (end - begin + kSums - 1) / kSums * kSums;
    }
    columns.back() = first;
    return columns;
}

template <class T, int Samples>
void launch_mix(const char* name, const TransvectantsPlan& plan, Sizes s, const View& f, const View& h, const View& weight, const View& y,
                const void* tables, void* stream) {
    const Largest largest(plan);
    const size_t bytes = sizeof(T) * Samples * (largest.rows + plan.in_size * (h.defined() ? 2 : 1));
    s.chunk = chunk_of(s.channels, bytes, 0, name);
    s.blocks = static_cast<int>((int64_t{s.out_channels} * largest.width + kThreads * kSums / Samples - 1) / (kThreads * kSums / Samples));
    launch(name, mix<T, Samples>, (s.batch + Samples - 1) / Samples * plan.out_slots * s.blocks, kThreads, bytes * s.chunk, stream,
           static_cast<const Tables*>(tables), s, static_cast<const T*>(f.data), h.defined() ? static_cast<const T*>(h.data) : nullptr,
           static_cast<const T*>(weight.data), static_cast<T*>(y.data));
}

template <class T>
void run_mix(const TransvectantsPlan& plan, const View& f, const View& h, const View& weight, const View& y, const void* tables,
             void* stream) {
    const char* name = "transvectants";
    const Largest largest(plan);
    const Sizes s{f.sizes[0], f.sizes[1], static_cast<int>(y.sizes[1]), 1, 1, 1};
    const size_t four = sizeof(T) * kSums * (largest.rows + plan.in_size * (h.defined() ? 2 : 1));
    if (s.batch / kSums * plan.out_slots >= kLeastBlocks && four <= kSharedBytes)
        launch_mix<T, kSums>(name, plan, s, f, h, weight, y, tables, stream);
    else
        launch_mix<T, 1>(name, plan, s, f, h, weight, y, tables, stream);
}

template <class T>
void run_input(const TransvectantsPlan& plan, const View& f, const View& weight, const View& z, const View& x, const void* tables,
               void* stream) {
    const char* name = "transvectants_input";
    Sizes s{f.sizes[0], f.sizes[1], static_cast<int>(z.sizes[1]), 1, kLanes, 1};
    const auto of_channel = [&] { return sizeof(T) * (plan.rows.size() + plan.in_size + static_cast<size_t>(plan.paths) * (s.width | 1)); };
    const auto fixed = [&] { return sizeof(T) * static_cast<size_t>(s.width) * padded_columns(plan).back(); };
    while (s.width > 1 && of_channel() + fixed() > kSharedBytes) s.width /= 2;
    s.chunk = chunk_of(s.channels, of_channel(), fixed(), name);
    s.blocks = static_cast<int>((s.channels + s.chunk - 1) / s.chunk);
    launch(name, gradient<T>, s.batch * s.blocks, kThreads, of_channel() * s.chunk + fixed(), stream, static_cast<const Tables*>(tables), s,
           static_cast<const T*>(f.data), static_cast<const T*>(weight.data), static_cast<const T*>(z.data), static_cast<T*>(x.data));
}

template <class T>
void run_weight(const TransvectantsPlan& plan, const View& f, const View& h, const View& z, const View& weight, const void* tables,
                void* stream) {
    const char* name = "transvectants_weight";
    const Largest largest(plan);
    Sizes s{f.sizes[0], f.sizes[1], static_cast<int>(z.sizes[1]), 1, 1, 1};
    const size_t bytes =
        sizeof(T) * (largest.rows + plan.in_size * (h.defined() ? 2 : 1) + static_cast<size_t>(kLanes) * (largest.width | 1));
    s.chunk = chunk_of(s.batch, bytes, 0, name);
    s.blocks = (s.out_channels + kLanes - 1) / kLanes * ((largest.paths + kWarps * kSums - 1) / (kWarps * kSums));
    launch(name, weight_gradient<T>, s.channels * plan.out_slots * s.blocks, kThreads, bytes * s.chunk, stream,
           static_cast<const Tables*>(tables), s, static_cast<const T*>(f.data), h.defined() ? static_cast<const T*>(h.data) : nullptr,
           static_cast<const T*>(z.data), static_cast<T*>(weight.data));
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
    std::vector<int> columns = padded_columns(plan);
    std::vector<PathItem> items;
    for (int slot = 0; slot < plan.out_slots; ++slot) {
        const int first_path = plan.path_begin[slot], paths = plan.path_begin[slot + 1] - first_path;
        for (int out = plan.out_begin[slot]; out < plan.out_begin[slot + 1]; out += kSums)
            for (int path = 0; path < paths; ++path)
                items.push_back({first_path + path, columns[out], std::min(kSums, plan.out_begin[slot + 1] - out),
                                 plan.rows_before[out] + path, paths});
    }
    std::vector<int> count(plan.in_size);
    for (int i = 0; i < plan.in_size; ++i) count[i] = plan.gradient_begin[i + 1] - plan.gradient_begin[i];
    const size_t padded = static_cast<size_t>(count.empty() ? 0 : *std::max_element(count.begin(), count.end())) * plan.in_size;
    std::vector<int> place(padded), other(padded);
    std::vector<double> value(padded);
    for (int i = 0; i < plan.in_size; ++i)
        for (int k = 0; k < count[i]; ++k) {
            const TransvectantGradientTerm& term = plan.gradient_terms[plan.gradient_begin[i] + k];
            const size_t at = static_cast<size_t>(k) * plan.in_size + i;
            place[at] = term.place, other[at] = term.other, value[at] = plan.coefficients[term.coefficient];
        }
    std::vector<std::byte> bytes(sizeof(Tables));
    Tables t{};
    t.in_size = plan.in_size, t.out_size = plan.out_size, t.paths = plan.paths, t.out_slots = plan.out_slots;
    t.items = static_cast<int>(items.size()), t.padded_size = columns.back();
    t.path_begin = append(bytes, plan.path_begin), t.out_begin = append(bytes, plan.out_begin);
    t.rows_before = append(bytes, plan.rows_before), t.rows = append(bytes, plan.placed);
    t.coefficients = append(bytes, plan.coefficients), t.coefficients32 = append(bytes, plan.coefficients32);
    t.path_items = append(bytes, items), t.padded = append(bytes, columns), t.term_count = append(bytes, count);
    t.term_place = append(bytes, place), t.term_other = append(bytes, other);
    t.term_value = append(bytes, value), t.term_value32 = append(bytes, std::vector<float>(value.begin(), value.end()));
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
