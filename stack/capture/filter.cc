#include "stack/capture/filter.hh"

#include <linux/filter.h>

#include <array>

#include "stack/base/bytes.hh"

namespace mtcp::stack {
namespace {

constexpr std::size_t kCells = BPF_MEMWORDS;

bool is_load_sound(const FilterInstruction& i) {
  switch (i.code) {
    case BPF_LD | BPF_W | BPF_ABS:
    case BPF_LD | BPF_H | BPF_ABS:
    case BPF_LD | BPF_B | BPF_ABS:
    case BPF_LD | BPF_W | BPF_IND:
    case BPF_LD | BPF_H | BPF_IND:
    case BPF_LD | BPF_B | BPF_IND:
    case BPF_LD | BPF_W | BPF_LEN:
    case BPF_LD | BPF_IMM:
    case BPF_LDX | BPF_W | BPF_LEN:
    case BPF_LDX | BPF_IMM:
    case BPF_LDX | BPF_B | BPF_MSH:
      return true;
    case BPF_LD | BPF_MEM:
    case BPF_LDX | BPF_MEM:
    case BPF_ST:
    case BPF_STX:
      return i.operand < kCells;
    default:
      return false;
  }
}

bool is_arithmetic_sound(const FilterInstruction& i) {
  const bool constant = BPF_SRC(i.code) == BPF_K;
  if ((i.code & ~(0x07 | 0xf0 | 0x08)) != 0) return false;
  switch (BPF_OP(i.code)) {
    case BPF_ADD:
    case BPF_SUB:
    case BPF_MUL:
    case BPF_OR:
    case BPF_AND:
    case BPF_XOR:
      return true;
    case BPF_NEG:
      return constant;
    case BPF_DIV:
    case BPF_MOD:
      return !constant || i.operand != 0;
    case BPF_LSH:
    case BPF_RSH:
      return !constant || i.operand < 32;
    default:
      return false;
  }
}

// `behind`: how many instructions follow this one. Jumps go forward only, so each is run once at most.
bool is_jump_sound(const FilterInstruction& i, std::size_t behind) {
  if ((i.code & ~(0x07 | 0xf0 | 0x08)) != 0) return false;
  switch (BPF_OP(i.code)) {
    case BPF_JA:
      return BPF_SRC(i.code) == BPF_K && i.operand < behind;
    case BPF_JEQ:
    case BPF_JGT:
    case BPF_JGE:
    case BPF_JSET:
      return i.jump_true < behind && i.jump_false < behind;
    default:
      return false;
  }
}

bool is_sound(const FilterInstruction& i, std::size_t behind) {
  switch (BPF_CLASS(i.code)) {
    case BPF_ALU:
      return is_arithmetic_sound(i);
    case BPF_JMP:
      return is_jump_sound(i, behind);
    case BPF_RET:
      return i.code == (BPF_RET | BPF_K) || i.code == (BPF_RET | BPF_A);
    case BPF_MISC:
      return i.code == (BPF_MISC | BPF_TAX) || i.code == (BPF_MISC | BPF_TXA);
    default:
      return is_load_sound(i);
  }
}

struct Machine {
  std::span<const std::byte> packet;
  std::uint32_t a = 0, x = 0;
  std::array<std::uint32_t, kCells> memory{};  // nothing of the stack is to be seen in it

  // False: beyond the packet.
  template <typename T>
  bool load(std::uint64_t at) {
    if (at + sizeof(T) > packet.size()) return false;
    a = load_be<T>(packet.data() + at);
    return true;
  }

  bool load(const FilterInstruction& i) {
    const std::uint64_t at = BPF_MODE(i.code) == BPF_IND ? std::uint64_t{x} + i.operand : i.operand;
    switch (i.code) {
      case BPF_LD | BPF_W | BPF_ABS:
      case BPF_LD | BPF_W | BPF_IND:
        return load<std::uint32_t>(at);
      case BPF_LD | BPF_H | BPF_ABS:
      case BPF_LD | BPF_H | BPF_IND:
        return load<std::uint16_t>(at);
      case BPF_LD | BPF_B | BPF_ABS:
      case BPF_LD | BPF_B | BPF_IND:
        return load<std::uint8_t>(at);
      case BPF_LD | BPF_W | BPF_LEN:
        a = static_cast<std::uint32_t>(packet.size());
        return true;
      case BPF_LD | BPF_IMM:
        a = i.operand;
        return true;
      default:  // BPF_LD | BPF_MEM
        a = memory[i.operand];
        return true;
    }
  }

  bool load_index(const FilterInstruction& i) {
    switch (i.code) {
      case BPF_LDX | BPF_W | BPF_LEN:
        x = static_cast<std::uint32_t>(packet.size());
        return true;
      case BPF_LDX | BPF_IMM:
        x = i.operand;
        return true;
      case BPF_LDX | BPF_MEM:
        x = memory[i.operand];
        return true;
      default:  // BPF_LDX | BPF_B | BPF_MSH: the length of an IPv4 header
        if (i.operand >= packet.size()) return false;
        x = (std::to_integer<std::uint32_t>(packet[i.operand]) & 0xf) * 4;
        return true;
    }
  }

  // False: a division by zero.
  bool calculate(const FilterInstruction& i) {
    const std::uint32_t b = BPF_SRC(i.code) == BPF_X ? x : i.operand;
    switch (BPF_OP(i.code)) {
      case BPF_ADD: a += b; return true;
      case BPF_SUB: a -= b; return true;
      case BPF_MUL: a *= b; return true;
      case BPF_OR: a |= b; return true;
      case BPF_AND: a &= b; return true;
      case BPF_XOR: a ^= b; return true;
      case BPF_LSH: a = b < 32 ? a << b : 0; return true;
      case BPF_RSH: a = b < 32 ? a >> b : 0; return true;
      case BPF_NEG: a = 0U - a; return true;
      case BPF_DIV:
        if (b == 0) return false;
        a /= b;
        return true;
      default:  // BPF_MOD
        if (b == 0) return false;
        a %= b;
        return true;
    }
  }

  // Any instruction but a return; `i` is left at it, or at the last one that it skips. False: the packet is refused.
  bool step(const FilterInstruction*& i) {
    switch (BPF_CLASS(i->code)) {
      case BPF_LD: return load(*i);
      case BPF_LDX: return load_index(*i);
      case BPF_ST: memory[i->operand] = a; return true;
      case BPF_STX: memory[i->operand] = x; return true;
      case BPF_ALU: return calculate(*i);
      case BPF_JMP: i += jump(*i); return true;
      default:  // BPF_MISC
        if (BPF_MISCOP(i->code) == BPF_TAX) x = a;
        else a = x;
        return true;
    }
  }

  // How many instructions it skips.
  [[nodiscard]] std::uint32_t jump(const FilterInstruction& i) const {
    const std::uint32_t b = BPF_SRC(i.code) == BPF_X ? x : i.operand;
    switch (BPF_OP(i.code)) {
      case BPF_JEQ: return a == b ? i.jump_true : i.jump_false;
      case BPF_JGT: return a > b ? i.jump_true : i.jump_false;
      case BPF_JGE: return a >= b ? i.jump_true : i.jump_false;
      case BPF_JSET: return (a & b) != 0 ? i.jump_true : i.jump_false;
      default: return i.operand;  // BPF_JA
    }
  }
};

}  // namespace

std::optional<PacketFilter> PacketFilter::check(std::span<const FilterInstruction> program) {
  if (program.size() > kMost) return std::nullopt;
  for (std::size_t i = 0; i < program.size(); ++i)
    if (!is_sound(program[i], program.size() - i - 1)) return std::nullopt;
  if (!program.empty() && BPF_CLASS(program.back().code) != BPF_RET) return std::nullopt;
  return PacketFilter(program);
}

// The instructions that nearly every filter consists of are told apart in one step.
std::uint32_t PacketFilter::run(std::span<const std::byte> packet) const {
  Machine m{.packet = packet};
  for (const FilterInstruction* i = program_.data();; ++i) {
    bool good = true;
    switch (i->code) {
      case BPF_LD | BPF_W | BPF_ABS: good = m.load<std::uint32_t>(i->operand); break;
      case BPF_LD | BPF_H | BPF_ABS: good = m.load<std::uint16_t>(i->operand); break;
      case BPF_LD | BPF_B | BPF_ABS: good = m.load<std::uint8_t>(i->operand); break;
      case BPF_LD | BPF_H | BPF_IND: good = m.load<std::uint16_t>(std::uint64_t{m.x} + i->operand); break;
      case BPF_JMP | BPF_JEQ | BPF_K: i += m.a == i->operand ? i->jump_true : i->jump_false; break;
      case BPF_JMP | BPF_JSET | BPF_K: i += (m.a & i->operand) != 0 ? i->jump_true : i->jump_false; break;
      case BPF_RET | BPF_K: return i->operand;
      case BPF_RET | BPF_A: return m.a;
      default: good = m.step(i); break;
    }
    if (!good) return 0;
  }
}

}  // namespace mtcp::stack
