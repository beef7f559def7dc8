// What the language wants of libstdc++, so that the shim, which every process loads, need not bring it. The
// version script keeps these from being exported.
#include <stddef.h>

// Virtual destructors refer to these; nothing of the shim is ever deleted.
void operator delete(void*) noexcept { __builtin_trap(); }
void operator delete(void*, size_t) noexcept { __builtin_trap(); }
// A table of an abstract class refers to this.
extern "C" void __cxa_pure_virtual() { __builtin_trap(); }
