// permute on a device: a word of 4 bytes, or a byte where entries are no multiple of it, to a thread; bound by memory. Neighbouring threads
// write neighbouring addresses, or read them where the order is inverted.
#include "ops/permute.hpp"

#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kPermuteThreads = 256;

template <class Word>
__global__ void __launch_bounds__(kPermuteThreads) words(PermuteCall call, int64_t width, int64_t count) {
    const int64_t at = static_cast<int64_t>(block_index()) * kPermuteThreads + thread_index();
    if (at >= count) return;
    const int64_t n = call.n, w = at % width, entry = at / width;
    const int64_t s = entry % n, r = call.axes == 2 ? entry / n % n : 0, b = call.axes == 2 ? entry / n / n : entry / n;
    const int64_t* order = call.order + b * n;
    const int64_t column = order[s], line = call.axes == 2 ? order[r] : 0;
    if (column < 0 || column >= n || line < 0 || line >= n) return;
    const int64_t other = ((call.axes == 2 ? b * n + line : b) * n + column) * width + w;
    const Word* x = static_cast<const Word*>(call.x);
    Word* y = static_cast<Word*>(call.y);
    if (call.inverse)
        y[other] = x[at];
    else
        y[at] = x[other];
}

template <class Word>
void run(const PermuteCall& call, void* stream) {
    const int64_t width = call.bytes / static_cast<int64_t>(sizeof(Word)),
                  count = call.batch * call.n * (call.axes == 2 ? call.n : 1) * width;
    launch("permute", words<Word>, (count + kPermuteThreads - 1) / kPermuteThreads, kPermuteThreads, 0, stream, call, width, count);
}

}  // namespace

void permute(const PermuteCall& call, void* stream) {
    call.bytes % 4 == 0 ? run<uint32_t>(call, stream) : run<uint8_t>(call, stream);
}

}  // namespace cuda
}  // namespace isotypic
