// Memory that a kernel works in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "core/large_pages.hpp"

namespace isotypic {

// `parts` of `bytes` each, such as one for each thread, on cache lines of their own. std::bad_alloc where there is no memory.
class Scratch {
  public:
    Scratch() = default;
    explicit Scratch(int64_t bytes, int64_t parts = 1) : bytes_((bytes + 63) / 64 * 64) {
        data_.reset(static_cast<char*>(std::aligned_alloc(64, static_cast<size_t>(std::max<int64_t>(bytes_ * parts, 64)))));
        if (!data_) throw std::bad_alloc();
        ask_for_large_pages(data_.get(), bytes_ * parts);
    }
    char* part(int64_t i) const { return data_.get() + i * bytes_; }
    char* get() const { return data_.get(); }
    int64_t stride() const { return bytes_; }  // from one part to the next

  private:
    struct Free {
        void operator()(char* p) const { std::free(p); }
    };
    int64_t bytes_ = 0;
    std::unique_ptr<char, Free> data_;
};

}  // namespace isotypic
