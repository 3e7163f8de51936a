// Driver of the CPU kernels of permute: checks the orders, and hands rows to the threads.
#include "ops/permute.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "cpu/isa.hpp"
#include "cpu/permute_kernel.hpp"

namespace isotypic::cpu {

bool permute(const PermuteCall& call) {
    const int64_t n = call.n;
    if (n > INT32_MAX) return false;
    const PermuteRow row = ISOTYPIC_SELECT_ISA(permute_row);
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
    ask_for_large_pages(y, call.batch * n * (call.axes == 2 ? n : 1) * call.bytes);
    if (call.axes == 1) {
        parallel_for(call.batch, static_cast<int>(std::min<int64_t>(threads, std::max<int64_t>(call.batch, 1))), [&](int64_t b, int) {
            const char* from = x + b * n * call.bytes;
            row(sources.data() + b * n, n, call.bytes, from, from, y + b * n * call.bytes);
        });
    } else {
        const int64_t pitch = n * call.bytes, items = call.batch * n;
        const auto source_row = [&](int64_t item) { return x + (item / n * n + sources[static_cast<size_t>(item)]) * pitch; };
        parallel_for(items, static_cast<int>(std::min<int64_t>(threads, std::max<int64_t>(items, 1))), [&](int64_t item, int) {
            row(sources.data() + item / n * n, n, call.bytes, source_row(item), source_row(std::min(item + 1, items - 1)),
                y + item * pitch);
        });
    }
    return true;
}

}  // namespace isotypic::cpu
