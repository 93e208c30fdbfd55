"""gRPC in, gRPC out: the service over one cell. No domain logic stands here."""
