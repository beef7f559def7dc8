// What few connections need: made when the first of it is, so that all others are smaller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "stack/base/seq.hh"
#include "stack/base/time.hh"
#include "stack/tcp/sender/stamps.hh"

namespace mtcp::stack {

// Of urgent data (urgent.hh).
struct Urgent {
  enum class Byte : std::uint8_t {
    none,     // none that the application has not passed
    awaited,  // the pointer has come; whether the byte has, too, tells hot.rcv_nxt
    here,
    taken,    // by MSG_OOB
  };
  Byte state = Byte::none;
  std::byte byte{};
  Seq seq;  // of the byte: the mark
  Seq end;  // one past the last urgent byte that was sent: RFC 9293's SND.UP
};

struct ConnectionExtras {
  std::uint64_t bytes_resent = 0;
  std::uint32_t marked_received = 0;   // data segments that came with CE (RFC 3168)
  std::uint32_t marked_delivered = 0;  // segments of ours that the peer has acknowledged with ECE
  std::uint32_t duplicates_reported = 0;  // D-SACK blocks of the peer
  std::uint32_t reorderings = 0;          // times that something came later than what was sent after it
  std::uint16_t timeouts = 0;             // as Linux's tcpi_total_rto ...
  std::uint16_t timeout_episodes = 0;     // ... total_rto_recoveries: rows of them
  Duration in_timeouts{};                 // ... total_rto_time: from the first of a row until something was acknowledged
  Time timeouts_since{};                  // of the row that has not ended; zero: none
  Urgent urgent;  // Connection::urgent: there has been some
  std::unique_ptr<Stamps> stamps;  // null: nobody has asked
};

}  // namespace mtcp::stack
