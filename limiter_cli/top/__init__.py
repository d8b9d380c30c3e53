"""`limiter top`: the keys of a store, live in a terminal. Needs the extra `top`."""
