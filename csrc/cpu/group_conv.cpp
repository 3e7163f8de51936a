// Driver of the CPU kernels of group_conv: derives sizes, allocates the workspace, and hands items of work to the threads.
#include "ops/group_conv.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/group_conv_kernel.hpp"
#include "cpu/isa.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kPanelBytes = 256 << 10;     // x panel of a channel block: stays in L2 beside the blocks that stream through it
constexpr int64_t kNearPanelBytes = 20 << 10;  // the same where the y panel is short enough that everything stays in the first-level cache
constexpr int64_t kNearBytes = 8 << 10;        // of such a y panel
constexpr int64_t kBandBytes = 4096 << 10;     // padded copy of a band: read a few rows at a time, so that L3 will do
constexpr double kLargestCopy = 1e15;          // bytes; more than any machine holds
constexpr int64_t kBandHalos = 4;              // rows of a band, at least, over those of its halo

const Kernels* kernels_for(bool wide) {
    const KernelSet& set = ISOTYPIC_SELECT_ISA(group_conv_kernels);
    return wide ? &set.float64 : &set.float32;
}

FourierIndex fourier_index(const std::string& name) {
#define ISOTYPIC_MATCH(Program) \
    if (name == fourier::Program::name) return kFourier##Program;
    ISOTYPIC_FOR_EACH_FOURIER(ISOTYPIC_MATCH)
#undef ISOTYPIC_MATCH
    return kFourierGeneric;
}

// Python sees a MemoryError that says what for.
struct NoMemory : std::bad_alloc {
    const char* what() const noexcept override {
        return "group_conv: no memory for the working copy of x, whose size is that of one padded sample; reduce padding, dilation or "
               "stride";
    }
};

Scratch allocate(int64_t bytes, int64_t parts = 1) try { return Scratch(bytes, parts); } catch (const std::bad_alloc&) {
    throw NoMemory();
}

SparseMatrix sparse(const SparseRows& rows) {
    return {static_cast<int>(rows.row_begin.size()) - 1, rows.row_begin.data(), rows.column.data(), rows.value.data()};
}

enum class Pass { forward, transpose, weight };

// A linear layer on positions that are given as one row.
bool row_of_points(const GroupConvCall& p) {
    for (int i = 0; i < 3; ++i)
        if (p.kernel[i] != 1 || p.stride[i] != 1 || p.padding[i] != 0 || (i < 2 && p.in_size[i] != 1)) return false;
    return true;
}

}  // namespace

// A call but for its tensors, and the arrays it points to.
struct PreparedGroupConv {
    GroupConvCall call{};
    const GroupConvPlan* given = nullptr;
    std::shared_ptr<const int> identity;  // of the plan given, so that no other plan in its place is taken for it
    int threads = 0;
    const Kernels* kernels = nullptr;
    const GroupConvPlan* chosen = nullptr;  // the plan given, or its three products
    int64_t itemsize = 0;
    std::vector<KernelIrrep> irreps;
    std::vector<KernelOrbit> orbits;
    std::vector<int> y_inner, x_inner;
    std::vector<int64_t> x_base, y_base;
    std::vector<PackedMatrix> blocks;

    PreparedGroupConv(const PreparedGroupConv&) = delete;  // the call points into it
    PreparedGroupConv(const GroupConvPlan& plan_given, const GroupConvSizes& sizes, bool wide, Pass pass, bool adjoint_weight)
        : given(&plan_given), identity(plan_given.identity), threads(max_threads()) {
        // Three products for a complex one pay once their additions are shared by some out fields.
        const bool three_products = given->three_products && std::min(sizes.in_fields, sizes.out_fields) / sizes.groups >= 8;
        const GroupConvPlan& plan = three_products ? *given->three_products : *given;
        kernels = kernels_for(wide);
        itemsize = wide ? 8 : 4;
        chosen = &plan;
        fill_plan(plan, adjoint_weight);
        fill_sizes(plan, sizes, adjoint_weight, pass);
        choose_blocking(pass);
        fill_blocks(pass);
    }

    void fill_plan(const GroupConvPlan& plan, bool adjoint_weight) {
        GroupConvCall& p = call;
        p.order = plan.order;
        p.sources = plan.sources;
        p.rows = static_cast<int>(plan.row_irrep.size());
        p.irrep_count = static_cast<int>(plan.irreps.size());
        p.orbit_count = static_cast<int>(plan.orbits.size());
        p.fourier = fourier_index(plan.fourier);
        std::vector<int> inner(plan.irreps.size(), 0);
        const auto matrix = [&](const Rounded& m) { return itemsize == 8 ? static_cast<const void*>(m.wide.data()) : m.single.data(); };
        orbits.reserve(plan.orbits.size()), irreps.reserve(inner.size()), blocks.reserve(inner.size());
        x_base.reserve(inner.size()), y_base.reserve(inner.size()), x_inner.reserve(inner.size()), y_inner.reserve(inner.size());
        for (const TapOrbit& orbit : plan.orbits) {
            orbits.push_back({orbit.length, orbit.analysis_rows, orbit.source.data(), orbit.tap.data(), orbit.row_irrep.data(),
                              orbit.row_r.data(), orbit.row_k.data(), sparse(orbit.sparse_analysis), sparse(orbit.sparse_adjoint),
                              orbit.weight_rows, static_cast<int>(orbit.weight_index.size()),
                              adjoint_weight ? orbit.adjoint_index.data() : orbit.weight_index.data(), matrix(orbit.weight_rounded),
                              matrix(orbit.weight_columns), orbit.weight_irrep.data(), orbit.weight_j.data(), orbit.weight_k.data()});
            for (size_t i = 0; i < inner.size(); ++i) inner[i] += orbit.inner[i];
        }
        for (size_t i = 0; i < inner.size(); ++i) irreps.push_back({plan.irreps[i].dim, plan.irreps[i].rows, inner[i]});
        p.irreps = irreps.data();
        p.orbits = orbits.data();
        p.synthesis = sparse(plan.sparse_synthesis);
        p.synthesis_adjoint = sparse(plan.sparse_synthesis_adjoint);
        p.synthesis_irrep = plan.row_irrep.data();
        p.synthesis_r = plan.row_r.data();
        p.synthesis_j = plan.row_j.data();
    }

    void fill_sizes(const GroupConvPlan& plan, const GroupConvSizes& sizes, bool adjoint_weight, Pass pass) {
        GroupConvCall& p = call;
        p.batch = sizes.batch;
        p.groups = sizes.groups;
        p.in_fields = sizes.in_fields / sizes.groups;
        p.out_fields = sizes.out_fields / sizes.groups;
        for (int i = 0; i < 3; ++i) {
            p.in_size[i] = sizes.in_size[i], p.out_size[i] = sizes.out_size[i], p.kernel[i] = sizes.kernel[i];
            p.stride[i] = sizes.out_size[i] == 1 ? 1 : sizes.stride[i];  // a single position takes no stride, however large
            p.padding[i] = sizes.padding[i], p.dilation[i] = sizes.dilation[i];
        }
        p.positions = p.out_size[0] * p.out_size[1] * p.out_size[2];
        p.column = pass != Pass::transpose && row_of_points(p);
        if (p.column) {  // bands divide a column among the threads
            std::swap(p.in_size[0], p.in_size[2]), std::swap(p.out_size[0], p.out_size[2]);
        }
        // weight (group, out field, channel, weight_size); in the adjoint the fields of the call are the weight's channels
        const int64_t fields = adjoint_weight ? p.in_fields : p.out_fields, channels = adjoint_weight ? p.out_fields : p.in_fields;
        p.weight_group_stride = fields * channels * plan.weight_size;
        p.weight_field_stride = adjoint_weight ? plan.weight_size : channels * plan.weight_size;
        p.weight_channel_stride = adjoint_weight ? channels * plan.weight_size : plan.weight_size;
    }

    int64_t channel_rows() const {  // rows of the x panel per channel
        int64_t rows = 0;
        for (const KernelOrbit& orbit : orbits) rows += orbit.analysis_rows;
        return rows;
    }

    void choose_blocking(Pass pass) {
        GroupConvCall& p = call;
        const int64_t channel_bytes = std::max<int64_t>(1, channel_rows() * kernels->tile * itemsize);
        p.strip_tiles = pass == Pass::weight ? std::clamp<int64_t>(kPanelBytes / (4 * channel_bytes), 2, 4) : 1;
        // Every channel block reads and writes the y panel once more, so that short blocks are for few out fields.
        const bool near = pass == Pass::forward && p.out_fields * p.rows * kernels->tile * itemsize <= kNearBytes;
        const int64_t panel_bytes = near ? kNearPanelBytes : kPanelBytes;
        p.channel_block = std::clamp<int64_t>(panel_bytes / (channel_bytes * p.strip_tiles), 1, std::max<int64_t>(p.in_fields, 1));
        const int64_t blocks = (p.in_fields + p.channel_block - 1) / p.channel_block;
        p.channel_block = blocks ? (p.in_fields + blocks - 1) / blocks : 1;

        int64_t extent[3];
        for (int i = 0; i < 3; ++i) extent[i] = (p.out_size[i] - 1) * p.stride[i] + p.dilation[i] * (p.kernel[i] - 1) + 1;
        // In floating point, because with settings near 2^31 the products of integers below would overflow.
        const double copy = 8.0 * p.in_fields * p.sources * (extent[2] + p.stride[2]) * extent[1] * extent[0];
        if (copy > kLargestCopy) throw NoMemory();
        p.padded.phase_pitch = (extent[2] + p.stride[2] - 1) / p.stride[2];
        p.padded.pitch1 = p.padded.phase_pitch * p.stride[2];
        p.padded.pitch0 = p.padded.pitch1 * extent[1];
        p.band_rows = p.out_size[0];
        if (pass != Pass::transpose) {
            // A band's copy should stay in the cache while its tiles are worked on. Its halo is copied once more for each band, so that a
            // band is no shorter than some halos; nor than a tile.
            const int64_t items = std::max<int64_t>(p.batch * p.groups, 1), slice = p.out_size[1] * p.out_size[2];
            const int64_t least = (kernels->tile + slice - 1) / slice, halos = kBandHalos * p.dilation[0] * (p.kernel[0] - 1) / p.stride[0];
            const int64_t row_bytes = p.in_fields * p.sources * p.padded.pitch0 * p.stride[0] * itemsize;
            p.band_rows = std::min(p.band_rows, std::max({kBandBytes / std::max<int64_t>(row_bytes, 1), halos, least}));
            if (threads > 1 && items < 2 * threads) {  // too few samples for the threads
                const int64_t wanted = (2 * threads + items - 1) / items;
                p.band_rows = std::min(p.band_rows, std::max((p.out_size[0] + wanted - 1) / wanted, least));
            }
            const int64_t count = (p.out_size[0] + p.band_rows - 1) / p.band_rows;
            p.band_rows = (p.out_size[0] + count - 1) / count;
        }
        const int64_t band_extent = (p.band_rows - 1) * p.stride[0] + p.dilation[0] * (p.kernel[0] - 1) + 1;
        p.padded.plane = p.padded.pitch0 * band_extent;
    }

    void fill_blocks(Pass pass) {
        GroupConvCall& p = call;
        int64_t x_size = 0, y_size = 0, base = 0;
        for (const KernelIrrep& irrep : irreps) {
            x_base.push_back(x_size), y_base.push_back(y_size);
            x_inner.push_back(irrep.inner), y_inner.push_back(irrep.dim);
            x_size += irrep.rows * p.channel_block * irrep.inner * kernels->tile;
            y_size += irrep.rows * p.out_fields * irrep.dim * kernels->tile;
            const int64_t in = p.in_fields * irrep.inner, out = p.out_fields * irrep.dim;
            PackedMatrix matrix{base, in, out, 1};
            if (pass == Pass::transpose) {
                std::swap(matrix.rows, matrix.columns);
                matrix.width = even_width(p.channel_block * irrep.inner);
            } else if (pass == Pass::weight) {
                matrix.width = kernels->gradient_width;
                matrix.columns = (out + kernels->lanes - 1) / kernels->lanes * kernels->lanes;
            } else {
                matrix.width = even_width(out);
            }
            base += matrix.rows * matrix.columns;
            blocks.push_back(matrix);
        }
        p.blocks_size = base;
        p.x_panel = {static_cast<int>(p.channel_block), x_base.data(), x_inner.data(), x_size};
        p.y_panel = {static_cast<int>(p.out_fields), y_base.data(), y_inner.data(), y_size};
        p.blocks = blocks.data();
    }

    int64_t even_width(int64_t columns) const {  // as few register blocks as possible, of nearly equal width
        const int64_t count = (columns + kernels->max_width - 1) / kernels->max_width;
        return count ? (columns + count - 1) / count : 1;
    }

    int64_t bands() const { return (call.out_size[0] + call.band_rows - 1) / call.band_rows; }

    bool fits(const GroupConvPlan& plan, bool wide) const {
        return given == &plan && identity == plan.identity && kernels == kernels_for(wide) && threads == max_threads();
    }

    GroupConvCall with(const View& x, const View& weight, const View& bias, const View& y) const {
        GroupConvCall whole = call;
        whole.x = x, whole.weight = weight, whole.bias = bias, whole.y = y;
        if (whole.column) std::swap(whole.x.strides[3], whole.x.strides[5]);
        return whole;
    }
};

namespace {

// What the sizes hold of an earlier call, if it fits.
std::shared_ptr<const PreparedGroupConv> prepare(Kept<PreparedGroupConv>& kept, const GroupConvPlan& plan, const GroupConvSizes& sizes,
                                                 const View& x, Pass pass, bool adjoint_weight = false) {
    const bool wide = x.dtype == DType::float64;
    std::shared_ptr<const PreparedGroupConv> prepared = kept.get();
    if (!prepared || !prepared->fits(plan, wide)) {
        prepared = std::make_shared<const PreparedGroupConv>(plan, sizes, wide, pass, adjoint_weight);
        kept.set(prepared);
    }
    return prepared;
}

// Runs work(item, workspace) over all items, each thread with its own workspace of `size` elements.
template <class Work>
void for_each_item(int64_t items, int64_t size, int64_t itemsize, const Work& work) {
    const int64_t threads = std::min<int64_t>(max_threads(), std::max<int64_t>(items, 1));
    const Scratch workspace = allocate(size * itemsize, threads);
    parallel_for(items, static_cast<int>(threads), [&](int64_t item, int thread) { work(item, workspace.part(thread), thread); });
}

Scratch pack(const PreparedGroupConv& prepared, GroupConvCall& p, bool transposed) {
    Scratch packed = allocate(p.groups * p.blocks_size * prepared.itemsize);
    p.packed = packed.get();
    const int64_t outer = transposed ? p.in_fields : p.out_fields, work = p.groups * p.blocks_size;
    parallel_for(p.groups * outer, work > 1 << 16 ? max_threads() : 1,
                 [&](int64_t item, int) { prepared.kernels->pack(p, item / outer, item % outer, transposed); });
    return packed;
}

void run_forward(const PreparedGroupConv& prepared, const GroupConvCall& p) {
    const int64_t bands = prepared.bands();
    for_each_item(p.batch * p.groups * bands, prepared.kernels->forward_workspace(p), prepared.itemsize,
                  [&](int64_t item, void* workspace, int) {
                      prepared.kernels->forward(p, item / bands / p.groups, item / bands % p.groups, item % bands, workspace);
                  });
}

bool nothing_to_do(const GroupConvSizes& sizes) {
    return sizes.batch == 0 || sizes.out_fields == 0 || sizes.out_size[0] * sizes.out_size[1] * sizes.out_size[2] == 0;
}

}  // namespace

struct TransformedWeight {
    Scratch blocks, weight;
    int64_t weight_bytes;
    DType dtype;
    const Kernels* kernels;
    int64_t groups, in_fields, out_fields;
    std::shared_ptr<const int> plan;  // the identity of the plan, which is not looked into

    bool fits(const PreparedGroupConv& prepared, const GroupConvCall& p) const {
        return plan == prepared.chosen->identity && kernels == prepared.kernels && dtype == p.weight.dtype && groups == p.groups &&
               in_fields == p.in_fields && out_fields == p.out_fields &&
               std::memcmp(weight.get(), p.weight.data, static_cast<size_t>(weight_bytes)) == 0;
    }
};

void group_conv(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& x, const View& weight, const View& bias, const View& y,
                GroupConvBlocks* kept) {
    ask_for_large_pages(y);
    if (nothing_to_do(sizes)) return;
    const auto prepared = prepare(sizes.prepared->forward, plan, sizes, x, Pass::forward);
    GroupConvCall p = prepared->with(x, weight, bias, y);
    if (!kept) {
        const Scratch packed = pack(*prepared, p, false);
        return run_forward(*prepared, p);
    }
    std::shared_ptr<const TransformedWeight> made = kept->get();
    if (!made || !made->fits(*prepared, p)) {
        const int64_t bytes = weight.numel() * itemsize(weight.dtype);
        Scratch copy = allocate(bytes);
        std::memcpy(copy.get(), weight.data, static_cast<size_t>(bytes));
        made = std::make_shared<const TransformedWeight>(TransformedWeight{pack(*prepared, p, false), std::move(copy), bytes, weight.dtype,
                                                                           prepared->kernels, p.groups, p.in_fields, p.out_fields,
                                                                           prepared->chosen->identity});
        kept->set(made);
    }
    p.packed = made->blocks.get();
    run_forward(*prepared, p);
}

void group_conv_transpose(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& y, const View& weight, const View& x) {
    ask_for_large_pages(x);
    if (nothing_to_do(sizes) || sizes.in_fields == 0) {
        std::memset(x.data, 0, static_cast<size_t>(x.numel() * itemsize(x.dtype)));
        return;
    }
    const bool unit_stride = sizes.stride[0] == 1 && sizes.stride[1] == 1 && sizes.stride[2] == 1;
    if (unit_stride && !plan.orbits[0].adjoint_index.empty()) {
        // The adjoint of a regular field's convolution is the convolution with psi~[c, o, u](t) = psi[o, c, u^-1](-u^-1 t).
        GroupConvSizes adjoint = sizes;
        std::swap(adjoint.in_fields, adjoint.out_fields);
        for (int i = 0; i < 3; ++i) {
            std::swap(adjoint.in_size[i], adjoint.out_size[i]);
            adjoint.padding[i] = sizes.dilation[i] * (sizes.kernel[i] - 1) - sizes.padding[i];
        }
        const auto prepared = prepare(sizes.prepared->adjoint, plan, adjoint, y, Pass::forward, true);
        GroupConvCall p = prepared->with(y, weight, View{}, x);
        const Scratch packed = pack(*prepared, p, false);
        return run_forward(*prepared, p);
    }
    const auto prepared = prepare(sizes.prepared->transpose, plan, sizes, x, Pass::transpose);
    GroupConvCall p = prepared->with(x, weight, View{}, y);
    const Scratch packed = pack(*prepared, p, true);
    const int64_t blocks = (p.in_fields + p.channel_block - 1) / p.channel_block;
    for_each_item(p.batch * p.groups * blocks, prepared->kernels->transpose_workspace(p), prepared->itemsize,
                  [&](int64_t item, void* workspace, int) {
                      prepared->kernels->transpose(p, item / blocks / p.groups, item / blocks % p.groups, item % blocks, workspace);
                  });
}

namespace {

constexpr int64_t kBlockPositions = 4096;

// total += block, and block = 0.
void add_block(float* block, int64_t count, double* total) {
    for (int64_t i = 0; i < count; ++i) {
        total[i] += static_cast<double>(block[i]);
        block[i] = 0;
    }
}

}  // namespace

void group_conv_weight(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& x, const View& y, const View& weight) {
    std::memset(weight.data, 0, static_cast<size_t>(weight.numel() * itemsize(weight.dtype)));
    if (nothing_to_do(sizes) || sizes.in_fields == 0) return;
    const auto prepared = prepare(sizes.prepared->weight, plan, sizes, x, Pass::weight);
    GroupConvCall p = prepared->with(x, weight, View{}, y);
    const int64_t bands = prepared->bands(), items = p.batch * p.groups * bands, sums = p.groups * p.blocks_size;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), items));
    const Scratch partial = allocate(sums * threads * prepared->itemsize);
    std::memset(partial.get(), 0, static_cast<size_t>(sums * threads * prepared->itemsize));
    // Sums in float32 over a whole batch of images would be several times less accurate than those of a dense convolution, which adds up
    // blocks: here blocks of kBlockPositions at least, in float64.
    const bool in_blocks = prepared->itemsize == 4;
    const Scratch totals = allocate(in_blocks ? sums * threads * 8 : 0);
    if (in_blocks) std::memset(totals.get(), 0, static_cast<size_t>(sums * threads * 8));
    std::vector<int64_t> positions(static_cast<size_t>(threads), 0);
    auto block_of = [&](int thread) { return partial.get() + thread * sums * prepared->itemsize; };
    auto total_of = [&](int thread) { return reinterpret_cast<double*>(totals.get()) + thread * sums; };
    auto close_block = [&](int thread) {
        add_block(reinterpret_cast<float*>(block_of(thread)), sums, total_of(thread));
        positions[static_cast<size_t>(thread)] = 0;
    };
    for_each_item(items, prepared->kernels->weight_workspace(p), prepared->itemsize, [&](int64_t item, void* workspace, int thread) {
        prepared->kernels->weight(p, item / bands / p.groups, item / bands % p.groups, item % bands, block_of(thread), workspace);
        positions[static_cast<size_t>(thread)] += p.band_rows * p.out_size[1] * p.out_size[2];
        if (in_blocks && positions[static_cast<size_t>(thread)] >= kBlockPositions) close_block(thread);
    });
    p.packed = partial.get();
    // In thread order; items go to threads by number alone, so that the sum is the same every time.
    if (in_blocks) {
        for (int thread = 0; thread < threads; ++thread) close_block(thread);
        for (int thread = 1; thread < threads; ++thread)
            for (int64_t i = 0; i < sums; ++i) total_of(0)[i] += total_of(thread)[i];
        for (int64_t i = 0; i < sums; ++i) static_cast<float*>(p.packed)[i] = static_cast<float>(total_of(0)[i]);
    } else {
        double* first = static_cast<double*>(p.packed);
        for (int thread = 1; thread < threads; ++thread)
            for (int64_t i = 0; i < sums; ++i) first[i] += first[thread * sums + i];
    }
    const bool same_type = weight.dtype == (prepared->itemsize == 8 ? DType::float64 : DType::float32);
    Scratch wide;
    p.weight_sums = weight.data;
    if (!same_type) {
        wide = allocate(weight.numel() * prepared->itemsize);
        std::memset(wide.get(), 0, static_cast<size_t>(weight.numel() * prepared->itemsize));
        p.weight_sums = wide.get();
    }
    parallel_for(p.groups * p.out_fields, sums > 1 << 16 ? max_threads() : 1,
                 [&](int64_t item, int) { prepared->kernels->unpack(p, item / p.out_fields, item % p.out_fields); });
}

}  // namespace isotypic::cpu
