// CPU kernels of the weight-space operators: sums of weights, and what is added back to them. One network at a time; its channels run along
// the lanes.
//
// Count for a complete layer on widths [2, 32, 32, 1] with C channels in and out, for one network: 1024 entries are mixed, 2 C^2 flops
// each; the products of the two hidden labels have 32 rows of 4 C and 3 C slots, 32 (16 + 9) 2 C^2; the global one 49 x 2 C^2. Sum 1873 x 2
// C^2 = 3.84 Mflop at C = 32, and 1185 C values read and written, 303 kB: 12.7 flops a byte. For 64 networks 246 Mflop and 19.4 MB; on one
// core of 100 Gflop/s and 20 GB/s the floors are 2.5 ms and 1.0 ms. A few networks are worked on together, so that the second reading of x
// (pool, then affine) comes from L2 or L3, not from memory; the packed matrices, 300 kB at C = 32, are read from L2 for each network. The
// sums are 2 additions a value, 3 % of the multiply-adds. With one channel in and 32 out it is all writing: 9.7 MB, 0.5 ms.
// Measured on one Zen 4 core (torch's own product of 1024 x 1024: 86 Gflop/s): 3.6 ms and 0.4 to 0.6 ms. One network in the cache runs at
// 85 Gflop/s, 64 of them at 68: what is lost is waiting for x and y at the tiles' edges.
#include "cpu/weight_linear_kernel.hpp"

#include "cpu/convert.hpp"
#include "cpu/weight_linear_products.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

constexpr int64_t kPoolRows = 4;  // rows of a block summed side by side

template <class T>
ISOTYPIC_INLINE void add(T* __restrict sum, const T* __restrict values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) sum[i] += values[i];
}
template <class T>
ISOTYPIC_INLINE void scale(T* __restrict out, const T* __restrict values, double factor, int64_t count) {
    const T f = static_cast<T>(factor);
    for (int64_t i = 0; i < count; ++i) out[i] = f * values[i];
}
// out = a fa + b fb
template <class T>
ISOTYPIC_INLINE void combine(T* __restrict out, const T* __restrict a, double factor_a, const T* __restrict b, double factor_b,
                             int64_t count) {
    const T fa = static_cast<T>(factor_a), fb = static_cast<T>(factor_b);
    for (int64_t i = 0; i < count; ++i) out[i] = fa * a[i] + fb * b[i];
}

template <class T, bool Full>
ISOTYPIC_INLINE void store_columns(T* p, int64_t count, Vec<T> v) {
    if constexpr (Full)
        store(p, v);
    else
        mask_store(p, low_bits(count), v);
}

// sum_rows for the channels of one or two vectors, or fewer: `count` of them.
template <class T, int Rows, int Vectors, bool Full>
void sum_columns(const T* x, int64_t row_stride, int64_t columns, int64_t channels, int64_t count, T* rho, T* kap) {
    constexpr int L = kLanes<T>;
    Vec<T> sum[Rows][Vectors];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) sum[r][v] = zero<T>();
    for (int64_t s = 0; s < columns; ++s) {
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
            Vec<T> column = load_columns<T, Full>(kap + s * channels + v * L, count);
#pragma GCC unroll 4
            for (int r = 0; r < Rows; ++r) {
                const Vec<T> value = load_columns<T, Full>(x + r * row_stride + s * channels + v * L, count);
                sum[r][v] += value, column += value;
            }
            store_columns<T, Full>(kap + s * channels + v * L, count, column);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) store_columns<T, Full>(rho + r * channels + v * L, count, sum[r][v]);
}

// Sums of `Rows` rows of a block, x (Rows, columns, channels): rho (Rows, channels) over columns, and kap (columns, channels) += over rows.
template <class T, int Rows>
void sum_rows(const T* x, int64_t row_stride, int64_t columns, int64_t channels, T* rho, T* kap) {
    constexpr int L = kLanes<T>;
    if (channels < L && L % (channels > 0 ? channels : 1) == 0) {  // lane l of a vector is channel l % channels
        const int64_t count = columns * channels;
        Vec<T> sum[Rows];
        for (int r = 0; r < Rows; ++r) sum[r] = zero<T>();
        for (int64_t i = 0; i < count; i += L) {
            const uint32_t bits = low_bits(least(L, count - i));
            Vec<T> column = merge_load(zero<T>(), bits, kap + i);
            for (int r = 0; r < Rows; ++r) {
                const Vec<T> value = merge_load(zero<T>(), bits, x + r * row_stride + i);
                sum[r] += value, column += value;
            }
            mask_store(kap + i, bits, column);
        }
        for (int r = 0; r < Rows; ++r) {
            T lanes[L];
            store(lanes, sum[r]);
            for (int64_t c = 0; c < channels; ++c) {
                T total = 0;
                for (int64_t l = c; l < L; l += channels) total += lanes[l];
                rho[r * channels + c] = total;
            }
        }
        return;
    }
    int64_t c = 0;
    for (; c + 2 * L <= channels; c += 2 * L) sum_columns<T, Rows, 2, true>(x + c, row_stride, columns, channels, 2 * L, rho + c, kap + c);
    for (; c + L <= channels; c += L) sum_columns<T, Rows, 1, true>(x + c, row_stride, columns, channels, L, rho + c, kap + c);
    if (c < channels) sum_columns<T, Rows, 1, false>(x + c, row_stride, columns, channels, channels - c, rho + c, kap + c);
}

template <class T>
int64_t pool_scratch(const WeightPlan& plan, int64_t channels) {
    int64_t columns = kPanel<T>;  // also a packed row of W_1, when there is a basis
    for (int i = 0; i < plan.layers; ++i) columns = plan.layer[i].columns > columns ? plan.layer[i].columns : columns;
    return columns * panels_of<T>(channels) * kPanel<T> + kPoolRows * channels;
}

template <class T>
void pool(const WeightPlan& plan, const int64_t* sizes, const void* x_, int64_t C, const void* basis_, bool mean, void* pooled_,
          void* scratch_) {
    const T *x = static_cast<const T*>(x_), *basis = static_cast<const T*>(basis_);
    T *pooled = static_cast<T*>(pooled_), *scratch = static_cast<T*>(scratch_), *totals = pooled + plan.global_offset * C;
    if (sizes)
        fill_zero(pooled, plan.rows * C);
    else
        fill_zero(totals, plan.global_slots * C);
    auto node = [&](int label, int r, int slot) {
        const WeightNodes& nodes = plan.nodes[plan.nodes_of[label]];
        return pooled + (nodes.offset + int64_t{r} * nodes.slots + slot) * C;
    };
    for (int i = 0; i < plan.layers; ++i) {
        const WeightLayer& layer = plan.layer[i];
        const int rows = width_of(plan, sizes, i + 1), columns = width_of(plan, sizes, i);
        const int64_t stride = layer.columns * C;
        const T *weight = x + layer.weight * C, *bias = x + layer.bias * C;
        T *total = totals + layer.total_slot * C, *bias_total = totals + layer.bias_total_slot * C;
        const WeightScales scales = weight_scales(plan, sizes, i, mean);
        if (layer.row_slot >= 0 && layer.column_slot >= 0) {
            T *rho = scratch, *kap = scratch + kPoolRows * C;
            fill_zero(kap, columns * C);
            for (int r = 0; r < rows;) {
                const int count = rows - r >= kPoolRows ? kPoolRows : 1;
                if (count == kPoolRows)
                    sum_rows<T, kPoolRows>(weight + r * stride, stride, columns, C, rho, kap);
                else
                    sum_rows<T, 1>(weight + r * stride, stride, columns, C, rho, kap);
                for (int k = 0; k < count; ++k, ++r) {
                    scale(node(i + 1, r, layer.row_slot), rho + k * C, scales.row, C);
                    add(total, rho + k * C, C);
                }
            }
            for (int s = 0; s < columns; ++s) scale(node(i, s, layer.column_slot), kap + s * C, scales.column, C);
        } else if (layer.row_slot >= 0) {  // the columns are features, as they are or through the basis
            for (int r = 0; r < rows; ++r) {
                T* target = node(i + 1, r, layer.row_slot);
                if (basis) {
                    const T* row = weight + r * stride;
                    const T* packed = C == kPanel<T> ? row : scratch;
                    if (packed == scratch) pack_panels(row, columns, C, C, 1, scratch);
                    multiply<T>(plan.rank, C, {basis, layer.columns, packed, columns, 0}, {}, {}, target, C);
                } else {
                    copy_row(weight + r * stride, columns * C, target);
                }
                add(total, target, layer.total_slots * C);
            }
        } else if (layer.column_slot >= 0) {  // the rows are features
            for (int r = 0; r < rows; ++r)
                for (int s = 0; s < columns; ++s) {
                    const T* value = weight + r * stride + s * C;
                    copy_row(value, C, node(i, s, layer.column_slot + r));
                    add(total + r * C, value, C);
                }
        } else {
            copy_row(weight, layer.total_slots * C, total);
        }
        if (layer.bias_slot >= 0) {
            for (int r = 0; r < rows; ++r) {
                copy_row(bias + r * C, C, node(i + 1, r, layer.bias_slot));
                add(bias_total, bias + r * C, C);
            }
        } else {
            copy_row(bias, rows * C, bias_total);
        }
        if (mean) {
            for (int64_t k = 0; k < layer.total_slots * C; ++k) total[k] *= static_cast<T>(scales.total);
            for (int64_t k = 0; k < layer.bias_total_slots * C; ++k) bias_total[k] *= static_cast<T>(scales.bias);
        }
    }
}

template <class T>
int64_t affine_scratch(const WeightPlan& plan, int64_t out_channels) {
    int64_t columns = 1;
    for (int i = 0; i < plan.layers; ++i) columns = plan.layer[i].columns > columns ? plan.layer[i].columns : columns;
    const int64_t padded = panels_of<T>(out_channels) * kPanel<T>;
    return (1 + columns + plan.rank) * padded + (plan.rank ? plan.rank * (plan.layer[0].columns + out_channels) : 0);
}

template <class T>
void affine(const WeightPlan& plan, const int64_t* sizes, const void* x_, int64_t C, int64_t ahead, const void* mix_, const void* terms_,
            int64_t N, const void* basis_, bool mean, void* y_, void* scratch_) {
    const T *x = static_cast<const T*>(x_), *mix = static_cast<const T*>(mix_), *terms = static_cast<const T*>(terms_),
            *basis = static_cast<const T*>(basis_);
    T *y = static_cast<T*>(y_), *scratch = static_cast<T*>(scratch_);
    const int64_t padded = panels_of<T>(N) * kPanel<T>;
    if (sizes || !terms) fill_zero(y, plan.entries * N);
    auto node = [&](int label, int r, int slot) {
        const WeightNodes& nodes = plan.nodes[plan.nodes_of[label]];
        return terms + (nodes.offset + int64_t{r} * nodes.slots + slot) * N;
    };
    for (int i = 0; i < plan.layers; ++i) {
        const WeightLayer& layer = plan.layer[i];
        const int rows = width_of(plan, sizes, i + 1), columns = width_of(plan, sizes, i);
        const int64_t stride = layer.columns * N;
        T *weight = y + layer.weight * N, *bias = y + layer.bias * N;
        const T* total = terms ? terms + (plan.global_offset + layer.total_slot) * N : nullptr;
        const WeightScales scales = weight_scales(plan, sizes, i, mean);
        T *row = scratch, *column = scratch + padded;
        const Factors<T> none{nullptr, 0, nullptr, 0, 0};
        Factors<T> product = none;
        if (layer.mixed >= 0 && mix) product = {nullptr, C, mix + layer.mixed * C * padded, C, ahead};
        if (layer.row_slot >= 0 && layer.column_slot >= 0) {
            if (terms)
                for (int s = 0; s < columns; ++s) {
                    scale(column + s * padded, node(i, s, layer.column_slot), scales.column, N);
                    for (int64_t n = N; n < padded; ++n) column[s * padded + n] = 0;
                }
            for (int64_t n = N; n < padded; ++n) row[n] = 0;
            for (int r = 0; r < rows; ++r) {
                if (terms) combine(row, node(i + 1, r, layer.row_slot), scales.row, total, scales.total, N);
                if (product.depth) product.a = x + (layer.weight + int64_t{r} * layer.columns) * C;
                multiply<T>(columns, N, product, none, terms ? Initial<T>{row, column, padded} : Initial<T>{nullptr, nullptr, 0},
                            weight + r * stride, N);
            }
        } else if (layer.row_slot >= 0 && plan.rank) {  // the columns are seen through the basis
            T *packed = column, *features = column + plan.rank * padded, *turned = features + plan.rank * N;
            if (terms)
                for (int j = 0; j < plan.rank; ++j)
                    for (int s = 0; s < columns; ++s) turned[s * plan.rank + j] = basis[j * layer.columns + s];
            for (int r = 0; r < rows; ++r) {
                if (terms) {
                    combine(features, node(i + 1, r, layer.row_slot), scales.row, total, scales.total, plan.rank * N);
                    pack_panels(features, plan.rank, N, N, 1, packed);
                }
                if (product.depth) product.a = x + (layer.weight + int64_t{r} * layer.columns) * C;
                multiply<T>(columns, N, product, terms ? Factors<T>{turned, plan.rank, packed, plan.rank, 0} : none, {nullptr, nullptr, 0},
                            weight + r * stride, N);
            }
        } else if (terms && layer.row_slot >= 0) {
            for (int r = 0; r < rows; ++r)
                combine(weight + r * stride, node(i + 1, r, layer.row_slot), scales.row, total, scales.total, columns * N);
        } else if (terms && layer.column_slot >= 0) {
            for (int r = 0; r < rows; ++r)
                for (int s = 0; s < columns; ++s)
                    combine(weight + r * stride + s * N, node(i, s, layer.column_slot + r), scales.column, total + r * N, scales.total, N);
        } else if (terms) {
            copy_row(total, layer.total_slots * N, weight);
        }
        if (!terms) continue;
        const T* bias_total = terms + (plan.global_offset + layer.bias_total_slot) * N;
        if (layer.bias_slot >= 0)
            for (int r = 0; r < rows; ++r) combine(bias + r * N, node(i + 1, r, layer.bias_slot), 1, bias_total, scales.bias, N);
        else
            copy_row(bias_total, rows * N, bias);
    }
}

template <class T>
void mix_gradient(const WeightPlan& plan, const int64_t* sizes, const void* x_, int64_t C, int64_t x_ahead, const void* y_, int64_t N,
                  int64_t y_ahead, void* mix_) {
    const T *x = static_cast<const T*>(x_), *y = static_cast<const T*>(y_);
    for (int i = 0; i < plan.layers; ++i) {
        const WeightLayer& layer = plan.layer[i];
        if (layer.mixed < 0) continue;
        T* target = static_cast<T*>(mix_) + layer.mixed * C * N;
        const int64_t rows = width_of(plan, sizes, i + 1), columns = width_of(plan, sizes, i);
        const int64_t runs = columns == layer.columns ? 1 : rows, run = columns == layer.columns ? rows * columns : columns;
        for (int64_t r = 0; r < runs; ++r) {
            const int64_t first = layer.weight + r * layer.columns;
            accumulate_outer(x + first * C, C, C, y + first * N, N, N, run, target, N, x_ahead, y_ahead);
        }
    }
}

template <class T>
int64_t basis_scratch(const WeightPlan& plan, int64_t channels) {
    return plan.rank * channels + channels * panels_of<T>(plan.rank) * kPanel<T>;
}

template <class T>
void basis_gradient(const WeightPlan& plan, const int64_t* sizes, const void* x_, int64_t C, const void* terms_, bool mean, void* gradient_,
                    void* scratch_) {
    const WeightLayer& layer = plan.layer[0];
    const WeightNodes& nodes = plan.nodes[plan.nodes_of[1]];
    const T *x = static_cast<const T*>(x_), *terms = static_cast<const T*>(terms_),
            *total = terms + (plan.global_offset + layer.total_slot) * C;
    T *gradient = static_cast<T*>(gradient_), *features = static_cast<T*>(scratch_), *packed = features + plan.rank * C;
    const int64_t padded = panels_of<T>(plan.rank) * kPanel<T>;
    const WeightScales scales = weight_scales(plan, sizes, 0, mean);
    for (int r = 0; r < width_of(plan, sizes, 1); ++r) {
        combine(features, terms + (nodes.offset + int64_t{r} * nodes.slots + layer.row_slot) * C, scales.row, total, scales.total,
                plan.rank * C);
        pack_panels(features, C, plan.rank, 1, C, packed);
        multiply<T>(layer.columns, plan.rank, {x + (layer.weight + int64_t{r} * layer.columns) * C, C, packed, C, 0}, {},
                    {nullptr, gradient, padded}, gradient, padded);
    }
}

// index[c]: the entry of the first maximum of x among those pooled to a row. A NaN is greater than every number, as it is for torch.
template <class T>
bool locate(const PooledEntries& set, const T* x, int64_t C, T* best, int64_t* index) {
    if (set.outer == 0) return false;
    for (int64_t c = 0; c < C; ++c) best[c] = x[set.first * C + c], index[c] = set.first;
    for (int i = 0; i < set.outer; ++i)
        for (int j = 0; j < set.inner; ++j) {
            const int64_t entry = set.first + int64_t{i} * set.outer_stride + int64_t{j} * set.inner_stride;
            for (int64_t c = 0; c < C; ++c) {
                const T value = x[entry * C + c];
                const bool greater = value > best[c] || (value != value && best[c] == best[c]);
                best[c] = greater ? value : best[c];
                index[c] = greater ? entry : index[c];
            }
        }
    return true;
}

template <class T>
void select(const WeightPlan& plan, const int64_t* sizes, const void* values, const void* x, int64_t C, void* pooled_, void* scratch) {
    int64_t* index = static_cast<int64_t*>(scratch);
    for (int row = 0; row < plan.rows; ++row) {
        T* pooled = static_cast<T*>(pooled_) + row * C;
        const bool found = locate(pooled_entries(plan, sizes, row), static_cast<const T*>(x), C, reinterpret_cast<T*>(index + C), index);
        for (int64_t c = 0; c < C; ++c) pooled[c] = found ? static_cast<const T*>(values)[index[c] * C + c] : T(0);
    }
}

template <class T>
void scatter(const WeightPlan& plan, const int64_t* sizes, const void* pooled, const void* x, int64_t C, void* values, void* scratch) {
    int64_t* index = static_cast<int64_t*>(scratch);
    fill_zero(static_cast<T*>(values), plan.entries * C);
    for (int row = 0; row < plan.rows; ++row) {
        if (!locate(pooled_entries(plan, sizes, row), static_cast<const T*>(x), C, reinterpret_cast<T*>(index + C), index)) continue;
        for (int64_t c = 0; c < C; ++c) static_cast<T*>(values)[index[c] * C + c] += static_cast<const T*>(pooled)[row * C + c];
    }
}

template <class T>
void read(const void* data, DType dtype, int64_t offset, int64_t count, void* out) {
    read_row<T>(data, dtype, offset, 1, count, static_cast<T*>(out));
}

template <class T>
void write(void* data, DType dtype, int64_t offset, int64_t count, const void* in) {
    write_row<T>(data, dtype, offset, count, static_cast<const T*>(in));
}

template <class T>
void pack_matrices(const void* weight, int64_t slots, int64_t C, int64_t N, bool transposed, void* packed) {
    pack_slots(static_cast<const T*>(weight), slots, C, N, transposed, static_cast<T*>(packed));
}

template <class T>
void multiply_any(int64_t rows, int64_t n, const void* a, int64_t a_stride, const void* packed, int64_t depth, const void* row, void* c,
                  int64_t c_stride) {
    const Factors<T> factors{static_cast<const T*>(a), a_stride, static_cast<const T*>(packed), depth, 0};
    multiply<T>(rows, n, factors, {}, {static_cast<const T*>(row), nullptr, 0}, static_cast<T*>(c), c_stride);
}

template <class T>
void outer(const void* a, int64_t a_stride, int64_t rows, const void* g, int64_t g_stride, int64_t n, int64_t depth, void* c,
           int64_t c_stride) {
    accumulate_outer(static_cast<const T*>(a), a_stride, rows, static_cast<const T*>(g), g_stride, n, depth, static_cast<T*>(c), c_stride,
                     0, 0);
}

template <class T>
WeightKernels make_kernels() {
    return {kPanel<T>,         read<T>,   write<T>,        pack_matrices<T>, multiply_any<T>,   outer<T>,  pool_scratch<T>, pool<T>,
            affine_scratch<T>, affine<T>, mix_gradient<T>, basis_scratch<T>, basis_gradient<T>, select<T>, scatter<T>};
}

}  // namespace

const WeightKernelSet& weight_linear_kernels() {
    static const WeightKernelSet set = {make_kernels<float>(), make_kernels<double>()};
    return set;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
