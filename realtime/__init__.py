"""Clients listen: Socket.IO, REST and their protocols."""
