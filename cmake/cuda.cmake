# CUDA kernels, where there is a compiler for them: isotypic_cuda_kernel(target operator) adds csrc/cuda/<operator>.cu and its tables, if any.
#
#   ISOTYPIC_CUDA          AUTO (with nvcc when it is found), ON (fail without), OFF
#   ISOTYPIC_CUDA_TARGETS  architectures to compile machine code for, e.g. "90a", or "all"; the environment variable comes first
#
# The PTX of compute_80 is compiled once, to machine code for each target, and goes into the binary too: the driver compiles it for any other device
# of compute capability 8.0 or more. The runtime library is static and loads the driver when a kernel is first called.
set(ISOTYPIC_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO, ON or OFF")
set(ISOTYPIC_CUDA_TARGETS 90a CACHE STRING "CUDA architectures, separated by semicolons, or all")
set_property(CACHE ISOTYPIC_CUDA PROPERTY STRINGS AUTO ON OFF)
set(ISOTYPIC_CUDA_TARGET_NAMES "")

if(NOT ISOTYPIC_CUDA STREQUAL "AUTO" AND NOT ISOTYPIC_CUDA STREQUAL "ON" AND NOT ISOTYPIC_CUDA STREQUAL "OFF")
  message(FATAL_ERROR "ISOTYPIC_CUDA must be AUTO, ON or OFF, got ${ISOTYPIC_CUDA}")
endif()
if(ISOTYPIC_CUDA STREQUAL "OFF")
  return()
endif()

include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(ISOTYPIC_CUDA STREQUAL "ON")
    message(FATAL_ERROR "ISOTYPIC_CUDA is ON, but no CUDA compiler was found; put nvcc on PATH or set CMAKE_CUDA_COMPILER")
  endif()
  message(STATUS "CUDA kernels: off, no CUDA compiler was found")
  return()
endif()
set(CMAKE_CUDA_ARCHITECTURES OFF)  # the -gencode below says it all
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

set(_targets "${ISOTYPIC_CUDA_TARGETS}")
if(DEFINED ENV{ISOTYPIC_CUDA_TARGETS})
  set(_targets "$ENV{ISOTYPIC_CUDA_TARGETS}")
endif()
if(_targets STREQUAL "all")
  set(_targets 80 86 89 90a)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)  # the first to know Blackwell
    list(APPEND _targets 100 120)
  endif()
endif()
list(TRANSFORM _targets PREPEND sm_)
list(JOIN _targets "," _codes)
list(JOIN _targets " " ISOTYPIC_CUDA_TARGET_NAMES)
set(ISOTYPIC_CUDA_FLAGS "-gencode=arch=compute_80,code=[${_codes},compute_80]")
message(STATUS "CUDA kernels: ${ISOTYPIC_CUDA_TARGET_NAMES} and PTX, nvcc ${CMAKE_CUDA_COMPILER_VERSION}")

function(isotypic_cuda_kernel target operator)
  target_sources(${target} PRIVATE csrc/cuda/device.cpp csrc/cuda/${operator}.cu)
  if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cuda/${operator}_tables.cpp)
    target_sources(${target} PRIVATE csrc/cuda/${operator}_tables.cpp)
  endif()
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:${ISOTYPIC_CUDA_FLAGS}>)
  target_compile_definitions(${target} PRIVATE ISOTYPIC_WITH_CUDA)
  target_link_libraries(${target} PRIVATE CUDA::cudart_static)
  set_target_properties(${target} PROPERTIES CUDA_STANDARD 17 CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static)
endfunction()
