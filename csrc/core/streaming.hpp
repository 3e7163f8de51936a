// Which results are written past the caches: those that are several times an L2, so that they have left it before anyone reads them.
#pragma once

#include <cstdint>

namespace isotypic {

constexpr int64_t kStreamed = int64_t{4} << 20;  // bytes

// `data` has to lie on a line: the pieces that are stored do not cross one then.
inline bool streams(const void* data, int64_t bytes) {
    return bytes >= kStreamed && reinterpret_cast<uintptr_t>(data) % 64 == 0;
}

}  // namespace isotypic
