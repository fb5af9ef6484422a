"""Methods that retrain without some rows and look what changes."""
