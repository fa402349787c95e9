"""What all programs share: their arguments, and how they end."""
