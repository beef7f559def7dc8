// A doubly linked list through a hook inside the element: no allocation, O(1) removal, and an element can tell
// whether it is linked. The list owns nothing.
#pragma once

#include <cassert>

namespace mtcp::stack {

class ListHook {
 public:
  ListHook() = default;
  ListHook(const ListHook&) = delete;
  ListHook& operator=(const ListHook&) = delete;
  ~ListHook() { unlink(); }

  [[nodiscard]] bool linked() const { return next_ != nullptr; }
  void unlink() {
    if (next_ == nullptr) return;
    next_->prev_ = prev_;
    prev_->next_ = next_;
    next_ = prev_ = nullptr;
  }

 private:
  template <typename T, ListHook T::*Hook>
  friend class IntrusiveList;
  ListHook* next_ = nullptr;
  ListHook* prev_ = nullptr;
};

template <typename T, ListHook T::*Hook>
class IntrusiveList {
 public:
  IntrusiveList() { head_.next_ = head_.prev_ = &head_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() { while (pop_front() != nullptr) {} head_.next_ = head_.prev_ = nullptr; }

  [[nodiscard]] bool empty() const { return head_.next_ == &head_; }
  void push_back(T& element) { insert_before(head_, element.*Hook); }
  void push_front(T& element) { insert_before(*head_.next_, element.*Hook); }
  [[nodiscard]] T* front() { return empty() ? nullptr : owner(head_.next_); }
  [[nodiscard]] const T* front() const { return const_cast<IntrusiveList*>(this)->front(); }
  // The element after `element`, or null at the end.
  [[nodiscard]] T* next(T& element) {
    ListHook* hook = (element.*Hook).next_;
    return hook == &head_ ? nullptr : owner(hook);
  }
  T* pop_front() {
    if (empty()) return nullptr;
    T* element = owner(head_.next_);
    (element->*Hook).unlink();
    return element;
  }
  // Moves all of `other` to the end of this list.
  void splice_back(IntrusiveList& other) {
    if (other.empty()) return;
    other.head_.next_->prev_ = head_.prev_;
    head_.prev_->next_ = other.head_.next_;
    other.head_.prev_->next_ = &head_;
    head_.prev_ = other.head_.prev_;
    other.head_.next_ = other.head_.prev_ = &other.head_;
  }

 private:
  static void insert_before(ListHook& at, ListHook& hook) {
    assert(!hook.linked());
    hook.next_ = &at;
    hook.prev_ = at.prev_;
    at.prev_->next_ = &hook;
    at.prev_ = &hook;
  }
  static T* owner(ListHook* hook) {
    alignas(T) static char probe[1];
    const auto offset = reinterpret_cast<char*>(&(reinterpret_cast<T*>(probe)->*Hook)) - probe;
    return reinterpret_cast<T*>(reinterpret_cast<char*>(hook) - offset);
  }
  ListHook head_;
};

}  // namespace mtcp::stack
