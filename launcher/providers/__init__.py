"""Rented machines: offers, rentals with caps, and a ledger that forgets no box."""
