"""What plugin authors need to test a plugin."""
