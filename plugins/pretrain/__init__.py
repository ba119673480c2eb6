"""Next-token training, from scratch or continued."""
