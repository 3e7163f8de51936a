// Driver of the CPU kernels of permute: checks the orders, and hands rows to the threads.
#include "ops/permute.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/streaming.hpp"
#include "cpu/isa.hpp"
#include "cpu/permute_kernel.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kRun = int64_t{64} << 10;  // bytes

}  // namespace

bool permute(const PermuteCall& call) {
    const int64_t n = call.n;
    if (n > INT32_MAX) return false;
    const PermuteKernel& kernel = ISOTYPIC_SELECT_ISA(permute_kernel);
    // source[r]: where place r is read from; the inverse permutation is -1 where nothing goes to.
    std::vector<int32_t> sources(static_cast<size_t>(call.batch * n), -1);
    std::atomic<bool> right{true};
    const int threads = max_threads();
    parallel_for(call.batch, static_cast<int>(std::min<int64_t>(threads, std::max<int64_t>(call.batch, 1))), [&](int64_t b, int) {
        const int64_t* order = call.order + b * n;
        int32_t* place = sources.data() + b * n;
        bool fits = true;
        for (int64_t r = 0; r < n; ++r) {
            fits = fits && order[r] >= 0 && order[r] < n && place[order[r]] < 0;
            if (!fits) break;
            place[order[r]] = static_cast<int32_t>(r);
        }
        if (!fits) {
            right = false;
        } else if (!call.inverse) {
            for (int64_t r = 0; r < n; ++r) place[r] = static_cast<int32_t>(order[r]);
        }
    });
    if (!right) return false;
    const char* x = static_cast<const char*>(call.x);
    char* y = static_cast<char*>(call.y);
    const int64_t size = call.batch * n * (call.axes == 2 ? n : 1) * call.bytes;
    ask_for_large_pages(y, size);
    const bool past = streams(y, size);
    const int64_t rows = call.axes == 2 ? call.batch * n : call.batch, pitch = n * call.bytes;
    const auto read = [&](int64_t r) { return x + (call.axes == 2 ? r / n * n + sources[static_cast<size_t>(r)] : r) * pitch; };
    // An item is a run of rows: a fence for each would wait for each.
    const int64_t run = past ? std::max<int64_t>(kRun / pitch, 1) : 1, items = (rows + run - 1) / run;
    parallel_for(items, static_cast<int>(std::min<int64_t>(threads, std::max<int64_t>(items, 1))), [&](int64_t item, int) {
        const int64_t last = std::min((item + 1) * run, rows);
        for (int64_t r = item * run; r < last; ++r) {
            const int64_t b = call.axes == 2 ? r / n : r;
            kernel.row(sources.data() + b * n, n, call.bytes, read(r), read(std::min(r + 1, rows - 1)), y + r * pitch, past);
        }
        if (past) kernel.finish();
    });
    return true;
}

}  // namespace isotypic::cpu
