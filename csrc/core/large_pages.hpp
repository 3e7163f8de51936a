// Large pages for large results.
//
// The C library asks the system for every block of 32 MiB or more anew, and the system clears each page of it when it is first written:
// with pages of 4 KiB, 242 MB of result cost 60,000 interruptions, about as much time as all the arithmetic of a weight-space layer with 32
// channels. With pages of 2 MiB they are 115. Linux grants those where the memory is aligned and the program asks
// (transparent huge pages, "madvise"); elsewhere, or where none are free, nothing changes.
#pragma once

#include <cstdint>

#include "core/view.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace isotypic {

constexpr int64_t kLargePage = int64_t{2} << 20, kLargeResult = int64_t{32} << 20;

// Before the first write to memory that was just allocated.
inline void ask_for_large_pages([[maybe_unused]] void* data, int64_t bytes) {
    if (bytes < kLargeResult) return;
#if defined(MADV_HUGEPAGE)
    const auto address = reinterpret_cast<uintptr_t>(data);
    const uintptr_t first = (address + kLargePage - 1) / kLargePage * kLargePage;
    const uintptr_t last = (address + static_cast<uintptr_t>(bytes)) / kLargePage * kLargePage;
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // advice: that it may fail is no error
#endif
}

inline void ask_for_large_pages(const View& result) {
    ask_for_large_pages(result.data, result.numel() * itemsize(result.dtype));
}

}  // namespace isotypic
