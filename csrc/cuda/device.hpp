// The current device of this thread becomes `device` until the guard is gone.
#pragma once

namespace isotypic {
namespace cuda {

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
