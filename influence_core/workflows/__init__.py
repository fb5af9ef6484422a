"""What people do with the methods, one question each."""
