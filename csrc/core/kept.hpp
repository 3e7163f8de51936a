// Kept: what a driver has made of the arguments of a call, held by its caller from call to call. Whether it still fits is for the driver to
// see. Safe to share among threads.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

namespace isotypic {

template <class T>
class Kept {
  public:
    std::shared_ptr<const T> get() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return made_;
    }
    void set(std::shared_ptr<const T> made) {
        const std::lock_guard<std::mutex> lock(mutex_);
        made_ = std::move(made);
    }

  private:
    mutable std::mutex mutex_;
    std::shared_ptr<const T> made_;
};

}  // namespace isotypic
