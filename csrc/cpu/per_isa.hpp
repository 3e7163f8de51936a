// The kernels of an operator, compiled once for each instruction set in a namespace of its own, and the choice among them.
#pragma once

// ISOTYPIC_DECLARE_PER_ISA(const Kernels& kernels()); declares the function in each of these namespaces.
// ISOTYPIC_SELECT_ISA(kernels) calls the one of the instruction set in use; it needs cpu/isa.hpp.
#if defined(__x86_64__) && !defined(ISOTYPIC_SCALAR_ALONE)
#define ISOTYPIC_DECLARE_PER_ISA(...) \
    namespace scalar {                \
    __VA_ARGS__;                      \
    }                                 \
    namespace avx2 {                  \
    __VA_ARGS__;                      \
    }                                 \
    namespace avx512 {                \
    __VA_ARGS__;                      \
    }
#define ISOTYPIC_SELECT_ISA(function) \
    (isa() == Isa::avx512 ? avx512::function() : isa() == Isa::avx2 ? avx2::function() : scalar::function())
#elif defined(__aarch64__) && !defined(ISOTYPIC_SCALAR_ALONE)
#define ISOTYPIC_DECLARE_PER_ISA(...) \
    namespace scalar {                \
    __VA_ARGS__;                      \
    }                                 \
    namespace neon {                  \
    __VA_ARGS__;                      \
    }
#define ISOTYPIC_SELECT_ISA(function) (isa() == Isa::neon ? neon::function() : scalar::function())
#else
#define ISOTYPIC_DECLARE_PER_ISA(...) \
    namespace scalar {                \
    __VA_ARGS__;                      \
    }
#define ISOTYPIC_SELECT_ISA(function) scalar::function()
#endif
