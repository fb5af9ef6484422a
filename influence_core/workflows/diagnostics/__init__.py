"""Questions about a model or a statistic as a whole, rather than about one prediction."""
