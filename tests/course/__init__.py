"""The lesson on the course's own container: `make image`, then `make test-course`. Not a part of `make test`."""
