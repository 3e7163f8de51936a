// Memory that is about to be written for the first time.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace isotypic {

// Asks for huge pages under a large tensor. Fresh pages cost more than writing them: measured on a virtual Zen 4 machine, the first writing
// of 242 MB takes 160 ms by pages of 4 kB, 40 ms by pages of 2 MB, the second 12 ms. From 32 MB on, the C library's allocator takes a
// tensor as a mapping of its own and gives it back when it is freed, so that nothing else is advised; with memory of another kind, or where
// the system knows no huge pages, this changes nothing.
inline void expect_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr int64_t kLeast = int64_t{32} << 20;
    constexpr uintptr_t kHuge = uintptr_t{2} << 20;
    if (bytes < kLeast) return;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) / kHuge * kHuge;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kHuge * kHuge;
    if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}

}  // namespace isotypic
