"""Real engines on loopback for development, the demo and the tests; they die with the process that started them."""
