"""What the administrator's command does without a hub."""
