#include "stack/port/dpdk/shared_memory.hh"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

std::span<std::byte> map_shared_memory(int fd, std::size_t offset, std::size_t bytes) {
  struct stat st {};
  if (fd < 0 || fstat(fd, &st) != 0 || st.st_size < static_cast<off_t>(offset + bytes)) return {};
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, static_cast<off_t>(offset));
  if (memory == MAP_FAILED) return {};
  return {static_cast<std::byte*>(memory), bytes};
}

int create_shared_memory(const char* name, std::size_t bytes) {
  // Sealed, so that nobody who has the descriptor can take pages away from under the others.
  constexpr unsigned kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW;
  const int fd = move_high(static_cast<int>(system_call(SYS_memfd_create, reinterpret_cast<long>(name), MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (fd < 0) return fd;
  if (system_call(SYS_ftruncate, fd, static_cast<long>(bytes)) == 0 && system_call(SYS_fcntl, fd, F_ADD_SEALS, kSeals) == 0) return fd;
  mtcp_dpdk_close(fd);
  return -1;
}

}  // namespace mtcp::stack::dpdk
