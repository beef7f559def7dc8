// Compiled once for each folder of tests. Every test includes it, so nothing that a file forgot to include comes in by it.
#include <catch2/catch.hpp>
