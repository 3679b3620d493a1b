"""Networks and their parts: observation inputs, encoders, action heads, normalizer, schedules."""
