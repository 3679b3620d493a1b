"""Settings of RL Baselines3 Zoo as configurations of mlhooks."""
