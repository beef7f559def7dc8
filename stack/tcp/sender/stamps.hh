// When what has been written was sent, and when it was acknowledged, for those who have asked (Linux's SO_TIMESTAMPING). Few do, so
// it is among the extras; Connection::stamped says whether there is anything to do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "stack/base/seq.hh"
#include "stack/base/time.hh"

namespace mtcp::stack {

// The times that can be asked for: bits.
enum StampKind : std::uint8_t {
  kStampQueued = 1,        // handed over for transmission (SCM_TSTAMP_SCHED)
  kStampSent = 2,          // given to the device (SCM_TSTAMP_SND); there is no queueing discipline between, so it is the same
  kStampAcknowledged = 4,  // the peer has all bytes up to it (SCM_TSTAMP_ACK)
};

struct StampReport {
  StampKind kind{};
  Seq byte;  // the last of the write
  Time when{};
  std::vector<std::byte> frame;  // what was sent, with headers; of what is acknowledged, the payload. Empty: not asked for
};

struct Stamps {
  struct Request {
    Seq byte;
    std::uint8_t kinds = 0;  // StampKind bits
  };
  std::uint8_t wanted = 0;  // of what is written from now on
  bool with_frames = false;
  std::uint32_t memory = 0;          // of the reports, bytes, as Linux counts them
  std::vector<Request> requests;     // in the stream's order, until they are acknowledged
  std::vector<StampReport> reports;  // that nobody has taken
};

}  // namespace mtcp::stack
