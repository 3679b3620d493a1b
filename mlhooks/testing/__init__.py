"""The kit with which plugin authors test a plugin."""
