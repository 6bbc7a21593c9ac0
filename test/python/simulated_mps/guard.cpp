// PyTorch asks for a device guard before it runs anything on a device, and builds without Metal
// have none for MPS. This one does nothing, which is right: the memory is the CPU's.
#include <c10/core/impl/DeviceGuardImplInterface.h>

C10_REGISTER_GUARD_IMPL(MPS, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::MPS>)
