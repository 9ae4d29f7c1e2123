"""The native engine: fused steps in C++ for this processor's vectors; see docs/decisions/0005."""
