"""The whole server in deterministic worlds: virtual time, seeded order, faults at any step."""
