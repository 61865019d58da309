"""REST: one module per feature, each with its ROUTES; api.py reads requests, boundary.py answers them."""
