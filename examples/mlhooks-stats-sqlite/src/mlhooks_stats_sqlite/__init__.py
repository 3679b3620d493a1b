"""A plugin of mlhooks that writes statistics to SQLite and shows them."""
