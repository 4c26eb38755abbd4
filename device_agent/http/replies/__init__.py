"""What goes out, in each client's dialect: events and records to JSON and server-sent events. Pure."""
