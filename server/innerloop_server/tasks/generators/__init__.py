"""Task generators: what decides which tasks are trained on. They propose tasks and are told how those went."""
