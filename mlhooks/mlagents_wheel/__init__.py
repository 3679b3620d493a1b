"""ML-Agents' own package `mlagents`, unmodified, as trainer types: its trainers learn in mlhooks' run loop."""
