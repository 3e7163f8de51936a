# ISOTYPIC_SANITIZE=ON builds everything with AddressSanitizer and UndefinedBehaviorSanitizer. tools/sanitize.py runs the tests on it.
option(ISOTYPIC_SANITIZE "Build with address and undefined behaviour sanitizers" OFF)
if(ISOTYPIC_SANITIZE)
  set(ISOTYPIC_KERNEL_OPTIMIZATION -O1)  # instrumented files take minutes to compile otherwise
  set(ISOTYPIC_DRIVER_OPTIMIZATION -O1)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=address,undefined)
endif()
