#include "intercept/lifetime/lasting.hh"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>

#include "stack/base/siphash.hh"
#include "stack/tcp/active/ports.hh"

namespace mtcp::intercept {
namespace {

using Key = std::array<std::uint64_t, 4>;
using Counters = stack::PortCounters;

constexpr char kSecret[] = "secret", kDoors[] = "doors";
constexpr std::array<char, 8> kMagic{'m', 't', 'c', 'p', 's', 'e', 'c', '1'};
constexpr std::size_t kPage = 4096;

// The file of secrets: what is secret, and on a page of its own what every process changes. Only that page stays mapped.
struct Contents {
  std::array<char, 8> magic = kMagic;
  Key key{};
  std::array<std::byte, kPage - sizeof magic - sizeof key> unused{};
  std::array<std::byte, kPage> counters{};
};
static_assert(sizeof(Contents) == 2 * kPage);
static_assert(sizeof(Counters) <= kPage && sizeof(DoorNonces) <= kPage);

class Descriptor {
 public:
  Descriptor(Kernel& kernel, int fd) : kernel_(kernel), fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) kernel_.close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return fd_; }

 private:
  Kernel& kernel_;
  int fd_;
};

// The kernel's name of this start of the machine: the same in all processes and containers, and new after a reboot, when
// the clocks begin anew. Nobody outside knows it. Zeros without /proc.
Key boot_key(Kernel& kernel) {
  std::array<char, 64> text{};
  const Descriptor fd(kernel, ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  if (fd >= 0) (void)kernel.read(fd, text.data(), text.size());
  Key key;
  for (std::uint64_t i = 0; i < key.size(); ++i)
    key[i] = stack::siphash<2, 4>({i, 0x6d746370}, std::as_bytes(std::span(text)));
  return key;
}

int open_directory(const KeepingPlace& place, unsigned uid, Kernel& kernel) {
  const Descriptor parent(kernel, ::open(place.parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (parent < 0) return -1;
  (void)::mkdirat(parent, place.name.c_str(), 0700);
  const int fd = ::openat(parent, place.name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  struct stat st{};
  if (fd >= 0 && ::fstat(fd, &st) == 0 && st.st_uid == uid && (st.st_mode & (S_IWGRP | S_IWOTH)) == 0) return fd;
  if (fd >= 0) kernel.close(fd);
  return -1;
}

// A file that is whole appears under the name at once or not at all. `replace`: whatever has it now.
void make_file(int directory, const char* name, std::span<const std::byte> contents, bool replace, Kernel& kernel) {
  std::array<char, 48> fresh{};
  std::uint64_t number = 0;
  if (!fill_random(std::as_writable_bytes(std::span(&number, 1)))) return;
  std::snprintf(fresh.data(), fresh.size(), "%s.%016llx", name, static_cast<unsigned long long>(number));
  {
    const Descriptor fd(kernel, ::openat(directory, fresh.data(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (fd < 0) return;
    const bool written = kernel.write(fd, contents.data(), contents.size()) == static_cast<ssize_t>(contents.size());
    // Of several processes the first one's stays: link() does not replace.
    if (written && replace)
      (void)::renameat(directory, fresh.data(), directory, name);
    else if (written)
      (void)::linkat(directory, fresh.data(), directory, name, 0);
  }
  (void)::unlinkat(directory, fresh.data(), 0);
}

void make_secret(int directory, bool replace, Kernel& kernel) {
  const auto contents = std::make_unique<Contents>();
  if (fill_random(std::as_writable_bytes(std::span(contents->key))))
    make_file(directory, kSecret, std::as_bytes(std::span(contents.get(), 1)), replace, kernel);
}

// -1 and `missing`: there is none, or one that nobody of this user has made so.
int open_file(int directory, const char* name, std::size_t size, unsigned uid, Kernel& kernel, bool& missing) {
  const int fd = ::openat(directory, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  missing = fd < 0 && errno == ENOENT;
  struct stat st{};
  if (fd < 0 || (::fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == uid && (st.st_mode & 077) == 0 &&
                 st.st_size == static_cast<off_t>(size)))
    return fd;
  kernel.close(fd);
  return -1;
}

void* map_page(int fd, off_t offset) {
  void* page = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
  return page == MAP_FAILED ? nullptr : page;
}

enum class Found { good, missing, bad };

Found read_secret(int directory, unsigned uid, Key& key, Counters*& counters, Kernel& kernel) {
  bool missing = false;
  const Descriptor fd(kernel, open_file(directory, kSecret, sizeof(Contents), uid, kernel, missing));
  if (fd < 0) return missing ? Found::missing : Found::bad;
  struct {
    std::array<char, 8> magic;
    Key key;
  } head;
  if (kernel.read(fd, &head, sizeof head) != static_cast<ssize_t>(sizeof head) || head.magic != kMagic)
    return Found::bad;
  counters = static_cast<Counters*>(map_page(fd, kPage));
  if (counters == nullptr) return Found::bad;
  key = head.key;
  return Found::good;
}

bool load_from(const KeepingPlace& place, unsigned uid, Key& key, Counters*& counters, Kernel& kernel) {
  const Descriptor directory(kernel, open_directory(place, uid, kernel));
  if (directory < 0) return false;
  const Found found = read_secret(directory, uid, key, counters, kernel);
  if (found == Found::good) return true;
  make_secret(directory, found == Found::bad, kernel);
  return read_secret(directory, uid, key, counters, kernel) == Found::good;
}

}  // namespace

bool fill_random(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t n = getrandom(out.data(), out.size(), 0);
    if (n < 0 && errno != EINTR) return false;
    if (n > 0) out = out.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

std::vector<KeepingPlace> keeping_places(unsigned uid) {
  const std::string own = "mtcp-" + std::to_string(uid);
  if (uid == 0) return {{"/run", "mtcp"}, {"/dev/shm", own}};
  return {{"/dev/shm", own}, {"/tmp", own}};
}

bool load_lasting(Kernel& kernel, const std::vector<KeepingPlace>& places, stack::Secrets& secrets, bool& usable) {
  const unsigned uid = ::geteuid();
  const Key boot = boot_key(kernel);
  secrets.host = boot;
  usable = true;
  for (const KeepingPlace& place : places) {
    Key kept{};
    Counters* counters = nullptr;
    if (!load_from(place, uid, kept, counters, kernel)) continue;
    // New after a reboot: the clock that they go with has begun anew.
    for (std::size_t i = 0; i < kept.size(); ++i)
      secrets.lasting[i] = stack::siphash_words<2, 4>({kept[i], kept[(i + 1) % 4]}, boot[0], boot[1], std::uint64_t{i});
    secrets.port_counters = counters;
    return true;
  }
  secrets.port_counters = nullptr;
  usable = fill_random(std::as_writable_bytes(std::span(secrets.lasting)));
  return false;
}

DoorNonces* load_door_nonces(Kernel& kernel, const std::vector<KeepingPlace>& places) {
  const unsigned uid = ::geteuid();
  for (const KeepingPlace& place : places) {
    const Descriptor directory(kernel, open_directory(place, uid, kernel));
    if (directory < 0) continue;
    for (int i = 0; i < 2; ++i) {
      bool missing = false;
      const Descriptor fd(kernel, open_file(directory, kDoors, kPage, uid, kernel, missing));
      if (void* page = fd >= 0 ? map_page(fd, 0) : nullptr; page != nullptr) return static_cast<DoorNonces*>(page);
      if (i == 0) make_file(directory, kDoors, std::array<std::byte, kPage>{}, !missing, kernel);
    }
  }
  return nullptr;
}

}  // namespace mtcp::intercept
