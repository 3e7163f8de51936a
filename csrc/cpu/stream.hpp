// Stores past the caches, for results larger than they are.
//
// An ordinary store first reads the line that it writes to: half as many bytes again for a copy. A line that is streamed as a whole goes
// to memory without that, and leaves in L2 what is there. For results that L2 holds it takes twice as long instead, and whoever reads the
// result next finds it further away.
#pragma once

#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

#if ISOTYPIC_VECTOR_BYTES >= 32

ISOTYPIC_INLINE void stream(float* to, Vec<float> value) {
#if defined(ISOTYPIC_ISA_AVX512)
    _mm512_stream_ps(to, reinterpret_cast<__m512>(value));
#else
    _mm256_stream_ps(to, reinterpret_cast<__m256>(value));
#endif
}
ISOTYPIC_INLINE void stream(double* to, Vec<double> value) {
#if defined(ISOTYPIC_ISA_AVX512)
    _mm512_stream_pd(to, reinterpret_cast<__m512d>(value));
#else
    _mm256_stream_pd(to, reinterpret_cast<__m256d>(value));
#endif
}

// After the last streamed store of a thread, before another one may read what was stored.
ISOTYPIC_INLINE void streamed() {
    _mm_sfence();
}

#else

template <class T>
ISOTYPIC_INLINE void stream(T* to, Vec<T> value) {
    store(to, value);
}
ISOTYPIC_INLINE void streamed() {}

#endif

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
