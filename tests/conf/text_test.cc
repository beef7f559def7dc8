#include "conf/text.hh"

#include <catch2/catch.hpp>

using namespace mtcp;
using namespace mtcp::conf;
using stack::Duration;
using stack::microseconds;
using stack::milliseconds;
using stack::seconds;

TEST_CASE("times are read with their units") {
  CHECK(parse_duration("50us") == Duration(microseconds(50)));
  CHECK(parse_duration("1.5ms") == Duration(microseconds(1500)));
  CHECK(parse_duration("60s") == Duration(seconds(60)));
  CHECK(parse_duration("2min") == Duration(seconds(120)));
  CHECK(parse_duration("0s") == Duration(0));
  CHECK(parse_duration("10 ms") == Duration(milliseconds(10)));
  for (const char* bad :
       {"", "s", "50", "-1s", "1h", "1.2.3s", "1 s s", "99999999999999min", "1e3s", "0x10s"}) {
    INFO(bad);
    CHECK_FALSE(parse_duration(bad));
  }
}

TEST_CASE("a time that is written can be read again") {
  for (const std::int64_t us :
       std::initializer_list<std::int64_t>{1, 50, 1000, 1500, 40'000, 1'000'000, 60'000'000, 7'200'000'000}) {
    const Duration d = microseconds(us);
    INFO(to_text(d));
    CHECK(parse_duration(to_text(d)) == d);
  }
  CHECK(to_text(Duration(seconds(60))) == "60s");
  CHECK(to_text(Duration(seconds(7200))) == "120min");
  CHECK(to_text(Duration(0)) == "0us");
}

TEST_CASE("addresses and networks are read and written") {
  CHECK(parse_address("10.9.0.2") == stack::IpAddress::v4(10, 9, 0, 2));
  CHECK(parse_address("::ffff:10.9.0.2") == stack::IpAddress::v4(10, 9, 0, 2));
  CHECK(to_text(*parse_address("fd00::2")) == "fd00::2");
  CHECK(to_text(*parse_prefix("10.9.0.0/24")) == "10.9.0.0/24");
  CHECK(to_text(*parse_prefix("fd00::/8")) == "fd00::/8");
  CHECK(parse_prefix("10.9.0.1")->length == 128);
  CHECK(network_of(*parse_prefix("10.9.3.77/22")) == stack::IpAddress::v4(10, 9, 0, 0));
  for (const char* bad : {"", "10.9.0", "10.9.0.2.1", "10.9.0.256", "host", "10.9.0.2/", "10.9.0.2/33",
                          "10.9.0.2/-1", "10.9.0.2/2 4", "fd00::/129", "/24"}) {
    INFO(bad);
    CHECK_FALSE(parse_prefix(bad));
  }
}

TEST_CASE("ports are one or a range") {
  CHECK(parse_ports("80")->last == 80);
  CHECK(parse_ports("8000-8999")->first == 8000);
  CHECK(parse_ports("8000-8999")->last == 8999);
  for (const char* bad : {"", "-", "80-", "-80", "90-80", "65536", "80,81", " 80", "http"}) {
    INFO(bad);
    CHECK_FALSE(parse_ports(bad));
  }
}

TEST_CASE("the distance of two words counts letters inserted, removed, changed and swapped") {
  CHECK(distance("rmem", "rmem") == 0);
  CHECK(distance("rmen", "rmem") == 1);
  CHECK(distance("mrem", "rmem") == 1);
  CHECK(distance("rmemm", "rmem") == 1);
  CHECK(distance("", "abc") == 3);
  CHECK(distance("kitten", "sitting") == 3);
}
