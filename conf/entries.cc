#include "conf/entries.hh"

namespace mtcp::conf {

std::optional<stack::Prefix> read_network(const toml::node& n) {
  const auto* s = n.as_string();
  const auto p = s != nullptr ? parse_prefix(s->get()) : std::nullopt;
  if (!p || network_of(*p) != p->address) return std::nullopt;
  return p;
}

std::optional<Ports> read_ports(const toml::node& n) {
  if (const auto* s = n.as_string()) return parse_ports(s->get());
  const auto* i = n.as_integer();
  if (i == nullptr || i->get() < 0 || i->get() > 65535) return std::nullopt;
  return Ports{static_cast<std::uint16_t>(i->get()), static_cast<std::uint16_t>(i->get())};
}

}  // namespace mtcp::conf
