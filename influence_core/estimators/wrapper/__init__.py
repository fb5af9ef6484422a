"""Methods over other methods: the same scores from several trainings."""
