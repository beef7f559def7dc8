// Preloaded by mtcp-ab's side "busy": has an unmodified program poll the kernel's device queues while it waits, as net.core.busy_poll
// and net.core.busy_read would, which a network namespace does not have. select() and poll() know these settings only.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

// Of Linux 6.9 and 5.11, which Debian 12's headers may lack.
struct busy_parameters {
  uint32_t microseconds;
  uint16_t packets;
  uint8_t prefer, unused;
};
#define SET_BUSY_PARAMETERS _IOW(0x8A, 0x01, struct busy_parameters)
#define PREFER_BUSY_POLL 69

enum { kMicroseconds = 64, kPackets = 8 };

static int with_parameters(int set) {
  const struct busy_parameters p = {.microseconds = kMicroseconds, .packets = kPackets, .prefer = 1};
  if (set >= 0) (void)ioctl(set, SET_BUSY_PARAMETERS, &p);  // mtcp-ab has looked whether the kernel has it
  return set;
}

int epoll_create1(int flags) {
  static int (*next)(int);
  if (next == NULL) *(void**)&next = dlsym(RTLD_NEXT, "epoll_create1");
  return with_parameters(next(flags));
}

int epoll_create(int size) {
  static int (*next)(int);
  if (next == NULL) *(void**)&next = dlsym(RTLD_NEXT, "epoll_create");
  return with_parameters(next(size));
}

// What a listener accepts has its settings.
int socket(int domain, int type, int protocol) {
  static int (*next)(int, int, int);
  if (next == NULL) *(void**)&next = dlsym(RTLD_NEXT, "socket");
  const int fd = next(domain, type, protocol);
  const int microseconds = kMicroseconds, one = 1;
  if (fd >= 0 && (domain == AF_INET || domain == AF_INET6)) {
    (void)setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL, &microseconds, sizeof microseconds);
    (void)setsockopt(fd, SOL_SOCKET, PREFER_BUSY_POLL, &one, sizeof one);
  }
  return fd;
}
