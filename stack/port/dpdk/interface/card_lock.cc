#include "stack/port/dpdk/interface/card_lock.hh"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

std::string full_pci_address(std::string_view port) {
  std::string address(port.substr(0, port.find(',')));
  return address.size() <= 8 ? "0000:" + address : address;
}

bool CardLock::take(std::string_view port, std::string& message) {
  const std::string address = full_pci_address(port);
  const std::string path = directory_ + "/mtcp-" + address + ".lock";
  const long fd = system_call(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path.c_str()),
                              O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return true;
  fd_ = move_high(static_cast<int>(fd));
  if (system_call(SYS_flock, fd_, LOCK_EX | LOCK_NB) == 0) return true;
  const bool taken = errno == EWOULDBLOCK;
  release();
  if (taken) message = "the card " + address + " is in use by another program (" + path + " is locked)";
  return !taken;
}

void CardLock::release() {
  if (fd_ >= 0) mtcp_dpdk_close(fd_);
  fd_ = -1;
}

}  // namespace mtcp::stack::dpdk
