"""What the screens share: the address and the session, cards, charts, forms, jobs and errors."""
