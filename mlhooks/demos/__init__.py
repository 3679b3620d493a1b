"""Demonstrations: what an expert saw and did, in `.demo` files of ML-Agents' format, and as arrays to learn from."""
