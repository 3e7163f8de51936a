# The CPU kernels are compiled once per instruction set. cpu/isa.cpp asks the machine for every flag named here before it picks a variant.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(ISOTYPIC_ISAS scalar avx2 avx512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(ISOTYPIC_ISAS scalar neon)
else()
  set(ISOTYPIC_ISAS scalar)
endif()

set(ISOTYPIC_FLAGS_avx2 -mavx2 -mfma)
set(ISOTYPIC_FLAGS_avx512 -mavx2 -mfma -mavx512f -mavx512dq -mavx512bw -mavx512vl -mprefer-vector-width=512)

# isotypic_cpu_kernel(target stem): adds csrc/cpu/<stem>_kernel.cpp to the target, once per instruction set.
function(isotypic_cpu_kernel target stem)
  foreach(isa IN LISTS ISOTYPIC_ISAS)
    string(TOUPPER ${isa} isa_upper)
    add_library(${stem}_${isa} OBJECT csrc/cpu/${stem}_kernel.cpp)
    target_include_directories(${stem}_${isa} PRIVATE csrc)
    target_compile_definitions(${stem}_${isa} PRIVATE ISOTYPIC_ISA=${isa} ISOTYPIC_ISA_${isa_upper})
    target_compile_options(${stem}_${isa} PRIVATE -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -Wall -Wextra ${ISOTYPIC_FLAGS_${isa}})
    set_target_properties(${stem}_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${stem}_${isa}>)
  endforeach()
endfunction()
