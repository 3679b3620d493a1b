"""The conformance tests: what is demanded of every plugin, of writers, of trainers and of environments."""
