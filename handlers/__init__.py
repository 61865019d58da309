"""What happens when: events, commands, routes and features; no sockets, HTTP or drivers."""
