// The current device, the versions of runtime and driver, and what an error of the runtime means.
#pragma once

#include <string>

namespace isotypic {
namespace cuda {

// As 1000 major + 10 minor; the driver's is that of the newest runtime it serves, 0 where there is none.
struct Versions {
    int runtime = 0, driver = 0;
};
Versions versions();

// Of a cudaError_t. The runtime is linked statically, so that this build and not the one of torch decides which driver is needed.
std::string error_text(int error);

// The current device of this thread becomes `device` until the guard is gone.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device);
    ~DeviceGuard();
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int before_ = -1;
};

}  // namespace cuda
}  // namespace isotypic
