// A treap (Seidel and Aragon 1996): a search tree by `begin`, a heap by random priorities, so of logarithmic depth
// whatever the order in which a peer sends.
#include "stack/tcp/receiver/islands.hh"

namespace mtcp::stack {

namespace {
constexpr std::uint32_t kNone = Island::kNone;
constexpr std::uint32_t kAlways = 16;  // islands that a connection may have in any case, if there are any
}  // namespace

std::uint32_t Islands::next_random() {  // xorshift64*
  random_ ^= random_ >> 12;
  random_ ^= random_ << 25;
  random_ ^= random_ >> 27;
  return static_cast<std::uint32_t>((random_ * 0x2545f4914f6cdd1dU) >> 32);
}

std::uint32_t Islands::create(const IslandSet& set) {
  const std::uint32_t left = slab_.limit() - slab_.size();
  if (set.count >= kAlways && set.count >= left / 16) return kNone;
  const std::uint32_t index = slab_.create();
  if (index != kNone) at(index).priority = next_random();
  return index;
}

void Islands::split(std::uint32_t tree, Seq key, std::uint32_t* less, std::uint32_t* rest) {
  while (tree != kNone) {
    Island& i = at(tree);
    if (before(i.begin, key)) {
      *less = tree;
      less = &i.right;
      tree = i.right;
    } else {
      *rest = tree;
      rest = &i.left;
      tree = i.left;
    }
  }
  *less = *rest = kNone;
}

std::uint32_t Islands::rightmost(std::uint32_t tree) {
  if (tree == kNone) return kNone;
  while (at(tree).right != kNone) tree = at(tree).right;
  return tree;
}

void Islands::insert(IslandSet& set, std::uint32_t index) {
  Island& node = at(index);
  std::uint32_t* link = &set.root;
  while (*link != kNone && at(*link).priority >= node.priority) {
    Island& i = at(*link);
    link = stack::after(node.begin, i.begin) ? &i.right : &i.left;
  }
  split(*link, node.begin, &node.left, &node.right);
  *link = index;
  if (set.last == kNone || stack::after(node.begin, at(set.last).begin)) set.last = index;
  ++set.count;
}

void Islands::remove(IslandSet& set, std::uint32_t index) {
  Island& node = at(index);
  std::uint32_t* link = &set.root;
  while (*link != index) {
    Island& i = at(*link);
    link = stack::after(node.begin, i.begin) ? &i.right : &i.left;
  }
  std::uint32_t a = node.left, b = node.right;
  while (a != kNone && b != kNone) {
    if (at(a).priority > at(b).priority) {
      *link = a;
      link = &at(a).right;
      a = *link;
    } else {
      *link = b;
      link = &at(b).left;
      b = *link;
    }
  }
  *link = a != kNone ? a : b;
  node.left = node.right = kNone;
  if (set.last == index) set.last = rightmost(set.root);
  --set.count;
}

std::uint32_t Islands::at_or_before(const IslandSet& set, Seq seq) {
  if (set.last != kNone && stack::at_or_before(at(set.last).begin, seq)) return set.last;
  std::uint32_t found = kNone;
  for (std::uint32_t t = set.root; t != kNone;) {
    const Island& i = at(t);
    const bool candidate = stack::at_or_before(i.begin, seq);
    if (candidate) found = t;
    t = candidate ? i.right : i.left;
  }
  return found;
}

std::uint32_t Islands::after(const IslandSet& set, Seq seq) {
  if (set.last == kNone || stack::at_or_before(at(set.last).begin, seq)) return kNone;
  std::uint32_t found = kNone;
  for (std::uint32_t t = set.root; t != kNone;) {
    const Island& i = at(t);
    const bool candidate = stack::after(i.begin, seq);
    if (candidate) found = t;
    t = candidate ? i.left : i.right;
  }
  return found;
}

std::uint32_t Islands::first(const IslandSet& set) {
  std::uint32_t t = set.root;
  while (t != kNone && at(t).left != kNone) t = at(t).left;
  return t;
}

}  // namespace mtcp::stack
