"""Episodes, the replay that keeps them, and where the goals of a batch come from."""
