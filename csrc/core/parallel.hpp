// Threads: torch's own OpenMP pool (the extension and torch share one libgomp), so torch.set_num_threads is obeyed.
#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace isotypic {

inline int max_threads() {
#ifdef _OPENMP
    return omp_in_parallel() ? 1 : omp_get_max_threads();
#else
    return 1;
#endif
}

// work(item, thread) for item < items. Items go to threads in fixed contiguous runs: the same every time.
template <class Work>
void parallel_for(int64_t items, int threads, const Work& work) {
#ifdef _OPENMP
    if (threads > 1 && items > 1) {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t item = 0; item < items; ++item) work(item, omp_get_thread_num());
        return;
    }
#endif
    for (int64_t item = 0; item < items; ++item) work(item, 0);
}

}  // namespace isotypic
